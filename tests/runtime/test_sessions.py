"""Sessions as resources: their states, opening, listing, and what is given back when they close."""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path

import pytest

from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from acclimate.runtime.sessions import states
from acclimate.runtime.sessions.states import SessionEvent, SessionState, after
from acclimate.runtime.types import Budget, CreateSession, SessionView
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "session-states.md"


@pytest.mark.parametrize(("state", "event"), [*product(SessionState, SessionEvent)])
def test_a_closed_session_takes_no_event_and_an_open_one_takes_all(state: SessionState, event: SessionEvent) -> None:
    if state is SessionState.CLOSED:
        with pytest.raises(FailedPrecondition, match=f"closed cannot {event}"):
            after(state, event)
    else:
        follows = after(state, event)
        if event is SessionEvent.CLOSE:
            assert follows is SessionState.CLOSED
            return
        adapted = {SessionEvent.COMMIT: True, SessionEvent.RESTORE: False}.get(event, state.adapted)
        paused = {SessionEvent.PAUSE: True, SessionEvent.RESUME: False}.get(event, state.paused)
        assert (follows.adapted, follows.paused) == (adapted, paused)
        assert follows.answering is (SessionState.ADAPTED if adapted else SessionState.PRISTINE)


def test_the_page_of_states_is_current() -> None:
    message = "run: python -m acclimate.runtime.sessions.states > docs/session-states.md"
    assert PAGE.read_text(encoding="utf-8") == states.markdown(), message


def test_a_new_session_is_at_the_source_and_knows_its_settings() -> None:
    async def scenario() -> SessionView:
        async with serving() as service:
            return await opened(service, "s", "eata", budget=Budget(3.0, 50.0), batch_rows=8, lr=0.01)

    view = asyncio.run(scenario())
    assert (view.model, view.session_id, view.recipe, view.state, view.version) == (MODEL, "s", "eata", "pristine", 0)
    assert (view.recipe_parameters["batch_rows"], view.recipe_parameters["lr"]) == (8, 0.01)
    assert (view.budget, view.budget_available_ms) == (Budget(3.0, 50.0), 50.0)
    assert (view.requests, view.updates, view.theta_distance) == (0, 0, 0.0)
    assert view.state_bytes > 4 * reference_engine().source.theta.size


def test_a_session_without_an_id_gets_one_and_the_configured_recipe() -> None:
    async def scenario() -> list[SessionView]:
        async with serving(config(sessions={"default_recipe": "tent"})) as service:
            return [await service.create_session(CreateSession(MODEL)) for _ in range(2)]

    one, other = asyncio.run(scenario())
    assert one.session_id != other.session_id
    assert one.recipe == other.recipe == "tent"


