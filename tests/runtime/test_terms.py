"""What requests ask of learning, and what replies say came of it: outcome, allowance, versions waited for, priority."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from acclimate.runtime.errors import AcclimateError, DeadlineExceeded, FailedPrecondition, Unavailable
from acclimate.runtime.scheduler.decide import PATIENCE_SECONDS, place
from acclimate.runtime.scheduler.tickets import Ticket
from acclimate.runtime.service import Service
from acclimate.runtime.types import InferReply
from tests.polling import until_async
from tests.runtime.serving import config, drifted, opened, predict, request, serving, session_of

ROWS = 8
BACKGROUND = config("background")


def said(reply: InferReply) -> tuple[Any, ...]:
    return tuple(
        reply.parameters.get(f"acclimate_{name}") for name in ("outcome", "version", "session_version", "cost_ms")
    )


async def _synchronous() -> None:
    async with serving() as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        stateless = await predict(service, drifted(0))
        assert stateless.parameters["acclimate_outcome"] == "off"
        assert "acclimate_session_version" not in stateless.parameters
        assert said(await predict(service, drifted(0, 3), "s")) == ("gathered", 0, 0, 0.0)
        assert said(await predict(service, drifted(1, 3), "s", acclimate_adapt=False)) == ("off", 0, 0, 0.0)
        outcome, version, now, cost = said(await predict(service, drifted(2, 5), "s"))
        assert (outcome, version, now) == ("applied", 0, 1)
        assert cost == pytest.approx((await service.get_session("reference", "s")).adaptation_ms)
        reply = await predict(service, drifted(3, 1), "s")
        assert said(reply) == ("gathered", 1, 1, 0.0)
        view = await service.get_session("reference", "s")
        assert reply.parameters["acclimate_estimated_accuracy"] == view.estimated_accuracy
        assert reply.parameters["acclimate_estimated_accuracy_doc"] == view.estimated_accuracy_doc
        await opened(service, "still", "source")
        assert said(await predict(service, drifted(4, ROWS), "still"))[0] == "off"


def test_in_synchronous_mode_a_reply_says_what_the_step_came_to() -> None:
    asyncio.run(_synchronous())


async def _refused_by_guards() -> None:
    adaptation = {"trust_radius": 0.0, "max_consecutive_rollbacks": 2}
    async with serving(config(adaptation=adaptation)) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        outcomes = [said(await predict(service, drifted(turn, ROWS), "s"))[0] for turn in range(2)]
        assert outcomes == ["rolled_back:trust_region", "restored:strikes"]


def test_a_reply_names_the_guard_that_refused_the_step() -> None:
    asyncio.run(_refused_by_guards())


async def _background() -> None:
    async with serving(BACKGROUND) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        assert said(await predict(service, drifted(0, ROWS - 1), "s"))[0] == "gathered"
        assert said(await predict(service, drifted(1, 1), "s"))[0] == "queued"


def test_in_the_background_a_reply_says_whether_a_step_is_due() -> None:
    asyncio.run(_background())


async def _late() -> None:
    async with serving(BACKGROUND) as service:
        await opened(service, "late", "memo")
        outcome, *_, cost = said(await predict(service, drifted(0, 1), "late"))
        assert outcome == "applied"
        assert cost > 0
        assert said(await predict(service, drifted(1, 1), "late", acclimate_budget_ms=0))[0] == "off"


def test_a_recipe_that_answers_late_says_what_it_came_to_in_the_background_too() -> None:
    asyncio.run(_late())


async def _allowance() -> None:
    async with serving() as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        assert said(await predict(service, drifted(0, ROWS), "s", acclimate_budget_ms=0)) == ("off", 0, 0, 0.0)
        assert len(session_of(service, "s").buffer) == 0
        cost = session_of(service, "s").cohort.engine.manifest.cost
        # The estimate of a step over 8 rows, as scheduler/costs.py makes it of the bundle's calibration.
        estimate = ROWS * (cost.vjp_ms * cost.forward_flops / cost.vjp_flops + cost.vjp_ms + 2 * cost.forward_ms)
        assert 0 < estimate < 1
        assert said(await predict(service, drifted(1, ROWS), "s", acclimate_budget_ms=1))[0] == "applied"
        await predict(service, drifted(2, ROWS - 1), "s", acclimate_adapt=True)
        # Samples whose requests say nothing bring no bound of their own.
        assert said(await predict(service, drifted(3, 1), "s", acclimate_budget_ms=1))[0] == "applied"


def test_a_request_bounds_what_steps_over_its_samples_may_cost() -> None:
    asyncio.run(_allowance())


async def _too_dear() -> None:
    async with serving() as service:
        await opened(service, "s", "tent", batch_rows=64)
        cost = session_of(service, "s").cohort.engine.manifest.cost
        estimate = 64 * (cost.vjp_ms * cost.forward_flops / cost.vjp_flops + cost.vjp_ms + 2 * cost.forward_ms)
        assert estimate > 1
        outcome, *_, paid = said(await predict(service, drifted(0, 64), "s", acclimate_budget_ms=1))
        assert (outcome, paid) == ("skipped:budget", 0.0)
        assert (await service.get_session("reference", "s")).skipped == {"budget": 1}
        assert said(await predict(service, drifted(1, 64), "s", acclimate_budget_ms=1000))[0] == "applied"


def test_a_step_that_is_too_dear_for_its_samples_is_not_taken() -> None:
    asyncio.run(_too_dear())


async def _read_your_writes(service: Service) -> None:
    await opened(service, "s", "tent", batch_rows=ROWS)
    assert said(await predict(service, drifted(0, ROWS), "s"))[0] == "queued"
    # The step is due or under way; the reader waits for it, and for no more than it.
    reply = await predict(service, drifted(1, 1), "s", acclimate_min_version=1, acclimate_adapt=False)
    assert reply.parameters["acclimate_version"] == 1
    reply = await predict(service, drifted(1, 1), "s", acclimate_min_version=1, acclimate_adapt=False)
    assert reply.parameters["acclimate_version"] == 1
    with pytest.raises(FailedPrecondition, match="at version 1, not yet at 2") as refused:
        await predict(service, drifted(2, 1), "s", acclimate_min_version=2)
    assert refused.value.reason == "VERSION_NOT_REACHED"
    assert len(session_of(service, "s").buffer) == 0


def test_a_reader_waits_for_the_version_that_a_step_will_make() -> None:
    async def run() -> None:
        async with serving(BACKGROUND) as service:
            await _read_your_writes(service)

    asyncio.run(run())


async def _held(service: Service) -> asyncio.Task[InferReply]:
    """A reader that waits for a step that does not come, for the learner has been told nothing."""
    await opened(service, "s", "tent", batch_rows=ROWS)
    session = session_of(service, "s")
    session.buffer.extend(drifted(0, ROWS))
    reader = asyncio.create_task(predict(service, drifted(1, 1), "s", acclimate_min_version=1))
    await until_async(lambda: service._readers._waiting == 1, "the reader to wait")
    return reader


async def _ends_of_a_wait() -> None:
    async with serving(BACKGROUND) as service:
        late = request(drifted(1, 1), "s", deadline=0.0, acclimate_min_version=1)
        reader = await _held(service)
        with pytest.raises(DeadlineExceeded):
            await service.infer(late)
        await service.delete_session("reference", "s")
        with pytest.raises(AcclimateError):
            await reader
        reader = await _held(service)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert service._readers._waiting == 0
        await service.delete_session("reference", "s")
        reader = await _held(service)
    with pytest.raises(Unavailable):
        await reader


def test_a_wait_ends_with_the_session_the_client_and_the_daemon() -> None:
    asyncio.run(_ends_of_a_wait())


async def _deadline() -> None:
    async with serving(BACKGROUND) as service:
        await _held(service)
        deadline = service._parts.clock.monotonic() + 0.05
        with pytest.raises(DeadlineExceeded, match="acclimate_min_version"):
            await service.infer(request(drifted(1, 1), "s", deadline=deadline, acclimate_min_version=1))


def test_a_wait_ends_at_the_deadline() -> None:
    asyncio.run(_deadline())


async def _crowd() -> None:
    async with serving(config("background", scheduler={"max_queue": 1})) as service:
        await _held(service)
        with pytest.raises(AcclimateError, match="wait for steps") as refused:
            await predict(service, drifted(1, 1), "s", acclimate_min_version=1)
        assert refused.value.reason == "QUEUE_FULL"
        assert refused.value.retry_after_seconds


def test_no_more_requests_wait_than_the_queue_may_hold() -> None:
    asyncio.run(_crowd())


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"acclimate_budget_ms": -1}, "PARAMETER_TYPE"),
        ({"acclimate_budget_ms": 1.5}, "PARAMETER_TYPE"),
        ({"acclimate_budget_ms": True}, "PARAMETER_TYPE"),
        ({"acclimate_min_version": "1"}, "PARAMETER_TYPE"),
        ({"acclimate_min_version": -1}, "PARAMETER_TYPE"),
        ({"priority": "high"}, "PARAMETER_TYPE"),
        ({"acclimate_min_version": 1, "sequence_start": True}, "MIN_VERSION_WITHOUT_SESSION"),
        ({"acclimate_budget": 1}, "PARAMETER_UNKNOWN"),
    ],
)
def test_what_a_request_may_not_ask(parameters: dict[str, Any], reason: str) -> None:
    async def run() -> None:
        async with serving() as service:
            await opened(service, "s", "tent")
            with pytest.raises(AcclimateError) as refused:
                await predict(service, drifted(0), "s", **parameters)
            assert refused.value.reason == reason
            assert session_of(service, "s").account.requests == 0

    asyncio.run(run())


def test_a_version_without_a_session_is_refused() -> None:
    async def run() -> None:
        async with serving() as service:
            with pytest.raises(AcclimateError) as refused:
                await predict(service, drifted(0), acclimate_min_version=1)
            assert refused.value.reason == "MIN_VERSION_WITHOUT_SESSION"

    asyncio.run(run())


def ticket(arrived: float, priority: int, session: Any = None) -> Ticket:
    return Ticket(None, session, None, arrived, None, False, "", None, priority=priority)


def test_higher_priorities_go_first_but_for_their_own_session_and_those_that_have_waited() -> None:
    own, other = object(), object()
    queue = [ticket(1.0, 3, own), ticket(1.1, 2), ticket(1.2, 3), ticket(1.3, 3, other)]
    assert place(queue, ticket(1.4, 2)) == 2
    assert place(queue, ticket(1.4, 3)) == 4
    assert place(queue, ticket(1.4, 1)) == 0
    assert place(queue, ticket(1.4, 1, own)) == 1
    assert place(queue, ticket(1.4, 1, other)) == 4
    assert place(queue, ticket(1.1 + PATIENCE_SECONDS, 1)) == 2
    assert place([], ticket(0.0, 2)) == 0


async def _priorities() -> None:
    async with serving(config("background", scheduler={"max_batch": 1})) as service:
        order: list[str] = []

        async def ask(name: str, priority: int) -> None:
            await predict(service, drifted(0, 1), request_id=name, priority=priority)
            order.append(name)

        # The first is taken at once; the others meet in the queue.
        await asyncio.gather(*(ask(str(i), p) for i, p in enumerate((2, 3, 3, 0, 7, 1))))
        assert order[1:] == ["5", "3", "4", "1", "2"] or order == ["5", "0", "3", "4", "1", "2"]


def test_priority_is_honoured_in_the_queue() -> None:
    asyncio.run(_priorities())
