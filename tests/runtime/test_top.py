"""What `acclimate top` makes of what it reads, and how it draws it, without a daemon."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from acclimate.runtime.cli.top_draw import draw, rows_that_fit
from acclimate.runtime.cli.top_rows import Frame, rows
from acclimate.runtime.ranking import Glance, Sort, matching, ranked
from acclimate.runtime.types import Event, EventKind


def seen(session_id: str, **figures: object) -> Glance:
    usual = Glance(
        model="m", session_id=session_id, tenant="", recipe="tent", state="adapted", paused=False, version=1,
        last_used_at=100.0, requests=10, updates=2, rollbacks=0, restorations=0, entropy=0.5, accuracy=0.9,
        labelled_accuracy=None, drift=0.1, drift_signal="entropy",
    )  # fmt: skip
    return replace(usual, **figures)


def names(glances: list[Glance]) -> list[str]:
    return [one.session_id for one in glances]


def test_the_worst_comes_first_whatever_that_is() -> None:
    some = [
        seen("a", drift=0.3, accuracy=0.5, entropy=0.1, rollbacks=0, updates=9, last_used_at=1.0),
        seen("b", drift=0.2, accuracy=0.9, entropy=0.9, rollbacks=5, updates=1, last_used_at=3.0),
        seen("c", drift=0.9, accuracy=None, entropy=None, rollbacks=1, updates=5, last_used_at=2.0),
    ]
    orders = {sort: "".join(names(ranked(some, sort))) for sort in Sort}
    assert orders == {
        Sort.DRIFT: "cab", Sort.ACCURACY: "abc", Sort.ENTROPY: "bac", Sort.ROLLBACKS: "bca", Sort.UPDATES: "acb",
        Sort.RECENT: "bca",
    }  # fmt: skip


def test_those_alike_are_in_a_steady_order() -> None:
    alike = [seen(name) for name in ("c", "a", "b")]
    assert names(ranked(alike, Sort.DRIFT)) == ["a", "b", "c"]


def test_matching_is_by_tenant_model_and_part_of_the_id() -> None:
    some = [seen("Lobby-1"), seen("gate"), seen("lobby-2", tenant="t"), seen("lobby-3", model="n")]
    assert names(matching(some, "", None, "lob")) == ["Lobby-1", "lobby-3"]
    assert names(matching(some, "", "m", "")) == ["Lobby-1", "gate"]
    assert names(matching(some, "t", None, "LOBBY")) == ["lobby-2"]


def test_models_are_summed_up_over_what_is_known() -> None:
    known, silent = seen("a", drift=0.4, paused=True), seen("b", entropy=None, accuracy=None, updates=1)
    model, empty = rows(("m", "n"), [known, silent])
    assert (model.sessions, model.paused, model.updates, model.drift) == (2, 1, 3, 0.4)
    assert (model.entropy, model.accuracy) == (0.5, 0.9)
    assert (empty.sessions, empty.entropy, empty.drift) == (0, None, 0.0)


def drawn(frame: Frame, count: int = 10) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(draw(frame, count))
    return console.export_text()


def framed(*sessions: Glance, **more: object) -> Frame:
    base = Frame("host:1", "1.0", 0.0, 7200.0, "", "drift", len(sessions), rows(("m",), sessions), sessions)
    return replace(base, **more)


def test_a_screen_tells_what_it_leaves_out_and_what_is_by_labels() -> None:
    text = drawn(framed(seen("one", labelled_accuracy=0.25), seen("two"), seen("three")), count=2)
    assert "3 sessions, up 2 h" in text
    assert "25.0%l" in text
    assert "90.0% " in text
    assert "1 more; * estimated without labels" in text
    assert "three" not in text


def test_trends_and_events_are_drawn() -> None:
    event = Event(EventKind.ROLLED_BACK, "m", "one", 0.0, 1, 1, reason="collapse")
    text = drawn(framed(seen("one"), trends=((0.0, 0.5, 1.0),), events=(event,)))
    assert "▁▅█" in text
    assert "rolled back" in text
    assert "collapse" in text


def test_a_daemon_that_is_gone_leaves_the_last_look() -> None:
    text = drawn(framed(seen("one"), error="connection refused"))
    assert "cannot be reached, last seen" in text
    assert "one" in text


def test_names_are_text_and_not_markup() -> None:
    text = drawn(framed(seen("[red]x[/red]\x1b[31m")))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_as_many_rows_as_fit() -> None:
    frame = framed(seen("one"))
    assert rows_that_fit(frame, 5) == 3
    assert rows_that_fit(frame, 40) == 28