REFUSED = {
    "unknown model": (CreateSession("nothing", "s"), NotFound, "MODEL_NOT_FOUND"),
    "empty id": (CreateSession(MODEL, ""), InvalidArgument, "SESSION_ID_INVALID"),
    "id with a slash": (CreateSession(MODEL, "a/b"), InvalidArgument, "SESSION_ID_INVALID"),
    "id of 129 characters": (CreateSession(MODEL, "a" * 129), InvalidArgument, "SESSION_ID_INVALID"),
    "id with a line feed": (CreateSession(MODEL, "a\n"), InvalidArgument, "SESSION_ID_INVALID"),
    "unknown recipe": (CreateSession(MODEL, "s", "entropia"), InvalidArgument, "RECIPE_INVALID"),
    "unknown parameter": (CreateSession(MODEL, "s", "tent", {"lrr": 1}), InvalidArgument, "RECIPE_INVALID"),
    "parameter out of range": (CreateSession(MODEL, "s", "tent", {"lr": 2}), InvalidArgument, "RECIPE_INVALID"),
    "parameter not a number": (
        CreateSession(MODEL, "s", "tent", {"lr": float("nan")}),
        InvalidArgument,
        "RECIPE_INVALID",
    ),
    "batch larger than the buffer": (
        CreateSession(MODEL, "s", "tent", {"batch_rows": 65}),
        InvalidArgument,
        "RECIPE_INVALID",
    ),
    "negative budget": (CreateSession(MODEL, "s", budget=Budget(-1.0, 1.0)), InvalidArgument, "BUDGET_INVALID"),
    "infinite budget": (
        CreateSession(MODEL, "s", budget=Budget(1.0, float("inf"))),
        InvalidArgument,
        "BUDGET_INVALID",
    ),
    "id that is taken": (CreateSession(MODEL, "taken", "tent"), AlreadyExists, "SESSION_EXISTS"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_session_that_cannot_be_opened_changes_nothing(case: str) -> None:
    async def scenario() -> None:
        request, error, reason = REFUSED[case]
        async with serving(config(sessions={"buffer_rows": 64})) as service:
            before = await opened(service, "taken", "eata")
            with pytest.raises(error) as refused:
                await service.create_session(request)
            assert refused.value.reason == reason
            assert (await service.list_sessions(None, 0, "")).sessions == (before,)
            assert list(service._parts.table._cohorts) == [session_of(service, "taken").cohort.key]

    asyncio.run(scenario())


def test_a_full_table_refuses_until_a_session_goes() -> None:
    async def scenario() -> None:
        async with serving(config(sessions={"max_sessions": 2})) as service:
            for name in "ab":
                await opened(service, name, "norm")
            for attempt in (
                opened(service, "c", "norm"),
                predict(service, drifted(0), "c", sequence_start=True),
            ):
                with pytest.raises(ResourceExhausted, match=r"sessions\.max_sessions"):
                    await attempt
            await service.delete_session(MODEL, "a")
            await opened(service, "c", "norm")

    asyncio.run(scenario())


def test_pages_walk_over_every_session_once_in_order_even_as_they_go() -> None:
    async def scenario() -> None:
        async with serving() as service:
            names = [f"s{i:02}" for i in range(25)]
            for name in reversed(names):
                await opened(service, name, "source")
            first = await service.list_sessions(MODEL, 10, "")
            await service.delete_session(MODEL, first.sessions[-1].session_id)
            second = await service.list_sessions(None, 10, first.next_page_token)
            third = await service.list_sessions(MODEL, 10, second.next_page_token)
            seen = [view.session_id for page in (first, second, third) for view in page.sessions]
            assert seen == names
            assert third.next_page_token == ""
            assert len((await service.list_sessions(None, 0, "")).sessions) == 24

    asyncio.run(scenario())


@pytest.mark.parametrize("token", ["!", "AAAA", "YQ", "é", "x" * 5000, "////"])
def test_a_page_token_that_is_not_ours_is_refused(token: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            with pytest.raises(InvalidArgument) as refused:
                await service.list_sessions(None, 1, token)
            assert refused.value.reason == "PAGE_TOKEN_INVALID"

    asyncio.run(scenario())


def test_a_negative_page_or_an_unknown_model_is_refused() -> None:
    async def scenario() -> None:
        async with serving() as service:
            with pytest.raises(InvalidArgument, match="page_size is -1"):
                await service.list_sessions(None, -1, "")
            with pytest.raises(NotFound):
                await service.list_sessions("nothing", 0, "")

    asyncio.run(scenario())


def test_closed_sessions_give_back_rows_samples_and_cohorts() -> None:
    """A client may choose a learning rate of its own for every session; that must not fill the memory."""

    async def scenario() -> None:
        async with serving() as service:
            for i in range(50):
                await opened(service, "s", "tent", lr=i / 1000)
                await predict(service, drifted(i), "s")
                closed = session_of(service, "s")
                await service.delete_session(MODEL, "s")
                assert len(closed.buffer) == 0
            assert len(service._parts.table._cohorts) == 0
            for i in range(40):
                await opened(service, f"s{i}", "tent")
            cohort = session_of(service, "s0").cohort
            assert cohort.bank.live == 40
            for i in range(39):
                await service.delete_session(MODEL, f"s{i}")
            assert cohort.bank.live == 1
            assert session_of(service, "s39").cohort is cohort

    asyncio.run(scenario())
