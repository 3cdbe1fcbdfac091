"""Engines: one protocol, `base.Engine`; one file per implementation. Only `runtime/wiring.py` imports those."""
