"""Which bundles there are, and changing which of them are served while the daemon runs."""
