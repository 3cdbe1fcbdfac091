"""Changing what a client may change of a session, and only if it is the session that the client saw."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from acclimate.adapters import budget
from acclimate.runtime.errors import Aborted, InvalidArgument
from acclimate.runtime.lifecycle_types import UpdateSession
from acclimate.runtime.sessions.labels import LABEL_KEY
from acclimate.runtime.sessions.session import Session, etag
from acclimate.runtime.types import Budget

BUDGET_PATHS = ("budget", "budget.refill_ms_per_s", "budget.capacity_ms")
LABEL = "labels."
PATHS = (*BUDGET_PATHS, "ttl", "labels")
"""Fields of a session that can be changed."""


def check_etag(session: Session, given: str) -> None:
    """Raise Aborted unless `given` is the session's etag, or empty."""
    if given not in ("", etag(session)):
        raise changed(session, given)


def check_paths(paths: Collection[str]) -> None:
    """Raise InvalidArgument for a path of an update mask that names nothing that can be changed."""
    for path in paths:
        if path not in PATHS and not LABEL_KEY.fullmatch(path.removeprefix(LABEL) if path.startswith(LABEL) else ""):
            raise InvalidArgument(
                "UPDATE_MASK_INVALID",
                f"update_mask names {path[:140]!r}; what can be changed is {[*PATHS, LABEL + 'KEY']}",
                field="update_mask",
                path=path[:140],
            )


def budget_of(session: Session) -> Budget:
    """What the session may spend."""
    rate, capacity = (float(session.cohort.bank.view(name, session.row)) for name in (budget.RATE, budget.CAPACITY))
    return Budget(rate, capacity)


def merged(current: Budget, wanted: UpdateSession, default: Budget) -> Budget:
    """The budget with the parts that are named in its place."""
    given = wanted.budget or default
    whole = "budget" in wanted.paths
    return Budget(
        given.refill_ms_per_s if whole or "budget.refill_ms_per_s" in wanted.paths else current.refill_ms_per_s,
        given.capacity_ms if whole or "budget.capacity_ms" in wanted.paths else current.capacity_ms,
    )


def merged_labels(current: Mapping[str, str], wanted: UpdateSession) -> dict[str, str]:
    """The labels with those that are named in their place; one that is named and not given goes."""
    labels = dict(wanted.labels) if "labels" in wanted.paths else dict(current)
    for key in (path.removeprefix(LABEL) for path in wanted.paths if path.startswith(LABEL)):
        labels.pop(key, None)
        labels |= {key: wanted.labels[key]} if key in wanted.labels else {}
    return labels


def change_budget(session: Session, chosen: Budget, now: float) -> None:
    """New terms from now on; what was saved up stays, as far as there is room for it."""
    bank, row = session.cohort.bank, [session.row]
    state = bank.gather(row)
    saved = budget.available(state, now)
    fields = budget.template(chosen.refill_ms_per_s, chosen.capacity_ms, now)
    changed = {name: value[np.newaxis] for name, value in fields.items()}
    changed[budget.TOKENS] = np.minimum(saved, chosen.capacity_ms)
    bank.scatter(row, state | changed)


def changed(session: Session, given: str) -> Aborted:
    """The error of a caller that saw the session at another etag."""
    return Aborted(
        "ETAG_MISMATCH",
        f"session {session.id!r} has changed since etag {given[:60]!r}; get it again, and decide anew",
        model=session.model,
        session=session.id,
        given=given[:60],
        current=etag(session),
    )
