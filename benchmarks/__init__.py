"""Measurements: `python -m benchmarks.<name> [--json]`; `make bench` runs them all.

A benchmark is one file that measures, and hands a `Report` to `_report.emit`. Figures carry their unit in
their name (`ready_seconds`, `rss_mb`); MB is 10^6 bytes.
"""
