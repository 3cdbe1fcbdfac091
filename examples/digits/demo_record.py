"""What the demo saw of each camera, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from acclimate.runtime.client import SessionView

# Rolling accuracy looks back this many frames.
WINDOW = 50


@dataclass(slots=True)
class Record:
    """One camera: per frame whether the frozen and the adapted answer were right, severity, and latency in ms."""

    camera: str
    corruption: str
    frozen: list[bool] = field(default_factory=list)
    adapted: list[bool] = field(default_factory=list)
    severity: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    view: SessionView | None = None

    def recent(self, answers: Sequence[bool]) -> float:
        """Share of right answers among the latest frames."""
        return share(answers[-WINDOW:])


def share(answers: Sequence[bool]) -> float:
    """Share of right answers; 0 before the first."""
    return float(np.mean(answers)) if len(answers) else 0.0


@dataclass(frozen=True, slots=True)
class CameraSummary:
    """One camera's figures over the whole stream.

    `drifted_*` are over the frames whose severity was above zero, None where there were none.
    """

    camera: str
    corruption: str
    frames: int
    frozen_accuracy: float
    adapted_accuracy: float
    drifted_frozen_accuracy: float | None
    drifted_adapted_accuracy: float | None
    estimated_accuracy: float
    updates: int
    rollbacks: int
    restorations: int
    skipped: int
    adaptation_ms: float


@dataclass(frozen=True, slots=True)
class Clean:
    """Accuracy on clean digits that no session was shown, before the first frame and after the last."""

    before: float
    after: float


def summary(records: Sequence[Record], clean: Clean, daemon: dict[str, Any]) -> dict[str, Any]:
    """The demo's result as JSON values; accuracies are shares, latencies milliseconds."""
    cameras = [of_camera(record) for record in records]
    frozen = [right for record in records for right in record.frozen]
    adapted = [right for record in records for right in record.adapted]
    latency = [ms for record in records for ms in record.latency_ms]
    return {
        "demo": "digits",
        "frames": len(adapted),
        "frozen_accuracy": share(frozen),
        "adapted_accuracy": share(adapted),
        "drifted_frozen_accuracy": _drifted(records, "frozen"),
        "drifted_adapted_accuracy": _drifted(records, "adapted"),
        "clean_accuracy_before": clean.before,
        "clean_accuracy_after": clean.after,
        "updates": sum(camera.updates for camera in cameras),
        "rollbacks": sum(camera.rollbacks for camera in cameras),
        "restorations": sum(camera.restorations for camera in cameras),
        "predict_p50_ms": float(np.percentile(latency, 50)),
        "predict_p99_ms": float(np.percentile(latency, 99)),
        "worse_cameras": [camera.camera for camera in cameras if camera.adapted_accuracy < camera.frozen_accuracy],
        "cameras": [asdict(camera) for camera in cameras],
        **daemon,
    }


def of_camera(record: Record) -> CameraSummary:
    """One camera's figures."""
    view = record.view
    return CameraSummary(
        camera=record.camera,
        corruption=record.corruption,
        frames=len(record.adapted),
        frozen_accuracy=share(record.frozen),
        adapted_accuracy=share(record.adapted),
        drifted_frozen_accuracy=_drifted([record], "frozen"),
        drifted_adapted_accuracy=_drifted([record], "adapted"),
        estimated_accuracy=view.estimated_accuracy if view else 0.0,
        updates=view.updates if view else 0,
        rollbacks=view.rollbacks if view else 0,
        restorations=view.restorations if view else 0,
        skipped=sum(view.skipped.values()) if view else 0,
        adaptation_ms=view.adaptation_ms if view else 0.0,
    )


def _drifted(records: Sequence[Record], which: str) -> float | None:
    answers = [
        right
        for record in records
        for right, severity in zip(getattr(record, which), record.severity, strict=True)
        if severity > 0
    ]
    return share(answers) if answers else None
