"""True labels against remembered answers."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.adapters.accuracy import settle as prequential
from acclimate.runtime.account import Account
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.types import EventKind, Feedback, FeedbackResult


def settle(session: Session, labels: Sequence[Feedback], classes: int, account: Account) -> FeedbackResult:
    """Count labels, in the session's book and the model's; one that is not acceptable refuses them all.

    A label is learnt from if the session's recipe reads labels and its sample is still held.

    Raises:
        InvalidArgument: a label outside `0..classes - 1`, or two for the same answer. Nothing is counted then.
    """
    if len({(given.request_id, given.row) for given in labels}) < len(labels):
        raise InvalidArgument("LABEL_REPEATED", "two labels name the same request and row; send one of them")
    answers = []
    for given in labels:
        if not 0 <= given.label < classes:
            raise InvalidArgument(
                "LABEL_OUT_OF_RANGE",
                f"label is {given.label}; model {session.model!r} has classes 0 to {classes - 1}",
                label=given.label,
            )
        answers.append(session.answers.answer(given.request_id, given.row))
    known = [(given, answer) for given, answer in zip(labels, answers, strict=True) if answer is not None]
    correct = sum(given.label == answer for given, answer in known)
    for book in (session.account, account.tallies[session.model]):
        book.labelled += len(known)
        book.labelled_correct += correct
    tally = account.tallies[session.model]
    tally.prequential = prequential(tally.prequential, len(known), correct)
    for given, answer in known:
        account.compared[session.model].labelled(session.key, given.request_id, given.row, given.label, answer)
        session.answers.settle(given.request_id, given.row)
        session.buffer.label(given.request_id, given.row, given.label)
    account.happened(session, EventKind.FEEDBACK, session.version, len(known))
    unknown = dict.fromkeys(g.request_id for g, answer in zip(labels, answers, strict=True) if answer is None)
    return FeedbackResult(len(known), correct, tuple(unknown))
