"""A batch on its way through the engine: what it is made of, what is computed, and whose answer is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.accuracy import Scores, score
from acclimate.adapters.layout import Float
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.scheduler.compute import compute_answers
from acclimate.runtime.scheduler.tickets import Answer, Ticket


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of one lane, and what answers them at the moment that they were put together, `began`.

    `versions` are those of the requests' sessions, `folded` and `floats` what `compute_answers` takes.
    """

    tickets: list[Ticket]
    versions: list[int]
    folded: Folded | None
    floats: tuple[Float, Float] | None
    began: float


@dataclass(frozen=True, slots=True)
class Computed:
    """What the engine made of a batch: logits `[B, C]`, features, scores, and when it began and ended."""

    logits: Float
    features: Float
    scores: Scores
    started: float
    ended: float


def put_together(tickets: list[Ticket], now: float) -> Batch:
    """A batch of requests that share a lane."""
    first = tickets[0]
    return Batch(
        tickets,
        [0 if ticket.session is None else ticket.session.version for ticket in tickets],
        first.folded,
        None if first.session is None else first.session.floats,
        now,
    )


def compute(batch: Batch, clock: Clock) -> Computed:
    """Answer a batch; touches nothing but its inputs and the engine, so that any thread can."""
    parts = [ticket.inputs for ticket in batch.tickets]
    inputs = parts[0] if len(parts) == 1 else np.concatenate(parts)
    started = clock.monotonic()
    logits, features = compute_answers(batch.tickets[0].engine, inputs, batch.folded, batch.floats)
    ended = clock.monotonic()
    return Computed(logits, features, score(logits), started, ended)


def answers_of(batch: Batch, computed: Computed, now: float) -> list[Answer]:
    """Each request's own rows, as its recipe's output stage leaves them."""
    answers: list[Answer] = []
    took, gathered, scored = computed.ended - computed.started, computed.started - batch.began, now - computed.ended
    rows, start = len(computed.logits), 0
    for ticket, version in zip(batch.tickets, batch.versions, strict=True):
        own = slice(start, start + ticket.rows)
        start = own.stop
        served = part = computed.logits[own]
        session = ticket.session
        if session is not None and session.cohort.engine is ticket.engine:
            served = session.corrected(part, computed.features[own])
        answers.append(
            Answer(
                engine=ticket.engine,
                logits=served,
                scores=computed.scores.of(own) if served is part else score(served),
                version=version,
                queued=batch.began - ticket.arrived,
                computed=took,
                batch_rows=rows,
                gathered=gathered,
                scored=scored,
                leads=not answers,
            )
        )
    return answers


def reply(batch: Batch, answers: Sequence[Answer]) -> None:
    """Tell the clients that still wait; a batch that failed has no answers, and its clients know already."""
    for ticket, answer in zip(batch.tickets, answers, strict=False):
        if not ticket.answer.done():
            ticket.answer.set_result(answer)


def tell(batch: Batch, error: BaseException | None) -> None:
    """Tell the clients that it failed: that costs this batch, and the next one is served."""
    for ticket in batch.tickets:
        if not ticket.answer.done():
            ticket.answer.set_exception(error or RuntimeError("the batch was lost"))
