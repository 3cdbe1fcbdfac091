"""What the exporter is doing, for a person who waits at a terminal. No result depends on any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
# What the compiler announces, from tracing to writing.
COMPILER_STAGES = 7
# The bars on the screen, so that a loop anywhere below may count without being handed them.
_bars: ContextVar[Progress | None] = ContextVar("bars", default=None)


@contextmanager
def stages(stream: TextIO, count: int) -> Iterator[Callable[[str], None]]:
    """A function that names the current one of `count` stages on a terminal, and does nothing elsewhere.

    Within other stages it names those: whoever opened them has counted all that come.
    """
    outer = _bars.get()
    if outer is not None:
        yield lambda stage: _next(outer, stage)
        return
    if not stream.isatty():
        yield lambda _: None
        return
    with _shown(stream) as bars:
        bars.add_task("starting", total=count, unit="stages")
        token = _bars.set(bars)
        try:
            yield lambda stage: _next(bars, stage)
        finally:
            _bars.reset(token)


def counted(items: Sequence[Item], unit: str) -> Iterator[Item]:
    """The same items, with a bar that counts them while a stage is shown."""
    bars = _bars.get()
    if bars is None or len(items) < 2:
        yield from items
        return
    task = bars.add_task("", total=len(items), unit=unit)
    try:
        for item in items:
            yield item
            bars.advance(task)
    finally:
        bars.remove_task(task)


def _next(bars: Progress, stage: str) -> None:
    bars.update(bars.tasks[0].id, advance=1, description=stage)


def _shown(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=Console(file=stream),
        transient=True,
    )
