"""What the user decides about a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field

from acclimate.export.trace import Preprocessing
from acclimate.export.verify import Limits


@dataclass(frozen=True)
class BundleSpec:
    """Names and choices.

    Attributes:
        name, version: how the daemon calls the model.
        classes: one label per logit.
        preprocessing: from a client's uint8 pixels to the module's input.
        sites: glob patterns over module names; the batch norms that match are adaptable.
        headroom: factor on calibrated activation ranges. Each doubling costs one of eight bits; see the report.
        canaries: samples kept for the daemon's guard.
        limits: what the checks tolerate.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sites: tuple[str, ...] = ("*",)
    version: str = "1"
    headroom: float = 1.5
    canaries: int = 32
    limits: Limits = field(default_factory=Limits)
