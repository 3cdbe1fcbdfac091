"""A session as bytes and back: the same bit for bit, and the same from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.fields import THETA
from acclimate.adapters.recipes import RECIPES
from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.errors import FailedPrecondition, NotFound
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.recording import Moment, fold_of, record_of
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.store.base import SessionRecord
from acclimate.runtime.store.codec import decode, encode
from tests.looped import looped
from tests.runtime.digits import picture
from tests.runtime.serving import (
    MODEL,
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

# What a record leaves out: they are users' inputs.
NOT_KEPT = {"buffer", "answers"}
SMALL: dict[str, dict[str, float]] = {name: {"batch_rows": 8} for name in RECIPES if name not in ("source", "memo")}


def now_of(service: Service, session: Session, clock: str = "samples") -> Moment:
    return Moment(1000.0, service._parts.learner.budget_time(session), clock)


def through_bytes(service: Service, session_id: str, model: str = MODEL) -> SessionRecord:
    session = session_of(service, session_id, model)
    return decode(encode(record_of(session, now_of(service, session))))


def revive(service: Service, record: SessionRecord, clock: str = "samples") -> Session:
    engine = service._parts.engines[record.model]
    budget = record.account["samples"] * 0.1
    return service._parts.table.revive(record, fold_of(record, engine), Moment(1000.0, budget, clock))


async def moved(service: Service, record: SessionRecord) -> None:
    """Put a record in place of the live session of its name."""
    service._parts.table.close(session_of(service, record.session_id, record.model))
    revive(service, record)


@pytest.mark.parametrize("recipe", RECIPES)
@looped
async def test_a_session_of_every_recipe_returns_bit_for_bit_and_goes_on_as_if_nothing_had_been(recipe: str) -> None:
    async with serving(clock=ManualClock()) as one, serving(clock=ManualClock()) as other:
        for service in (one, other):
            await opened(service, "cam", recipe, **SMALL.get(recipe, {}))
            for seed in range(12):
                await predict(service, drifted(seed, 8), "cam", request_id=str(seed))
        assert differences(whole(one, "cam"), whole(other, "cam")) == []
        before = whole(other, "cam")
        await moved(other, through_bytes(other, "cam"))
        assert set(differences(before, whole(other, "cam"))) <= NOT_KEPT
        for service in (one, other):
            session_of(service, "cam").buffer.clear()
        for seed in range(12, 20):
            replies = [await predict(s, drifted(seed, 8), "cam", request_id=str(seed)) for s in (one, other)]
            assert reply_bits(replies[0]) == reply_bits(replies[1])
        assert set(differences(whole(one, "cam"), whole(other, "cam"))) <= NOT_KEPT


@looped
async def test_a_session_of_a_real_bundle_answers_as_it_did(digits_engine: OnnxEngine) -> None:
    async with serving(engine=digits_engine) as service:
        await opened(service, "cam", "eata", "digits", batch_rows=8)
        for seed in range(6):
            await service.infer(request(picture(seed, 8), "cam", model="digits"))
        ask = request(picture(99, 4), "cam", "same", model="digits", acclimate_adapt=False)
        before = await service.infer(ask)
        assert session_of(service, "cam", "digits").version > 0
        await moved(service, through_bytes(service, "cam", "digits"))
        assert reply_bits(await service.infer(ask)) == reply_bits(before)


async def learnt_record(service: Service, recipe: str = "tent") -> SessionRecord:
    await opened(service, "cam", recipe, batch_rows=8)
    for seed in range(4):
        await predict(service, drifted(seed, 8), "cam")
    return through_bytes(service, "cam")


@looped
async def test_a_record_is_a_copy_that_later_steps_leave_alone() -> None:
    async with serving() as service:
        record = await learnt_record(service)
        session = session_of(service, "cam")
        held = record_of(session, now_of(service, session))
        for seed in range(4, 12):
            await predict(service, drifted(seed, 8), "cam")
        assert encode(held) == encode(replace(record, recorded_at=held.recorded_at))


@looped
async def test_a_budget_refills_while_its_session_is_away_and_a_clock_that_jumps_back_takes_nothing() -> None:
    clock = ManualClock(500.0)
    async with serving(clock=clock) as service:
        await opened(service, "cam", "tent", budget=None)
        session = session_of(service, "cam")
        state = session.cohort.bank.gather([session.row])
        state["budget.tokens_ms"][:], state["budget.refill_ms_per_s"][:] = 10.0, 2.0
        session.cohort.bank.scatter([session.row], state)
        record = record_of(session, Moment(wall=100.0, budget=500.0, clock="one"))
        for wall, expected in ((107.0, 24.0), (40.0, 10.0)):
            service._parts.table.close(session_of(service, "cam"))
            session = service._parts.table.revive(record, None, Moment(wall, budget=3.0, clock="other"))
            assert session.view(3.0).budget_available_ms == pytest.approx(expected)


@looped
async def test_another_bundle_is_refused_by_the_names_of_both() -> None:
    async with serving() as service:
        record = await learnt_record(service)
        service._parts.table.close(session_of(service, "cam"))
        served = service.models()[0].digest
        with pytest.raises(FailedPrecondition, match=f"bundle {'f' * 16} .*served is {served[:16]}"):
            revive(service, replace(record, bundle="f" * 64))
        with pytest.raises(NotFound, match="not served"):
            service._parts.table.revive(replace(record, model="other"), None, Moment(0.0, 0.0, "samples"))
        assert len(service._parts.table) == 0


def spoilt(record: SessionRecord, **changed: Any) -> SessionRecord:
    fields = {name: value for name, value in record.fields.items() if changed.get(name, 0) is not None}
    return replace(record, fields=fields | {name: value for name, value in changed.items() if value is not None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (THETA, None),
        (THETA, np.zeros(3, np.float32)),
        (THETA, np.zeros(16, np.float64)),
        ("steps", None),
        ("steps", np.zeros(2, np.int64)),
        ("optimiser.first", np.zeros(16, np.float16)),
    ],
)
@looped
async def test_a_record_that_does_not_fit_changes_nothing(name: str, value: np.ndarray | None) -> None:
    async with serving() as service:
        whole_record = await learnt_record(service)
        assert name in whole_record.fields
        session, before = session_of(service, "cam"), whole(service, "cam")
        live = session.cohort.bank.live
        with pytest.raises(FailedPrecondition, match=name) as refused:
            revive(service, replace(spoilt(whole_record, **{name: value}), session_id="other"))
        assert refused.value.reason == "SESSION_STATE_MISFIT"
        assert differences(before, whole(service, "cam")) == []
        assert session.cohort.bank.live == live, "the row that was taken for it is given back"
        assert [one.id for one in service._parts.table] == ["cam"]


@looped
async def test_a_detector_that_was_added_since_begins_afresh_and_one_that_is_gone_is_left_out() -> None:
    async with serving() as service:
        record = await learnt_record(service)
        added = next(name for name in record.fields if name.startswith("drift."))
        changed = spoilt(record, **{added: None, "gone": np.ones(2)})
        service._parts.table.close(session_of(service, "cam"))
        session = revive(service, changed)
        state = session.cohort.bank.gather([session.row])
        np.testing.assert_array_equal(state[THETA][0], record.fields[THETA])
        assert "gone" not in state


def test_docs_name_the_parts_of_a_record() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "persistence.md").read_text(encoding="utf-8")
    for name in SessionRecord.__dataclass_fields__:
        assert name == "fields" or f"`{name}`" in page, name
