"""What an operator starts from: rules, dashboards, packaging. Nothing here is installed."""
