"""Grafana dashboards as data, one file a board; `python -m ops.grafana` writes the JSON beside them."""
