"""Rings of points, and which sessions get one."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.runtime.config_web import Web
from acclimate.runtime.web.history import SESSION_FIELDS, History
from acclimate.runtime.web.rings import Rings
from tests.looped import looped
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of

OURS = ""


def test_a_ring_forgets_the_oldest_and_knows_the_order() -> None:
    rings: Rings[str] = Rings(("a", "b"), length=3, limit=2)
    rings.claim("x")
    for moment in range(1, 6):
        rings.tick(float(moment))
        rings.write("x", {"a": float(moment), "b": None})
    assert rings.moments() == [3.0, 4.0, 5.0]
    assert rings.series("x") == {"a": [3.0, 4.0, 5.0], "b": [None, None, None]}
    assert rings.moments(after=4.0) == [5.0]
    assert rings.series("x", after=4.0)["a"] == [5.0]
    assert rings.series("y") == {}


def test_a_place_that_is_given_on_begins_empty() -> None:
    rings: Rings[int] = Rings(("a",), length=4, limit=1)
    rings.claim(1)
    rings.tick(1.0)
    rings.write(1, {"a": 7.0})
    with pytest.raises(ValueError, match="as many as may be"):
        rings.claim(2)
    rings.release(1)
    rings.claim(2)
    assert rings.series(2) == {"a": [None]}


def test_rings_grow_no_further_than_they_may() -> None:
    rings: Rings[int] = Rings(SESSION_FIELDS, length=900, limit=100)
    assert rings.nbytes == 900 * 8
    for key in range(100):
        rings.claim(key)
    # What docs/web.md says: 48 bytes a point.
    assert rings.nbytes == 100 * 900 * 48 + 900 * 8


def test_an_outline_is_spread_over_all_that_is_kept() -> None:
    rings: Rings[str] = Rings(("a",), length=100, limit=1)
    rings.claim("x")
    for moment in range(1, 41):
        rings.tick(float(moment))
        rings.write("x", {"a": float(moment)})
    outline = rings.outline("x", 5)["a"]
    assert len(outline) == 5
    assert (outline[0], outline[-1]) == (1.0, 40.0)
    assert rings.outline("x", 100)["a"] == [float(moment) for moment in range(1, 41)]


def key(session_id: str) -> tuple[str, str, str]:
    return OURS, MODEL, session_id


@looped
async def test_points_count_what_happened_between_two() -> None:
    async with serving() as service:
        await opened(service, "one", "tent", batch_rows=2)
        history = History(Web(), service.sight, service.snapshot)
        history.sample()
        for seed in range(3):
            await predict(service, drifted(seed, rows=2), "one")
        history.sample()
        history.sample()
        _, series = history.session_points(key("one"), 0.0)
        updates = service.snapshot().models[0].steps["applied"]
        assert updates > 0
        assert series["updates"] == [0.0, updates, 0.0]
        _, model = history.model_points(MODEL, 0.0)
        assert model["requests"] == [0.0, 3.0, 0.0]
        # Nothing was answered before the first point, nor between the last two.
        assert [value is None for value in model["entropy"]] == [True, False, True]
        assert history.last_entropy(MODEL) == pytest.approx(model["entropy"][1], rel=1e-5)


@looped
async def test_the_sessions_that_drift_most_have_points_and_those_looked_at() -> None:
    async with serving() as service:
        history = History(Web(history_sessions=2), service.sight, service.snapshot)
        for place, name in enumerate(("calm", "middling", "wild")):
            await opened(service, name, "tent")
            session_of(service, name).drift = (0.1 * 4**place,) * 5
        history.sample()
        assert set(history.sessions.keys) == {key("wild"), key("middling")}
        history.look_at(key("calm"))
        history.look_at(key("nobody"))
        history.sample()
        assert set(history.sessions.keys) == {key("wild"), key("calm")}
        # One that drifts little more does not push another one out.
        await opened(service, "new", "tent")
        session_of(service, "new").drift = (0.1 * 4**2 * 1.2,) * 5
        history.sample()
        assert set(history.sessions.keys) == {key("wild"), key("calm")}
        session_of(service, "new").drift = (0.1 * 4**2 * 1.3,) * 5
        history.sample()
        assert set(history.sessions.keys) == {key("new"), key("calm")}
        await service.delete_session(MODEL, "new")
        history.sample()
        assert key("new") not in history.sessions


@looped
async def test_without_places_for_sessions_models_still_have_points() -> None:
    async with serving() as service:
        history = History(Web(history_sessions=0, history_events=0), service.sight, service.snapshot)
        await opened(service, "one", "tent")
        history.look_at(key("one"))
        history.sample()
        assert len(history.sessions) == 0
        assert history.model_points(MODEL, 0.0)[1]["sessions"] == [1.0]
        assert history.recent(OURS, None, None, 10) == []


@looped
async def test_events_are_remembered_but_steps() -> None:
    async with serving(config()) as service:
        history = History(Web(history_events=3), service.sight, service.snapshot)
        await opened(service, "one", "tent", batch_rows=2)
        for seed in range(3):
            await predict(service, drifted(seed, rows=2), "one")
        assert [event.kind for event in history.recent(OURS, None, None, 10)] == ["created"]
        for name in ("two", "three", "four"):
            await opened(service, name, "tent")
        told = [event.session_id for event in history.recent(OURS, None, None, 10)]
        assert told == ["four", "three", "two"]
        assert [event.session_id for event in history.recent(OURS, MODEL, "three", 10)] == ["three"]
        assert history.recent("another", None, None, 10) == []


@looped
async def test_glances_agree_with_views() -> None:
    from dataclasses import replace

    from acclimate.runtime.ranking import glance

    async with serving() as service:
        await opened(service, "one", "tent", batch_rows=2)
        for seed in range(4):
            await predict(service, drifted(seed, rows=2, shift=3.0), "one")
        (seen,) = service.sight.glances()
        read = glance(await service.get_session(MODEL, "one"))
        assert replace(seen, last_used_at=0.0) == replace(read, last_used_at=0.0)
        assert seen.drift > 0
        assert seen.drift_signal
        assert np.isfinite(seen.entropy)
