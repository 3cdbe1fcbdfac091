"""Loading, replacing and unloading models: what is served, and what becomes of sessions."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.budget import PREFIX
from acclimate.adapters.fields import STATS, THETA
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.errors import AcclimateError, FailedPrecondition, NotFound, Unavailable
from acclimate.runtime.repository.moving import Unfit
from acclimate.runtime.repository.shelves import Shelves, highest
from acclimate.runtime.service import Service
from acclimate.runtime.types import EventKind, Feedback
from tests.polling import until_async
from tests.runtime.digits import picture
from tests.runtime.serving import learnt, opened, request, session_of
from tests.runtime.shelves import MODEL, placed, relaid, retrained, serving

ROWS = 16


async def taught(service: Service, session: str, turns: int = 3, recipe: str = "tent") -> None:
    """A session that has taken `turns` steps and has samples waiting for the next."""
    await opened(service, session, recipe, MODEL, batch_rows=ROWS)
    for turn in range(turns):
        await service.infer(request(picture(turn, ROWS, "contrast"), session, f"r{turn}", model=MODEL))
    await service.infer(request(picture(90, 3, "contrast"), session, "waiting", model=MODEL))
    assert session_of(service, session, MODEL).account.updates == turns


async def answer(service: Service, session: str | None = None, **parameters: Any) -> Any:
    return await service.infer(request(picture(7, 4), session, model=MODEL, acclimate_adapt=False, **parameters))


async def index(service: Service) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.version, entry.state) for entry in await service.repository.index()]


def test_the_highest_version_is_served_and_versions_are_numbers_where_they_look_so(
    bundle_path: Path, tmp_path: Path
) -> None:
    for version in ("9", "10", "1.9", "1.10"):
        placed(bundle_path, tmp_path / f"v{version}", version)
    placed(bundle_path, tmp_path / "letters", "1", "letters")
    (tmp_path / ".hidden").mkdir()
    entries = Shelves((), tmp_path).entries()
    assert len(entries) == 5
    assert {name: entry.version for name, entry in highest(entries).items()} == {MODEL: "10", "letters": "1"}
    assert highest(entry for entry in entries if entry.version in ("1.9", "1.10"))[MODEL].version == "1.10"


def test_of_two_bundles_of_one_version_the_second_is_a_fault(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "a")
    placed(bundle_path, tmp_path / "b")
    first, second = Shelves((), tmp_path).entries()
    assert (first.fault, second.fault) == ("", "a holds the same version of the same model")


async def _index_and_versions(bundle: Path, shelf: Path) -> None:
    placed(bundle, shelf / "one", "1")
    async with serving(shelf) as service:
        assert await index(service) == [(MODEL, "1", "READY")]
        placed(bundle, shelf / "two", "2")
        (shelf / "broken").mkdir()
        entries = await service.repository.index()
        assert [(e.name, e.state) for e in entries] == [
            ("broken", "UNAVAILABLE"), (MODEL, "READY"), (MODEL, "UNAVAILABLE"),
        ]  # fmt: skip
        assert "cannot be read" in entries[0].reason
        assert str(shelf) not in entries[0].reason
        await service.repository.load(MODEL)
        assert (await answer(service)).version == "2"
        await service.repository.load(MODEL, "1")
        assert (await answer(service)).version == "1"
        await service.repository.load(MODEL, "1")
        with pytest.raises(NotFound, match="version '3'"):
            await service.repository.load(MODEL, "3")
        with pytest.raises(NotFound, match="none of the configured directories"):
            await service.repository.load("../one")
        await service.repository.unload(MODEL)
        assert service.models() == ()
        await service.repository.unload(MODEL)
        with pytest.raises(NotFound):
            await answer(service)
        await service.repository.load(MODEL)
        figures = service.snapshot()
        assert (dict(figures.loads), dict(figures.unloads)) == ({"loaded": 3, "unchanged": 1}, {"unloaded": 1})


def test_versions_come_and_go(bundle_path: Path, tmp_path: Path) -> None:
    asyncio.run(_index_and_versions(bundle_path, tmp_path))


async def _carried(bundle: Path, shelf: Path, other: Any, whole: bool) -> None:
    placed(bundle, shelf / "one", "1")
    async with serving(shelf) as service:
        await taught(service, "learnt")
        await opened(service, "fresh", "tent", MODEL)
        before, view = learnt(service, "learnt", MODEL), await service.get_session(MODEL, "learnt")
        budgets = session_of(service, "learnt", MODEL).cohort.bank.gather([session_of(service, "learnt", MODEL).row])
        path = other(bundle, shelf / "two", "2")
        watch = service.watch(MODEL, None)
        await service.repository.load(MODEL)
        assert {(await anext(watch)).kind for _ in range(2)} == {EventKind.MOVED}
        after, now = learnt(service, "learnt", MODEL), await service.get_session(MODEL, "learnt")
        kept = set(after) if whole else {THETA, STATS, "optimiser.first", "optimiser.second", "optimiser.count"}
        for name in after:
            assert np.array_equal(after[name], before[name]) or name not in kept, name
        assert before["optimiser.count"] == 3
        assert after["steps"] == (3 if whole else 0)
        row = session_of(service, "learnt", MODEL)
        for name, value in row.cohort.bank.gather([row.row]).items():
            assert not name.startswith(PREFIX) or np.array_equal(value, budgets[name])
        assert (now.version, now.state, now.updates, now.buffered) == (view.version + 1, "adapted", 3, 3)
        engine = OnnxEngine(read_bundle(path), OnnxOptions())
        reply = await answer(service, "learnt")
        expected = engine.predict(picture(7, 4), engine.fold(before[THETA], before[STATS]))
        np.testing.assert_array_equal(reply.outputs["logits"], expected)
        assert (reply.version, reply.parameters["acclimate_version"]) == ("2", now.version)
        np.testing.assert_array_equal((await answer(service, "fresh")).outputs["logits"], engine.frozen(picture(7, 4)))
        result = await service.feedback(MODEL, "learnt", [Feedback("waiting", 1)])
        assert result.accepted == 1
        await service.infer(request(picture(91, ROWS - 3, "contrast"), "learnt", model=MODEL))
        assert (await service.get_session(MODEL, "learnt")).updates == 4
        assert service.snapshot().models[0].moves == {"carried": 2}
        engine.close()


@pytest.mark.parametrize(("other", "whole"), [(retrained, False), (placed, True)])
def test_sessions_of_an_equal_layout_go_on_with_what_they_have_learnt(
    bundle_path: Path, tmp_path: Path, other: Any, whole: bool
) -> None:
    asyncio.run(_carried(bundle_path, tmp_path, other, whole))


async def _unfit(bundle: Path, shelf: Path, make: Any, why: str, moves: dict[str, int]) -> None:
    placed(bundle, shelf / "one", "1")
    async with serving(shelf) as service:
        await taught(service, "a")
        await taught(service, "b")
        await opened(service, "fresh", "tent", MODEL)
        before, old = learnt(service, "a", MODEL), await answer(service, "a")
        make(bundle, shelf / "two", "2")
        with pytest.raises(FailedPrecondition, match=f"2 of 3 sessions.*{why}") as refused:
            await service.repository.load(MODEL)
        assert refused.value.reason == "SESSIONS_UNFIT"
        assert refused.value.metadata["sessions"] == "2"
        np.testing.assert_array_equal((await answer(service, "a")).outputs["logits"], old.outputs["logits"])
        assert all(np.array_equal(value, before[name]) for name, value in learnt(service, "a", MODEL).items())
        await service.repository.load(MODEL, unfit=Unfit.RESET)
        view = await service.get_session(MODEL, "a")
        assert (view.state, view.buffered, view.updates, view.recipe_parameters["batch_rows"]) == (
            "pristine", 0, 3, ROWS,
        )  # fmt: skip
        np.testing.assert_array_equal(
            (await answer(service, "a")).outputs["logits"], (await answer(service)).outputs["logits"]
        )
        assert (await service.feedback(MODEL, "a", [Feedback("waiting", 1)])).accepted == 0
        await service.infer(request(picture(92, ROWS, "contrast"), "a", model=MODEL))
        assert (await service.get_session(MODEL, "a")).updates == 4
        with pytest.raises(FailedPrecondition, match="1 of 3 sessions"):
            await service.repository.load(MODEL, "1")
        await service.repository.load(MODEL, "1", Unfit.DROP)
        sessions = await service.list_sessions(MODEL, 0, "")
        assert [view.session_id for view in sessions.sessions] == ["b", "fresh"]
        assert service.snapshot().models[0].moves == moves


@pytest.mark.parametrize(
    ("make", "why", "moves"),
    [
        (relaid, "parameters_digest", {"reset": 5, "dropped": 1}),
        (
            partial(retrained, factor=4.0),
            "trust_radius",
            {"carried": 3, "reset": 2, "dropped": 1},
        ),
    ],
    ids=["layout", "distance"],
)
def test_sessions_that_do_not_fit_are_refused_reset_or_dropped(
    bundle_path: Path, tmp_path: Path, make: Any, why: str, moves: dict[str, int]
) -> None:
    asyncio.run(_unfit(bundle_path, tmp_path, make, why, moves))


async def _open_sessions(bundle: Path) -> None:
    async with serving(None, bundle) as service:
        await opened(service, "one", "tent", MODEL)
        with pytest.raises(FailedPrecondition, match="1 sessions") as refused:
            await service.repository.unload(MODEL)
        assert refused.value.reason == "SESSIONS_OPEN"
        await answer(service, "one")
        await service.repository.unload(MODEL, Unfit.DROP)
        with pytest.raises(NotFound):
            await answer(service, "one")
        await service.repository.load(MODEL)
        with pytest.raises(NotFound, match="session"):
            await answer(service, "one")


def test_a_model_with_sessions_is_not_unloaded_unless_they_may_go(bundle_path: Path) -> None:
    asyncio.run(_open_sessions(bundle_path))


async def _under_load(bundle: Path, shelf: Path) -> None:
    """Requests of many sessions and of none, while the model is replaced back and forth: none is refused."""
    placed(bundle, shelf / "one", "1")
    retrained(bundle, shelf / "two", "2")
    async with serving(shelf, mode="background") as service:
        versions: set[str] = set()
        stop = False

        async def stream(session: str | None) -> None:
            turn = 0
            while not stop:
                reply = await service.infer(request(picture(turn % 50, 4, "contrast"), session, model=MODEL))
                versions.add(reply.version)
                turn += 1

        for number in range(4):
            await opened(service, f"s{number}", "tent", MODEL, batch_rows=ROWS)
        tasks = [asyncio.create_task(stream(f"s{number}")) for number in range(4)]
        tasks += [asyncio.create_task(stream(None)) for _ in range(2)]
        for turn in range(6):
            await service.repository.load(MODEL, "12"[turn % 2])
        stop = True
        await asyncio.gather(*tasks)
        assert versions == {"1", "2"}
        figures = service.snapshot().models[0]
        assert set(figures.requests) == {"OK"}
        assert figures.steps.get("rolled_back", 0) == 0


def test_no_request_is_refused_because_its_model_is_replaced(bundle_path: Path, tmp_path: Path) -> None:
    asyncio.run(_under_load(bundle_path, tmp_path))


async def _gone(bundle: Path, shelf: Path) -> None:
    placed(bundle, shelf / "one", "1")
    async with serving(shelf) as service:
        await taught(service, "learnt")
        engine = weakref.ref(service._parts.engines[MODEL])
        gc.collect()
        gc.disable()
        try:
            retrained(bundle, shelf / "two", "2")
            await service.repository.load(MODEL)
            await answer(service, "learnt")
            await until_async(lambda: engine() is None, "the old engine to be gone")
        finally:
            gc.enable()


def test_a_replaced_model_is_gone_without_a_collector(bundle_path: Path, tmp_path: Path) -> None:
    asyncio.run(_gone(bundle_path, tmp_path))


async def _drained(bundle: Path) -> None:
    async with serving(None, bundle) as service:
        await service.drain(5.0)
        for change in (service.repository.load(MODEL), service.repository.unload(MODEL)):
            with pytest.raises((Unavailable, AcclimateError)) as refused:
                await change
            assert refused.value.reason == "DRAINING"


def test_a_draining_daemon_changes_no_models(bundle_path: Path) -> None:
    asyncio.run(_drained(bundle_path))
