"""What becomes of an answer once it is given: the account, the session's memory of it, and what is learnt from it."""

from __future__ import annotations

from acclimate.runtime.parts import Parts
from acclimate.runtime.scheduler.predictor import Answer, Ticket
from acclimate.runtime.sessions.terms import GATHERED, QUEUED


def book(parts: Parts, ticket: Ticket, answer: Answer) -> None:
    """Account for an answer, gather its samples, wake the learner."""
    session, model = ticket.session, ticket.engine.manifest.name
    if session is not None and ticket.learn and session.cohort.recipe.answers_late:
        return
    parts.account.answered(model, session, answer)
    again = session is not None and session.knows(ticket.request_id, ticket.terms)
    if session is not None and session.open:
        session.answers.remember(ticket.request_id, answer.scores.label)
    parts.shadow.offer(ticket, answer)
    if session is None or not session.open or session.paused or session.cohort.engine is not ticket.engine:
        return
    if ticket.learn and not again and session.cohort.recipe.learns:
        answers = None if session.cohort.recipe.pace is None else answer.logits
        dropped = session.buffer.extend(ticket.inputs, ticket.request_id, answers, ticket.terms.allowance)
        parts.account.gathered(session, dropped)
        ticket.terms.fate = QUEUED if len(session.buffer) >= session.cohort.recipe.batch_rows else GATHERED
        if not parts.synchronous:
            parts.learner.notify(session)
