"""Digits seen by drifting cameras: the demo that `make demo` shows."""
