"""Which daemons are alive: each holds a lock on a file of its own while it runs.

The kernel drops the lock with the process, however it ends, and no clock is asked. Locks of `flock` are of one
machine: so is the store (SQLite's own locks are no better over a network file system).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import uuid
from pathlib import Path


class Owners:
    """The lock files in `folder`, which is made if it is not there, and the one of this daemon among them.

    Raises:
        OSError: the folder or the file cannot be made or locked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname())[:64] or "host"
        self.name = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # Locked before it has its name: nobody ever sees it without its lock, and takes it for a dead daemon's.
        unnamed = folder / f"{self.name}.new"
        self._file: int | None = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unnamed.rename(self._path(self.name))
        clear_away(folder)

    def alive(self, owner: str) -> bool:
        """Whether a daemon of this name runs; the file of one that does not is cleared away."""
        if owner == self.name:
            return self._file is not None
        if held(self._path(owner)):
            return True
        self._path(owner).unlink(missing_ok=True)
        return False

    def close(self) -> None:
        """This daemon runs no more; calling it twice is harmless."""
        if self._file is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path(self.name).unlink()
        os.close(self._file)
        self._file = None

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"


def folder_of(path: Path) -> Path:
    """Where the lock files of a store's owners lie."""
    return path.with_name(f"{path.name}.owners")


def clear_away(folder: Path) -> None:
    """Remove the lock files of daemons that are dead."""
    for lock in folder.glob("*.lock"):
        if not held(lock):
            lock.unlink(missing_ok=True)


def held(path: Path) -> bool:
    """Whether a process that is alive holds the lock on a file."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two daemons that ask at once do not take each other for the owner.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
