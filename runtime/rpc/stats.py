"""Counts of finished rpcs, kept as plain numbers; `metrics/collector.py` reads them."""

from __future__ import annotations

import threading
from collections import Counter


class RpcStats:
    """Finished rpcs by method and status code; safe to read from any thread."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter({(method, "OK"): 0 for method in methods})
        self._streamed: Counter[str] = Counter()
        self._open = 0

    def count(self, method: str, code: str) -> None:
        """One rpc of `method` (`Service/Method`, no package) ended with `code`."""
        with self._lock:
            self._counts[method, code] += 1

    def opened(self) -> None:
        """An inference stream was opened."""
        with self._lock:
            self._open += 1

    def closed(self) -> None:
        """An inference stream ended."""
        with self._lock:
            self._open -= 1

    def streamed(self, code: str) -> None:
        """One request of an inference stream ended with `code`."""
        with self._lock:
            self._streamed[code] += 1

    def streams(self) -> tuple[int, dict[str, int]]:
        """Open inference streams, and requests of streams so far by status code."""
        with self._lock:
            return self._open, dict(self._streamed)

    def counts(self) -> dict[tuple[str, str], int]:
        """`(method, code)` -> rpcs so far; methods that were never called are there with OK 0."""
        with self._lock:
            return dict(self._counts)
