"""Files that hold credentials: noticing that they changed, and the error for those that cannot be used."""

from __future__ import annotations

import threading
import time
from pathlib import Path

LOOK_EVERY_SECONDS = 1.0


class SecurityError(ValueError):
    """A credential file or setting cannot be used; the message is one line that names it and the fix."""


class FileWatch:
    """Whether files changed since the last look; looks once a second at most, from any thread."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """True once after each change that a look finds."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_EVERY_SECONDS:
                return False
            self._looked = now
            signature = self._signature()
            if signature == self._seen:
                return False
            self._seen = signature
            return True

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
