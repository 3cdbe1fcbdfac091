"""A command in a terminal of its own: what it draws, and keys pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.end_to_end.daemons import COMMAND, PATIENCE_SECONDS
from tests.polling import until

ROWS, COLUMNS = 40, 160
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


@dataclass
class Terminal:
    """A running command and its side of the terminal."""

    process: subprocess.Popen[bytes]
    side: int
    drawn: str = ""

    def shows(self, words: str) -> None:
        """Wait until words are drawn that had not been when this was called last."""
        until(lambda: words in self._read(), f"{words!r} to be drawn")
        self.drawn = ""

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self.side, key.encode())

    def ends(self) -> int:
        """Wait for its end, and return the exit code."""
        until(lambda: self._read() is not None and self.process.poll() is not None, "the command to end")
        return self.process.returncode

    def _read(self) -> str:
        # Nothing may be there yet, or the other side be closed.
        with suppress(OSError):
            self.drawn += CONTROLS.sub("", os.read(self.side, 65536).decode("utf-8", "replace"))
        return self.drawn


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """Run `acclimate` in a terminal for a block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    os.set_blocking(ours, False)
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
        os.close(ours)
