"""`acclimate top` as people see it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from acclimate.runtime.cli.top_rows import Frame, ModelRow
from acclimate.runtime.ranking import Glance
from acclimate.runtime.types import Event

BLOCKS = "▁▂▃▄▅▆▇█"
EVENT_ROWS = 6
# Lines that are neither sessions nor models nor events: title, gaps, headings, keys.
FURNITURE = 10
COLOURS = {"rolled_back": "red", "fenced": "red", "restored": "yellow", "reset": "yellow", "drifted": "magenta"}
SHORTEST = 3


def draw(frame: Frame, count: int) -> RenderableType:
    """The whole screen, `count` sessions of it."""
    parts: list[RenderableType] = [_title(frame), _models(frame.models), _sessions(frame, count)]
    if frame.events:
        parts.append(_events(frame.events[:EVENT_ROWS]))
    return Group(*parts)


def rows_that_fit(frame: Frame, height: int) -> int:
    """Sessions that fit a terminal of so many lines."""
    return max(SHORTEST, height - FURNITURE - len(frame.models) - min(EVENT_ROWS, len(frame.events)) - 1)


def _title(frame: Frame) -> Text:
    title = Text.assemble(("acclimate ", "bold"), (frame.version, "bold"), "  ", frame.target, "  ")
    if frame.error:
        seen = f", last seen {_ago(frame.at)}" if frame.version else ""
        title.append_text(_name(f"cannot be reached{seen}: {frame.error}", "bold red"))
        return title
    title.append(f"{frame.total} sessions, up {_span(frame.at - frame.started_at)}", "dim")
    return title


def _models(models: Sequence[ModelRow]) -> Table:
    table = _table("model", "sessions", "paused", "entropy", "accuracy*", "drift", "updates/s", "updates", "roll-backs",
                   "restored")  # fmt: skip
    for row in models:
        table.add_row(
            _name(row.model, "bold"), str(row.sessions), str(row.paused), _number(row.entropy), _percent(row.accuracy),
            _number(row.drift), _number(row.updates_per_s, 1), str(row.updates), _alarming(row.rollbacks),
            str(row.restorations),
        )  # fmt: skip
    return table


def _sessions(frame: Frame, count: int) -> Table:
    shown = frame.sessions[:count]
    table = _table(f"session, by {frame.sort}", "state", "drift", "", "of", "accuracy*", "entropy", "updates",
                   "roll-backs", "restored", "used")  # fmt: skip
    trends = frame.trends or ((),) * len(frame.sessions)
    several = len(frame.models) != 1
    for seen, trend in zip(shown, trends, strict=False):
        table.add_row(*_cells(seen, trend, several, frame.at))
    more = frame.total - len(shown)
    table.caption = f"{more} more; " * (more > 0) + "* estimated without labels, l: by labels"
    table.caption_justify = "left"
    return table


def _cells(seen: Glance, trend: Sequence[float], several: bool, now: float) -> list[RenderableType]:
    name = _name(f"{seen.model}/{seen.session_id}" if several else seen.session_id, "bold")
    labelled = seen.labelled_accuracy is not None
    accuracy = _percent(seen.labelled_accuracy if labelled else seen.accuracy)
    return [
        name,
        Text("paused", "yellow") if seen.paused else Text(seen.state, "dim" if seen.state == "pristine" else ""),
        _number(seen.drift),
        Text(_spark(trend), "cyan"),
        Text(seen.drift_signal, "dim"),
        f"{accuracy}{'l' if labelled else ' '}",
        _number(seen.entropy),
        str(seen.updates),
        _alarming(seen.rollbacks),
        str(seen.restorations),
        _ago(seen.last_used_at, now),
    ]


def _events(events: Sequence[Event]) -> Table:
    table = _table("time", "session", "what", "why")
    for column in table.columns:
        column.justify = "left"
    for event in events:
        table.add_row(
            time.strftime("%H:%M:%S", time.localtime(event.at)),
            _name(f"{event.model}/{event.session_id}"),
            Text(event.kind.value.replace("_", " "), COLOURS.get(event.kind.value, "")),
            _name(event.reason, "dim"),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=False, header_style="dim", title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _name(given: str, style: str = "") -> Text:
    """A text from elsewhere: neither markup nor what a terminal would obey."""
    return Text("".join(sign if sign.isprintable() else "?" for sign in given), style, overflow="ellipsis")


def _spark(values: Sequence[float]) -> str:
    top = max(values, default=0.0)
    if top <= 0:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(len(BLOCKS) * max(0.0, value) / top))] for value in values)


def _alarming(times: int) -> Text:
    return Text(str(times), "bold red" if times else "")


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ago(moment: float, now: float | None = None) -> str:
    return f"{_span((time.time() if now is None else now) - moment)} ago"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
