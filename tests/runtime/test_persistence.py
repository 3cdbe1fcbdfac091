"""Sessions that outlive their process, and those that leave memory and return: nobody can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from acclimate.runtime.service import Service
from acclimate.runtime.sessions import shelving
from acclimate.runtime.store.base import Batch, Store, Write
from acclimate.runtime.types import CreateSession, Event, EventKind, Feedback
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.serving import (
    MODEL,
    config,
    differences,
    drifted,
    opened,
    predict,
    reply_bits,
    request,
    serving,
    session_of,
    whole,
)
from tests.runtime.shaky import Shaky, database
from tests.runtime.test_codec import record

ROWS = 8
NOT_KEPT = {"buffer", "answers"}


@asynccontextmanager
async def stored(
    folder: Path,
    mode: str = "synchronous",
    clock: Any = None,
    engine: Any = None,
    store: Store | None = None,
    **of: Any,
) -> AsyncIterator[Service]:
    """A service on the database of a folder."""
    keep = store or database(folder)
    of["store"] = of.pop("store_", {})
    async with serving(config(mode, **of), clock=clock or ManualClock(1000.0), store=keep, engine=engine) as service:
        yield service


async def feed(service: Service, session: str, batches: int = 1, seed: int = 0) -> None:
    for n in range(batches):
        await predict(service, drifted(seed + n, ROWS), session, request_id=f"{session}-{seed + n}")


async def learnt(service: Service, session: str, batches: int = 4, recipe: str = "tent") -> dict[str, Any]:
    await opened(service, session, recipe, batch_rows=ROWS)
    await feed(service, session, batches)
    return whole(service, session)


@looped
async def test_sessions_outlive_their_process_bit_for_bit(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        old = {name: await learnt(before, name, batches) for name, batches in (("one", 3), ("two", 5))}
        await opened(before, "fresh", "auto")
        ask = request(drifted(99, 4), "one", "same", acclimate_adapt=False)
        answered = reply_bits(await before.infer(ask))
        old["one"] = whole(before, "one")
        views = [await before.get_session(MODEL, name) for name in ("fresh", "one", "two")]
    async with stored(tmp_path) as after:
        assert len(after._parts.table) == 0, "nothing is loaded before it is asked for"
        assert [view.session_id for view in (await after.list_sessions(MODEL, 0, "")).sessions] == [
            "fresh", "one", "two",
        ]  # fmt: skip
        assert reply_bits(await after.infer(ask)) == answered
        assert [await after.get_session(MODEL, name) for name in ("fresh", "two")] == [views[0], views[2]]
        assert set(differences(old["two"], whole(after, "two"))) <= NOT_KEPT
        await feed(after, "two", 2, seed=50)
        assert session_of(after, "two").account.updates == 7


@looped
async def test_a_list_shows_stored_and_live_sessions_alike(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        for name in "acegi":
            await learnt(before, name, 2)
        expected = list((await before.list_sessions(None, 0, "")).sessions)
    async with stored(tmp_path) as after:
        await after.get_session(MODEL, "c")
        for name in "bdh":
            await opened(after, name, "norm")
        seen, token = [], ""
        for _ in range(5):
            page = await after.list_sessions(MODEL, 2, token)
            seen, token = [*seen, *page.sessions], page.next_page_token
            if not token:
                break
        assert [view.session_id for view in seen] == list("abcdeghi")
        assert [view for view in seen if view.session_id in "acegi"] == expected
        assert len(after._parts.table) == 4, "looking at a list brings nobody back"
        with pytest.raises(NotFound):
            await after.list_sessions("nothing", 0, "")


@looped
async def test_everything_that_names_a_session_brings_it_back(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        for name in ("get", "export", "reset", "feedback", "infer", "start"):
            await learnt(before, name)
    async with stored(tmp_path) as after:
        assert (await after.get_session(MODEL, "get")).updates == 4
        assert (await after.export_session(MODEL, "export")).version == 4
        assert (await after.reset_session(MODEL, "reset")).state == "pristine"
        assert (await after.feedback(MODEL, "feedback", [Feedback("feedback-1", 0)])).unknown_ids == ("feedback-1",)
        assert (await predict(after, drifted(1), "infer")).parameters["acclimate_version"] == 4
        assert (await predict(after, drifted(1), "start", sequence_start=True)).parameters["acclimate_version"] == 5
        assert after.snapshot().store.returns == 6
        with pytest.raises(NotFound, match="open it with CreateSession"):
            await after.get_session(MODEL, "nobody")
        with pytest.raises(NotFound, match="not served"):
            await after.get_session("nothing", "get")
        assert after.snapshot().store.returns == 6


@looped
async def test_a_name_is_taken_as_long_as_its_session_is_stored(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "cam")
    async with stored(tmp_path) as after:
        with pytest.raises(AlreadyExists):
            await after.create_session(CreateSession(MODEL, "cam"))
        await after.delete_session(MODEL, "cam")
        with pytest.raises(NotFound):
            await after.delete_session(MODEL, "cam")
        assert (await opened(after, "cam", "tent")).version == 0
        await after.delete_session(MODEL, "cam")
        assert (await opened(after, "cam", "norm")).recipe == "norm"
    async with stored(tmp_path) as again:
        assert (await again.get_session(MODEL, "cam")).recipe == "norm"
        assert again.snapshot().models[0].sessions_deleted == 0


async def story(folder: Path, most: int) -> tuple[list[Any], Service]:
    """What twelve sessions are answered, in turns, when `most` of them fit into memory."""
    bits = []
    async with stored(folder, sessions={"max_sessions": most}) as service:
        for name in range(12):
            await opened(service, f"s{name}", ("tent", "eata", "auto", "rotta")[name % 4], batch_rows=ROWS)
        for turn in range(7):
            for name in range(12):
                inputs = drifted(100 * turn + name, 3)
                bits.append(reply_bits(await predict(service, inputs, f"s{name}", request_id=f"{turn}-{name}")))
        for name in range(12):
            labels = [Feedback(f"{turn}-{name}", 1, row) for turn in range(7) for row in range(3)]
            bits.append(await service.feedback(MODEL, f"s{name}", labels))
        assert len(service._parts.table) <= most
        return bits, service


@looped
async def test_sessions_that_share_too_little_memory_learn_as_if_they_had_plenty(tmp_path: Path) -> None:
    plenty, _ = await story(tmp_path / "plenty", 12)
    little, service = await story(tmp_path / "little", 3)
    assert little == plenty
    figures = service.snapshot().store
    assert figures.evictions > 80
    assert figures.returns > 80
    assert figures.failures == figures.fenced == figures.damaged == 0


@looped
async def test_who_is_used_last_leaves_last_and_watchers_are_told(tmp_path: Path) -> None:
    async with stored(tmp_path, sessions={"max_sessions": 2}) as service:
        events = service.watch(MODEL, None)
        for name in ("a", "b"):
            await opened(service, name, "norm")
        await predict(service, drifted(0), "a")
        await opened(service, "c", "norm")
        await service.get_session(MODEL, "b")
        told = [await anext(events) for _ in range(6)]
        kinds = [(event.session_id, event.kind) for event in told]
        assert kinds == [
            ("a", EventKind.CREATED), ("b", EventKind.CREATED), ("b", EventKind.EVICTED), ("c", EventKind.CREATED),
            ("a", EventKind.EVICTED), ("b", EventKind.RETURNED),
        ]  # fmt: skip


@looped
async def test_sessions_in_use_do_not_leave(tmp_path: Path) -> None:
    async with stored(tmp_path, sessions={"max_sessions": 2}) as service:
        for name in ("a", "b"):
            await opened(service, name, "norm")
        session_of(service, "a").pins += 1
        session_of(service, "b").stepping = True
        with pytest.raises(ResourceExhausted, match="all of them are in use") as refused:
            await opened(service, "c", "norm")
        assert refused.value.retry_after_seconds
        session_of(service, "a").pins -= 1
        await opened(service, "c", "norm")
        assert sorted(session.id for session in service._parts.table) == ["b", "c"]
        session_of(service, "b").stepping = False


@looped
async def test_idle_sessions_leave_memory_and_those_whose_time_is_over_are_deleted(tmp_path: Path) -> None:
    clock = ManualClock(1000.0)
    async with stored(tmp_path, clock=clock, store_={"idle_seconds": 60.0}) as service:
        for name, ttl in (("stays", None), ("live", 90.0), ("away", 200.0)):
            await opened(service, name, "norm")
            session_of(service, name).ttl_seconds = ttl
            service._parts.residency.noted(session_of(service, name), EventKind.CREATED, False)
        clock.advance(70.0)
        await predict(service, drifted(0), "live")
        await shelving.sweep(service._parts.residency)
        assert [session.id for session in service._parts.table] == ["live"]
        assert service.snapshot().store.sessions == 3
        clock.advance(100.0)
        events = service.watch(MODEL, None)
        await shelving.sweep(service._parts.residency)
        clock.advance(31.0)
        await shelving.sweep(service._parts.residency)
        told = [await anext(events) for _ in range(2)]
        assert [(e.session_id, e.kind) for e in told] == [("live", EventKind.EXPIRED), ("away", EventKind.EXPIRED)]
        assert [v.session_id for v in (await service.list_sessions(None, 0, "")).sessions] == ["stays"]
        for name in ("live", "away"):
            with pytest.raises(NotFound):
                await service.get_session(MODEL, name)
            await opened(service, name, "norm")


@looped
async def test_the_store_holds_no_more_than_it_may(tmp_path: Path) -> None:
    async with stored(tmp_path, store_={"max_sessions": 3}, sessions={"max_sessions": 2}) as service:
        for name in "abc":
            await opened(service, name, "norm")
        for attempt in (opened(service, "d", "norm"), predict(service, drifted(0), "d", sequence_start=True)):
            with pytest.raises(ResourceExhausted, match="as many as store"):
                await attempt
        await service.delete_session(MODEL, "a")
        await opened(service, "d", "norm")
    async with stored(tmp_path, store_={"max_sessions": 3}) as service:
        await until_async(lambda: service.snapshot().store.sessions == 3, "a first count")
        with pytest.raises(ResourceExhausted):
            await opened(service, "e", "norm")
        await service.delete_session(MODEL, "b")
        await opened(service, "e", "norm")


@looped
async def test_a_record_that_does_not_hold_is_refused_and_kept_and_harms_no_other(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        for name in ("good", "bad"):
            await learnt(before, name)
    store = database(tmp_path)
    garble = "UPDATE sessions SET record = CAST(substr(record, 1, 200) || x'00' || substr(record, 202) AS BLOB)"
    store._open().execute(f"{garble} WHERE id = 'bad'")
    async with stored(tmp_path, store=store) as after:
        for attempt in (after.get_session(MODEL, "bad"), predict(after, drifted(0), "bad")):
            with pytest.raises(DataLoss, match="checksum") as refused:
                await attempt
            assert refused.value.reason == "SESSION_DAMAGED"
        with pytest.raises(AlreadyExists):
            await opened(after, "bad", "tent")
        assert [view.session_id for view in (await after.list_sessions(None, 0, "")).sessions] == ["good"]
        assert (await after.get_session(MODEL, "good")).updates == 4
        assert after.snapshot().store.damaged == 2
        assert store.count() == 2
        await after.delete_session(MODEL, "bad")
        assert (await opened(after, "bad", "tent")).version == 0


@looped
async def test_a_session_of_another_bundle_waits_for_its_own(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "cam")
    wider = reference_engine(features=9)
    async with stored(tmp_path, engine=wider) as other:
        with pytest.raises(FailedPrecondition, match=f"cannot go on with {wider.manifest.digest[:16]}"):
            await other.get_session(MODEL, "cam")
        assert (await other.list_sessions(None, 0, "")).sessions == ()
    async with stored(tmp_path) as after:
        assert (await after.get_session(MODEL, "cam")).updates == 4


@looped
async def test_a_session_that_does_not_fit_is_let_go_of_again(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "cam")
    clock = ManualClock(1000.0)
    async with stored(tmp_path, clock=clock, sessions={"buffer_rows": 4}, adaptation={"batch_rows": 4}) as other:
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match="batch_rows is 8"):
                await other.get_session(MODEL, "cam")
        journal = other._parts.residency.journal
        assert journal is not None
        clock.advance(1.0)
        await until_async(lambda: not journal._waiting, "the claim to be given back")
        assert database(tmp_path).page(None, None, None, 1, 0.0)[0].owner == ""


async def taken(events: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(events) for _ in range(count)]


@looped
async def test_a_stored_session_can_be_watched(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "cam")
    async with stored(tmp_path) as after:
        events = after.watch(MODEL, "cam")
        nobody = after.watch(MODEL, "nobody")
        with pytest.raises(NotFound):
            await anext(nobody)
        await after.get_session(MODEL, "cam")
        assert [event.kind for event in await taken(events, 1)] == [EventKind.RETURNED]


@looped
async def test_requests_that_come_together_bring_a_session_back_once(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "cam")
    async with stored(tmp_path, "background") as after:
        views = await asyncio.gather(*(after.get_session(MODEL, "cam") for _ in range(9)))
        assert [view.version for view in views] == [4] * 9
        assert after.snapshot().store.returns == 1


@looped
async def test_a_budget_goes_on_where_it_was(tmp_path: Path) -> None:
    clock = ManualClock(1000.0)
    budget = {"refill_ms_per_s": 1.0, "capacity_ms": 100.0}
    async with stored(tmp_path, clock=clock, mode="background", budget=budget) as before:
        await opened(before, "cam", "tent", batch_rows=ROWS)
        session = session_of(before, "cam")
        before._parts.learner._pay(session, 80.0)
    clock = ManualClock(1030.0)
    clock.now = 1030.0
    async with stored(tmp_path, clock=clock, mode="background", budget=budget) as after:
        assert (await after.get_session(MODEL, "cam")).budget_available_ms == pytest.approx(50.0)


@looped
async def test_an_unwritable_store_at_the_end_is_told_and_does_not_hang(tmp_path: Path) -> None:
    store = Shaky(database(tmp_path))
    async with stored(tmp_path, store=store) as service:
        await learnt(service, "cam")
        store.broken = True
        await feed(service, "cam", 2, seed=70)
        assert session_of(service, "cam").version >= 4
    assert database(tmp_path).count() <= 1


@looped
async def test_sessions_of_a_model_that_is_not_served_end_as_others_do(tmp_path: Path) -> None:
    store = database(tmp_path)
    gone = record(model="gone")
    store.write(Batch(writes=[Write(gone, 0, expires_at=900.0)], released={gone.key: 1}))
    async with stored(tmp_path, store=store) as service:
        await shelving.sweep(service._parts.residency)
        assert store.count() == 0
