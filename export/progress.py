"""What the exporter is doing, for a person who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def stages(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """A function that shows the current stage on a terminal, and does nothing elsewhere."""
    if not stream.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(file=stream).status("exporting") as status:
        yield lambda stage: status.update(f"{stage} …")
