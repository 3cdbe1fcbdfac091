"""The HTTP port's server, and the web page with its API."""
