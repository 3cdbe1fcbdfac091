"""Sessions that were away when their model was replaced: they return as those that were not away go on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.fields import STATS, THETA
from acclimate.runtime.config import Config
from acclimate.runtime.errors import FailedPrecondition, NotFound
from acclimate.runtime.repository.moving import Unfit
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession, EventKind
from acclimate.runtime.wiring import build_service, load_engines
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.digits import picture
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import PLENTY_FOR_ALL, learnt, opened, request, session_of, whole
from tests.runtime.shaky import database
from tests.runtime.shelves import MODEL, placed, relaid, retrained
from tests.runtime.test_journal import journal_of

ROWS = 16
MOVES = (EventKind.RETURNED, EventKind.MOVED, EventKind.RESET, EventKind.DELETED)


@asynccontextmanager
async def running(folder: Path, **sections: Any) -> AsyncIterator[Service]:
    """The service on `models/` and `sessions.db` of a folder."""
    (folder / "models").mkdir(exist_ok=True)
    settings = Config(
        repository={"directory": str(folder / "models")},
        scheduler={"mode": "synchronous"},
        budget=PLENTY_FOR_ALL,
        **({"adaptation": {"canary_every": 0}} | sections),
    )
    service = build_service(settings, load_engines(settings), store=database(folder))
    service.start()
    try:
        yield service
    finally:
        await service.drain(10.0)


async def away(service: Service, name: str = "a", turns: int = 3, recipe: str = "tent") -> dict[str, Any]:
    """A session that has learnt something and has left memory, and its row as it was then."""
    await opened(service, name, recipe, MODEL, batch_rows=ROWS)
    for turn in range(turns):
        await service.infer(request(picture(turn, ROWS, "contrast"), name, model=MODEL))
    row = learnt(service, name, MODEL)
    await service._parts.residency.leave([session_of(service, name, MODEL)])
    assert service._parts.table.at(("", MODEL, name)) is None
    return row


def told(service: Service, name: str = "a") -> list[EventKind]:
    """What watchers heard of the session's return, of `MOVES`."""
    return [event.kind for event in service._parts.hub._latest if event.session_id == name and event.kind in MOVES]


