"""Prometheus metrics and the HTTP port. The only user of prometheus_client."""
