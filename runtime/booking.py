"""What a batch of answers means for the books and for learning."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.runtime.parts import Parts
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.terms import GATHERED, QUEUED


def book(parts: Parts, batch: Sequence[tuple[Ticket, Answer]]) -> None:
    """Account for a batch of one model, remember its answers, gather its samples, wake the learner."""
    counted = [(ticket, answer) for ticket, answer in batch if not _late(ticket)]
    if counted:
        model = counted[0][0].engine.manifest.name
        parts.account.answered(model, [(ticket.session, answer) for ticket, answer in counted])
    for ticket, answer in counted:
        session = ticket.session
        if session is None:
            continue
        again = session.knows(ticket.request_id, ticket.terms)
        if session.open:
            session.answers.remember(ticket.request_id, answer.scores.label)
        parts.shadow.offer(ticket, answer)
        if ticket.learn and not again:
            _gather(parts, ticket, session, answer)


def _late(ticket: Ticket) -> bool:
    """Whether the answer that counts is one that learning gives."""
    return ticket.session is not None and ticket.learn and ticket.session.cohort.recipe.answers_late


def _gather(parts: Parts, ticket: Ticket, session: Session, answer: Answer) -> None:
    """Let a session that learns keep the samples of an answered request, and step when its turn comes."""
    recipe = session.cohort.recipe
    if not recipe.learns or not session.open or session.paused or session.cohort.engine is not ticket.engine:
        return
    answers = None if recipe.pace is None else answer.logits
    dropped = session.buffer.extend(ticket.inputs, ticket.request_id, answers, ticket.terms.allowance)
    parts.account.gathered(session, dropped)
    ticket.terms.fate = QUEUED if len(session.buffer) >= recipe.batch_rows else GATHERED
    if not parts.synchronous:
        parts.learner.notify(session)