@looped
async def test_who_was_away_is_carried_over_like_who_was_not(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        before = await away(s)
        await opened(s, "b", "tent", MODEL, batch_rows=ROWS)
        for turn in range(3):
            await s.infer(request(picture(turn, ROWS, "contrast"), "b", model=MODEL))
        retrained(bundle_path, tmp_path / "models" / "two", "2")
        await s.repository.load(MODEL)
        listed = {view.session_id: view for view in (await s.list_sessions(MODEL, 0, "")).sessions}
        assert (listed["a"].state, listed["a"].version) == ("adapted", listed["b"].version)
        a, b = await s.get_session(MODEL, "a"), await s.get_session(MODEL, "b")
        assert (a.version, a.updates, a.state, a.theta_distance) == (b.version, b.updates, b.state, b.theta_distance)
        one, other = whole(s, "a", MODEL), whole(s, "b", MODEL)
        for name in (*(f"row.{THETA}", f"row.{STATS}"), *(n for n in one if n.startswith("row.optimiser."))):
            assert one[name] == other[name], name
        assert one["folded"] == other["folded"]
        assert learnt(s, "a", MODEL)[THETA].tobytes() == before[THETA].tobytes()
        assert s.snapshot().models[0].moves["carried"] == 2
        assert told(s)[-2:] == [EventKind.RETURNED, EventKind.MOVED]
        same = [await s.infer(request(picture(9, 4), name, model=MODEL, acclimate_adapt=False)) for name in "ab"]
        assert same[0].outputs["logits"].tobytes() == same[1].outputs["logits"].tobytes()
        assert await journal_of(s).settle([("", MODEL, "a")])
        version = a.version
    async with running(tmp_path) as s:
        assert (await s.get_session(MODEL, "a")).version == version, "stored as its new model has it"
        assert EventKind.MOVED not in told(s)


@looped
async def test_a_model_that_was_replaced_between_two_runs_carries_its_sessions_too(
    bundle_path: Path, tmp_path: Path
) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        before = await away(s)
        await away(s, "fresh", turns=0)
    retrained(bundle_path, tmp_path / "models" / "two", "2")
    async with running(tmp_path) as s:
        view = await s.get_session(MODEL, "a")
        assert (view.state, view.updates) == ("adapted", 3)
        assert learnt(s, "a", MODEL)[THETA].tobytes() == before[THETA].tobytes()
        assert (await s.get_session(MODEL, "fresh")).state == "pristine"
        new = s._parts.engines[MODEL].source.theta
        assert learnt(s, "fresh", MODEL)[THETA].tobytes() == new.tobytes(), "nothing learnt: the new source answers"


@looped
async def test_who_cannot_go_on_is_refused_and_kept_until_somebody_decides(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        before = await away(s)
        await away(s, "fresh", turns=0)
        relaid(bundle_path, tmp_path / "models" / "two", "2")
        await s.repository.load(MODEL)
        with pytest.raises(FailedPrecondition, match="parameters_digest") as refused:
            await s.get_session(MODEL, "a")
        assert refused.value.reason == "BUNDLE_MISMATCH"
        assert [view.session_id for view in (await s.list_sessions(MODEL, 0, "")).sessions] == ["fresh"]
        assert (await s.get_session(MODEL, "fresh")).version == 1, "who has learnt nothing has nothing to lose"
        await s.repository.load(MODEL, "1")
        assert (await s.get_session(MODEL, "a")).updates == 3
        assert learnt(s, "a", MODEL)[THETA].tobytes() == before[THETA].tobytes()


@pytest.mark.parametrize("by_load", [True, False])
@looped
async def test_who_cannot_go_on_begins_again_where_that_was_said(
    bundle_path: Path, tmp_path: Path, by_load: bool
) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path, store={} if by_load else {"unfit_sessions": "reset"}) as s:
        await away(s)
        relaid(bundle_path, tmp_path / "models" / "two", "2")
        await s.repository.load(MODEL, unfit=Unfit.RESET if by_load else Unfit.REFUSE)
        view = await s.get_session(MODEL, "a")
        assert (view.state, view.version, view.updates, view.theta_distance) == ("pristine", 4, 3, 0.0)
        source = s._parts.engines[MODEL].source
        assert learnt(s, "a", MODEL)[THETA].tobytes() == source.theta.tobytes()
        assert told(s)[-2:] == [EventKind.RETURNED, EventKind.RESET]
        assert s.snapshot().models[0].moves["reset"] == 1
        await s.infer(request(picture(1, ROWS, "contrast"), "a", model=MODEL))
        assert (await s.get_session(MODEL, "a")).updates == 4, "and learns on the new model"


@looped
async def test_who_cannot_go_on_is_deleted_where_that_was_said(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        await away(s)
        relaid(bundle_path, tmp_path / "models" / "two", "2")
        await s.repository.load(MODEL, unfit=Unfit.DROP)
        with pytest.raises(NotFound):
            await s.get_session(MODEL, "a")
        assert (s.snapshot().models[0].moves["dropped"], s._parts.residency.stored) == (1, 0)
        assert told(s)[-1:] == [EventKind.DELETED]
        assert database(tmp_path).count() == 0
        await s.create_session(CreateSession(MODEL, "a"))


@looped
async def test_theta_too_far_from_the_new_source_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        await away(s)
    retrained(bundle_path, tmp_path / "models" / "two", "2", factor=3.0)
    async with running(tmp_path, adaptation={"canary_every": 0, "trust_radius": 0.2}) as s:
        with pytest.raises(FailedPrecondition, match=r"from its source; adaptation\.trust_radius"):
            await s.get_session(MODEL, "a")


@looped
async def test_a_bundle_that_the_store_does_not_describe_in_full_is_not_guessed_at(
    bundle_path: Path, tmp_path: Path
) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path) as s:
        await away(s)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        ((digest, text),) = connection.execute("SELECT digest, description FROM bundles").fetchall()
        # As builds before this one described bundles.
        part = {key: json.loads(text)[key] for key in ("name", "version", "parameters", "statistics", "lora")}
        connection.execute("UPDATE bundles SET description = ? WHERE digest = ?", (json.dumps(part), digest))
        connection.commit()
    retrained(bundle_path, tmp_path / "models" / "two", "2")
    async with running(tmp_path) as s:
        with pytest.raises(FailedPrecondition, match="nobody knows that bundle") as refused:
            await s.get_session(MODEL, "a")
        assert refused.value.reason == "BUNDLE_MISMATCH"


@looped
async def test_a_model_that_is_replaced_while_a_session_returns_is_the_one_it_returns_to(
    bundle_path: Path, tmp_path: Path
) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    async with running(tmp_path, sessions={"max_sessions": 1}) as s:
        before = await away(s)
        gate = Gate()
        s._parts.engines[MODEL] = Hooked(s._parts.engines[MODEL], frozen=gate)
        await s.create_session(CreateSession(MODEL, "busy"))
        inside = asyncio.create_task(s.infer(request(picture(1, 1), "busy", model=MODEL)))
        await until_async(gate.reached.is_set, "the only place in memory to be in use")
        coming = asyncio.create_task(s.get_session(MODEL, "a"))
        await until_async(lambda: bool(s._parts.residency._returning), "a session on its way")
        retrained(bundle_path, tmp_path / "models" / "two", "2")
        await s.repository.load(MODEL)
        gate.open()
        await inside
        assert (await coming).version == 4
        assert s._parts.table.at(("", MODEL, "a")).cohort.engine is s._parts.engines[MODEL]  # type: ignore[union-attr]
        np.testing.assert_array_equal(learnt(s, "a", MODEL)[THETA], before[THETA])
