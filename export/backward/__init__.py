"""Reverse mode on the graph: one rule per operator, and one composite for adaptable norms."""
