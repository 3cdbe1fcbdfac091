"""Spans of requests and of what was learnt from them; `otel.py` alone imports OpenTelemetry."""
