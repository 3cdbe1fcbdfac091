"""Writes `docs/metrics.md` to standard output."""

from __future__ import annotations

import sys

from acclimate.runtime.metrics.catalogue.page import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
