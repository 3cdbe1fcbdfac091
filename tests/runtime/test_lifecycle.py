"""Forks, snapshots and pauses of sessions: bit for bit, independent of each other, all or nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from acclimate.runtime.lifecycle_types import ForkSession, UpdateSession
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.snapshot import snapshot_of
from acclimate.runtime.types import Budget, Feedback
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import (
    MODEL,
    config,
    differences,
    drifted,
    learnt,
    opened,
    predict,
    reply_bits,
    serving,
    session_of,
    whole,
)

# With what they remember: an optimiser, a filter, a teacher, a ring of checkpoints, class statistics, a pace.
RECIPES: dict[str, dict[str, float]] = {
    "tent": {"batch_rows": 4, "lr": 0.05},
    "eata": {"batch_rows": 4, "margin_ratio": 1.0},
    "cotta": {"batch_rows": 4},
    "roid": {"batch_rows": 4, "restoration.ring": 2, "restoration.ring_every": 1},
    "rotta": {"batch_rows": 4},
    "auto": {"batch_rows": 4},
}
RUN = Callable[[Service], Awaitable[None]]


def run(scenario: RUN, **options: Any) -> None:
    async def main() -> None:
        async with serving(options.pop("settings", None), **options) as service:
            await scenario(service)

    asyncio.run(main())


async def taught(service: Service, name: str, recipe: str = "tent", seeds: range = range(8)) -> None:
    await opened(service, name, recipe, **RECIPES[recipe])
    await teach(service, name, seeds)


async def teach(service: Service, name: str, seeds: range) -> list[Any]:
    """What the session answers while it learns."""
    answers = [await predict(service, drifted(n, 2), name, request_id=f"r{n}") for n in seeds]
    return [reply_bits(reply)[3] for reply in answers]


def estrange(session: Session, snapshot_id: str) -> None:
    """Put parameters into a snapshot that no guard lets pass, as if it had been taken under other guards."""
    held = session.snapshots[snapshot_id]
    far = {**held.record.fields, "theta": held.record.fields["theta"] * 100.0}
    session.snapshots[snapshot_id] = snapshot_of(snapshot_id, dataclasses.replace(held.record, fields=far))


def row(service: Service, name: str) -> dict[str, bytes]:
    return {key: value.tobytes() for key, value in learnt(service, name).items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fork_is_its_source_bit_for_bit_and_learns_on_as_it_does(recipe: str) -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s", recipe)
        source = await service.get_session(MODEL, "s")
        fork = await service.lifecycle.fork(ForkSession(MODEL, "s", "t"))
        assert row(service, "t") == row(service, "s")
        assert (fork.recipe, fork.recipe_parameters) == (source.recipe, source.recipe_parameters)
        assert (fork.version, fork.state, fork.theta_distance) == (source.version, source.state, source.theta_distance)
        assert (fork.requests, fork.updates, fork.buffered, fork.labelled) == (0, 0, 0, 0)
        assert fork.budget == source.budget
        assert await teach(service, "s", range(20, 28)) == await teach(service, "t", range(20, 28))
        assert row(service, "t") == row(service, "s")

    run(scenario)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["predict", "predict", "reset", "restore", "pause", "feedback"]), st.integers(0, 2**16)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15, deadline=None)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    past=st.integers(0, 6),
    operations=OPERATIONS,
    changed=st.sampled_from(["s", "t"]),
)
def test_changing_one_never_changes_the_other(
    recipe: str, past: int, operations: list[tuple[str, int]], changed: str
) -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s", recipe, range(past))
        await service.lifecycle.take_snapshot(MODEL, "s", "snap")
        await service.lifecycle.fork(ForkSession(MODEL, "s", "t"))
        await service.lifecycle.take_snapshot(MODEL, "t", "snap")
        kept = "t" if changed == "s" else "s"
        before = whole(service, kept)
        for kind, seed in operations:
            await apply(service, changed, kind, seed)
        assert not differences(before, whole(service, kept))
        await service.delete_session(MODEL, changed)
        assert not differences(before, whole(service, kept))

    run(scenario)


async def apply(service: Service, name: str, kind: str, seed: int) -> None:
    match kind:
        case "predict":
            await predict(service, drifted(seed, 4), name, request_id=f"r{seed}")
        case "reset":
            await service.reset_session(MODEL, name)
        case "restore":
            await service.lifecycle.restore(MODEL, name, "snap")
        case "pause":
            turn = service.lifecycle.resume if session_of(service, name).paused else service.lifecycle.pause
            await turn(MODEL, name)
        case "feedback":
            await service.feedback(MODEL, name, [Feedback(f"r{seed}", seed % 4)])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_snapshot_comes_back_bit_for_bit_at_a_new_version(recipe: str) -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s", recipe)
        taken = await service.lifecycle.take_snapshot(MODEL, "s", "monday")
        then, view = row(service, "s"), await service.get_session(MODEL, "s")
        assert (taken.version, taken.state, taken.theta_distance) == (view.version, view.state, view.theta_distance)
        assert view.state_bytes >= taken.nbytes > sum(map(len, then.values()))
        future = await teach(service, "s", range(20, 28))
        moved = await service.get_session(MODEL, "s")
        back = await service.lifecycle.restore(MODEL, "s", "monday")
        assert row(service, "s") == then
        assert (back.state, back.theta_distance, back.version) == (view.state, view.theta_distance, moved.version + 1)
        assert (back.updates, back.samples, back.buffered) == (moved.updates, moved.samples, 0)
        assert await teach(service, "s", range(20, 28)) == future, "the same past has the same future"
        await service.reset_session(MODEL, "s")
        await service.lifecycle.restore(MODEL, "s", "monday")
        assert row(service, "s") == then, "a snapshot is brought back as often as one likes, and outlives a reset"
        copy = await service.lifecycle.fork(ForkSession(MODEL, "s", "t", "monday"))
        assert row(service, "t") == then
        assert copy.version == taken.version

    run(scenario)


def test_samples_that_wait_are_not_learnt_from_after_a_restoration() -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s", seeds=range(9))
        await service.lifecycle.take_snapshot(MODEL, "s", "x")
        assert (await service.get_session(MODEL, "s")).buffered == 2
        assert (await service.lifecycle.restore(MODEL, "s", "x")).buffered == 0

    run(scenario)


def test_a_snapshot_of_the_source_brings_the_source_back() -> None:
    async def scenario(service: Service) -> None:
        await opened(service, "s", "tent", **RECIPES["tent"])
        await service.lifecycle.take_snapshot(MODEL, "s", "first")
        await teach(service, "s", range(8))
        back = await service.lifecycle.restore(MODEL, "s", "first")
        assert (back.state, back.theta_distance) == ("pristine", 0.0)
        answer = await predict(service, drifted(5, 2), "s", acclimate_adapt=False)
        np.testing.assert_array_equal(answer.outputs["logits"], reference_engine().frozen(drifted(5, 2)))

    run(scenario)


def test_what_is_brought_back_passes_the_guards_or_changes_nothing() -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s")
        await service.lifecycle.take_snapshot(MODEL, "s", "far")
        estrange(session_of(service, "s"), "far")
        before = whole(service, "s")
        with pytest.raises(FailedPrecondition, match=r"not brought back: .* guard 'trust_region'") as caught:
            await service.lifecycle.restore(MODEL, "s", "far")
        assert (caught.value.reason, caught.value.metadata["guard"]) == ("SNAPSHOT_REFUSED", "trust_region")
        assert not differences(before, whole(service, "s"))

    run(scenario)


def test_a_snapshot_cannot_be_written_to() -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s")
        await service.lifecycle.take_snapshot(MODEL, "s", "fixed")
        then, held = row(service, "s"), session_of(service, "s").snapshots["fixed"]
        with pytest.raises(ValueError, match="read-only"):
            held.record.fields["theta"][:] = 0.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            held.record = None  # type: ignore[misc, assignment]
        await service.lifecycle.restore(MODEL, "s", "fixed")
        assert row(service, "s") == then

    run(scenario)


def test_snapshots_are_bounded_listed_by_pages_and_deleted() -> None:
    async def scenario(service: Service) -> None:
        lives = service.lifecycle
        await taught(service, "s", seeds=range(1))
        bytes_before = session_of(service, "s").state_bytes
        for name in ("c", "a", "b"):
            await lives.take_snapshot(MODEL, "s", name)
        with pytest.raises(AlreadyExists, match="has a snapshot 'a'"):
            await lives.take_snapshot(MODEL, "s", "a")
        with pytest.raises(ResourceExhausted, match=r"3 snapshots, as many as sessions\.max_snapshots") as full:
            await lives.take_snapshot(MODEL, "s")
        assert full.value.reason == "SNAPSHOTS_FULL"
        first = await lives.list_snapshots(MODEL, "s", 2, "")
        second = await lives.list_snapshots(MODEL, "s", 2, first.next_page_token)
        assert [[v.snapshot_id for v in page.snapshots] for page in (first, second)] == [["a", "b"], ["c"]]
        assert second.next_page_token == ""
        assert (await lives.get_snapshot(MODEL, "s", "b")) == first.snapshots[1]
        figures = service.snapshot().models[0]
        assert (figures.snapshots, figures.snapshot_bytes) == (3, sum(
            view.nbytes for view in (*first.snapshots, *second.snapshots)
        ))  # fmt: skip
        for name in ("a", "b", "c"):
            await lives.delete_snapshot(MODEL, "s", name)
        assert session_of(service, "s").state_bytes == bytes_before
        for call in (lives.get_snapshot, lives.delete_snapshot, lives.restore):
            with pytest.raises(NotFound, match="has no snapshot 'a'") as gone:
                await call(MODEL, "s", "a")
            assert gone.value.reason == "SNAPSHOT_NOT_FOUND"
        with pytest.raises(NotFound):
            await lives.fork(ForkSession(MODEL, "s", None, "a"))

    run(scenario, settings=config(sessions={"max_snapshots": 3}))


def test_a_paused_session_answers_and_learns_nothing_until_it_is_resumed() -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s", seeds=range(9))
        before, learned = await service.get_session(MODEL, "s"), row(service, "s")
        assert before.buffered == 2
        paused = await service.lifecycle.pause(MODEL, "s")
        assert (paused.paused, paused.state, paused.version) == (True, "adapted", before.version)
        assert await service.lifecycle.pause(MODEL, "s") == paused, "twice is once"
        reply = await predict(service, drifted(50, 8), "s", request_id="while")
        assert reply.parameters["acclimate_version"] == before.version
        assert (await service.feedback(MODEL, "s", [Feedback("while", 0)])).accepted == 1
        view = await service.get_session(MODEL, "s")
        assert (view.samples, view.buffered, view.updates) == (before.samples + 8, 2, before.updates)
        assert row(service, "s") == learned
        resumed = await service.lifecycle.resume(MODEL, "s")
        assert (resumed.paused, resumed.state, resumed.version) == (False, "adapted", before.version)
        await predict(service, drifted(51, 2), "s")
        assert (await service.get_session(MODEL, "s")).updates == before.updates + 1

    # Steps this large are soon refused by canaries, which is not the subject here.
    run(scenario, settings=config(adaptation={"canary_every": 0}))


def test_a_paused_session_of_a_recipe_that_answers_late_is_answered_at_once() -> None:
    async def scenario(service: Service) -> None:
        await opened(service, "s", "memo")
        await service.lifecycle.pause(MODEL, "s")
        reply = await predict(service, drifted(1, 2), "s")
        np.testing.assert_array_equal(reply.outputs["logits"], reference_engine().frozen(drifted(1, 2)))
        assert (await service.get_session(MODEL, "s")).updates == 0

    run(scenario)


def test_resets_and_snapshots_work_on_a_paused_session_and_leave_it_paused() -> None:
    async def scenario(service: Service) -> None:
        await taught(service, "s")
        await service.lifecycle.take_snapshot(MODEL, "s", "x")
        await service.lifecycle.pause(MODEL, "s")
        then = row(service, "s")
        assert ((view := await service.reset_session(MODEL, "s")).state, view.paused) == ("pristine", True)
        view = await service.lifecycle.restore(MODEL, "s", "x")
        assert (view.state, view.paused, row(service, "s") == then) == ("adapted", True, True)
        await service.lifecycle.take_snapshot(MODEL, "s", "paused")
        assert not (await service.lifecycle.fork(ForkSession(MODEL, "s", "t", "paused"))).paused
        view = await service.lifecycle.resume(MODEL, "s")
        assert (view.state, view.paused) == ("adapted", False)

    run(scenario)


def test_what_waits_when_a_session_is_paused_waits_until_it_is_resumed() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(config("background"), Hooked(reference_engine(), vjp=gate)) as service:
            await opened(service, "s", "tent", batch_rows=4, lr=0.01)
            await predict(service, drifted(0, 4), "s")
            assert await asyncio.to_thread(gate.reached.wait, 60)
            await predict(service, drifted(1, 8), "s")
            await service.lifecycle.pause(MODEL, "s")
            gate.open()
            await until_async(lambda: not session_of(service, "s").stepping, "the step to end")
            for n in range(5):
                await predict(service, drifted(n, 4), "s")
            await service.feedback(MODEL, "s", [Feedback("none", 0)])
            view = await service.get_session(MODEL, "s")
            assert (view.buffered, view.updates) == (8, 0)
            await service.lifecycle.resume(MODEL, "s")
            await until_async(lambda: session_of(service, "s").account.updates == 2, "two steps")

    asyncio.run(scenario())


@pytest.mark.parametrize("meanwhile", ["reset", "reopened", "deleted", "nothing"])
def test_a_session_that_changes_while_the_guards_judge_is_left_alone(meanwhile: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open()
        engine = Hooked(reference_engine(), predict=gate, frozen=gate)
        async with serving(config(), engine) as service:
            await taught(service, "s")
            await service.lifecycle.take_snapshot(MODEL, "s", "x")
            tag = (await service.get_session(MODEL, "s")).etag
            gate.close()
            restoring = asyncio.ensure_future(service.lifecycle.restore(MODEL, "s", "x", tag))
            assert await asyncio.to_thread(gate.reached.wait, 60)
            if meanwhile == "reset":
                await service.reset_session(MODEL, "s")
            elif meanwhile != "nothing":
                await service.delete_session(MODEL, "s")
            if meanwhile == "reopened":
                await opened(service, "s", "tent", **RECIPES["tent"])
            gate.open()
            if meanwhile == "nothing":
                assert (await restoring).state == "adapted"
                return
            with pytest.raises(NotFound if meanwhile == "deleted" else Aborted):
                await restoring
            if meanwhile != "deleted":
                assert (await service.get_session(MODEL, "s")).state == "pristine"

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["pause", "restore", "budget"])
def test_a_step_under_way_neither_survives_a_pause_or_restore_nor_undoes_an_update(change: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        engine = Hooked(reference_engine(), vjp=gate)
        async with serving(config("background"), engine) as service:
            await opened(service, "s", "tent", batch_rows=4, lr=0.05)
            await service.lifecycle.take_snapshot(MODEL, "s", "start")
            await predict(service, drifted(0, 4), "s")
            assert await asyncio.to_thread(gate.reached.wait, 60)
            if change == "pause":
                await service.lifecycle.pause(MODEL, "s")
            elif change == "restore":
                await service.lifecycle.restore(MODEL, "s", "start")
            else:
                wanted = UpdateSession(MODEL, "s", ("budget",), Budget(7.0, 77.0))
                await service.lifecycle.update(wanted)
            before, version = row(service, "s"), session_of(service, "s").version
            gate.open()
            await until_async(lambda: not session_of(service, "s").stepping, "the step to end")
            view = await service.get_session(MODEL, "s")
            if change == "budget":
                assert (view.updates, view.budget) == (1, Budget(7.0, 77.0))
            else:
                assert (view.updates, view.version, view.skipped) == (0, version, {"stale": 1})
                assert row(service, "s") == before

    asyncio.run(scenario())
