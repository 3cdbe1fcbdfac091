"""Sessions at a glance, and the order in which they deserve a look: the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from acclimate.runtime.types import SessionView


@dataclass(frozen=True, slots=True)
class Glance:
    """A session's figures that lists show; counters count since it was opened.

    Attributes:
        model, session_id, tenant: which session; the tenant only where it is known.
        recipe, state, paused, version, last_used_at: as in `SessionView`.
        requests, updates, rollbacks, restorations: counters.
        entropy: mean of recent answers, nats; None before the first.
        accuracy: estimated without labels, over recent answers; None before the first.
        labelled_accuracy: share of labels that agreed; None without labels.
        drift: the highest level of any signal at the latest step; 0: as the source.
        drift_signal: which signal that is; empty where there is none.
    """

    model: str
    session_id: str
    tenant: str
    recipe: str
    state: str
    paused: bool
    version: int
    last_used_at: float
    requests: int
    updates: int
    rollbacks: int
    restorations: int
    entropy: float | None
    accuracy: float | None
    labelled_accuracy: float | None
    drift: float
    drift_signal: str


class Sort(StrEnum):
    """What a list is ordered by: the worst, or the most, comes first."""

    DRIFT = "drift"
    ACCURACY = "accuracy"
    ENTROPY = "entropy"
    ROLLBACKS = "rollbacks"
    UPDATES = "updates"
    RECENT = "recent"


def _known(value: float | None) -> float:
    return float("-inf") if value is None else value


BADNESS: Mapping[Sort, Callable[[Glance], float]] = {
    Sort.DRIFT: lambda seen: seen.drift,
    Sort.ACCURACY: lambda seen: _known(None if seen.accuracy is None else -seen.accuracy),
    Sort.ENTROPY: lambda seen: _known(seen.entropy),
    Sort.ROLLBACKS: lambda seen: seen.rollbacks,
    Sort.UPDATES: lambda seen: seen.updates,
    Sort.RECENT: lambda seen: seen.last_used_at,
}


def ranked(glances: Iterable[Glance], sort: Sort) -> list[Glance]:
    """The worst first; those alike by model and id."""
    measure = BADNESS[sort]
    return sorted(glances, key=lambda seen: (-measure(seen), seen.model, seen.session_id))


def matching(glances: Iterable[Glance], tenant: str, model: str | None, search: str) -> list[Glance]:
    """A tenant's sessions, those of a model (None: of all) whose id has the text in it, whatever its case."""
    wanted = search.casefold()
    return [
        seen
        for seen in glances
        if seen.tenant == tenant
        and model in (None, seen.model)
        and (not wanted or wanted in seen.session_id.casefold())
    ]


def highest(drift: Mapping[str, float]) -> tuple[float, str]:
    """The highest level of the signals, and whose it is."""
    level, signal = max(((level, signal) for signal, level in drift.items()), default=(0.0, ""))
    return (level, signal) if level > 0 else (0.0, "")


def glance(view: SessionView) -> Glance:
    """What a list shows of a session that was read whole."""
    level, signal = highest(view.drift)
    answered = view.samples > 0
    return Glance(
        model=view.model,
        session_id=view.session_id,
        tenant="",
        recipe=view.recipe,
        state=view.state,
        paused=view.paused,
        version=view.version,
        last_used_at=view.last_used_at,
        requests=view.requests,
        updates=view.updates,
        rollbacks=view.rollbacks,
        restorations=view.restorations,
        entropy=view.mean_entropy if answered else None,
        accuracy=view.estimated_accuracy if answered else None,
        labelled_accuracy=view.labelled_correct / view.labelled if view.labelled else None,
        drift=level,
        drift_signal=signal,
    )


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
