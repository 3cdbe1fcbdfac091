"""Models in a few figures: of all tenants for those who may know, else of the caller's own sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acclimate.runtime.ranking import Glance, mean
from acclimate.runtime.types import ModelSnapshot, ServiceSnapshot
from acclimate.runtime.web.documents import ModelFigures


def figures_of(
    snapshot: ServiceSnapshot, entropies: Mapping[str, float | None], own: Sequence[Glance] | None
) -> list[ModelFigures]:
    """Every model, by name.

    Args:
        snapshot: of the daemon.
        entropies: mean entropy of the latest answers of each model, nats.
        own: the sessions to tell of; None: everything.
    """
    if own is None:
        return [_whole(model, entropies.get(model.model)) for model in snapshot.models]
    return [_own(model, [seen for seen in own if seen.model == model.model]) for model in snapshot.models]


def _whole(model: ModelSnapshot, entropy: float | None) -> ModelFigures:
    return ModelFigures(
        model=model.model,
        version=model.version,
        whole=True,
        sessions=sum(model.sessions.values()),
        requests=sum(model.requests.values()),
        entropy=entropy,
        accuracy=model.estimated_accuracy if model.samples else None,
        labelled_accuracy=model.labelled_correct / model.labelled if model.labelled else None,
        drift=max(model.drift_max.values(), default=0.0),
        updates=model.steps.get("applied", 0),
        rollbacks=sum(model.rollbacks.values()),
        restorations=sum(model.restorations.values()),
        skipped=sum(model.skipped.values()),
        adaptation_ms=1e3 * model.adaptation_seconds,
        denied_ms=model.budget_denied_ms,
    )


def _own(model: ModelSnapshot, sessions: Sequence[Glance]) -> ModelFigures:
    return ModelFigures(
        model=model.model,
        version=model.version,
        whole=False,
        sessions=len(sessions),
        requests=sum(seen.requests for seen in sessions),
        entropy=mean([seen.entropy for seen in sessions]),
        accuracy=mean([seen.accuracy for seen in sessions]),
        labelled_accuracy=mean([seen.labelled_accuracy for seen in sessions]),
        drift=max((seen.drift for seen in sessions), default=0.0),
        updates=sum(seen.updates for seen in sessions),
        rollbacks=sum(seen.rollbacks for seen in sessions),
        restorations=sum(seen.restorations for seen in sessions),
        skipped=None,
        adaptation_ms=None,
        denied_ms=None,
    )
