"""Counts of finished rpcs, kept as plain numbers; `metrics/collector.py` reads them."""

from __future__ import annotations

import threading
from collections import Counter


class RpcStats:
    """Finished rpcs by method and status code; safe to read from any thread."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter({(method, "OK"): 0 for method in methods})

    def count(self, method: str, code: str) -> None:
        """One rpc of `method` (`Service/Method`, no package) ended with `code`."""
        with self._lock:
            self._counts[method, code] += 1

    def counts(self) -> dict[tuple[str, str], int]:
        """`(method, code)` -> rpcs so far; methods that were never called are there with OK 0."""
        with self._lock:
            return dict(self._counts)
