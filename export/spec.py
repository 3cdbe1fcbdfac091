"""What the user decides about a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acclimate.export.adaptation import Adaptation, Norms
from acclimate.export.trace import Preprocessing
from acclimate.export.verify import Limits


@dataclass(frozen=True)
class BundleSpec:
    """Names and choices.

    Attributes:
        name, version: how the daemon calls the model.
        classes: one label per logit.
        preprocessing: from a client's uint8 pixels to the module's input.
        sites: glob patterns over module names; with `Norms` in `adapt`, the norms that match are adaptable.
        headroom: factor on calibrated activation ranges. Each doubling costs one of eight bits; see the report.
        canaries: samples kept for the daemon's guard.
        limits: what the checks tolerate.
        adapt: what sessions may adapt: `Norms`, `Biases` and `LowRank`, in any combination.
        files: more files that travel in the bundle as they are, a tokenizer's for instance.
        precisions: more precisions of the graphs, for GPUs: `fp16`, `bf16`.
        provenance: more entries of the manifest's `provenance`.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sites: tuple[str, ...] = ("*",)
    version: str = "1"
    headroom: float = 1.5
    canaries: int = 32
    limits: Limits = field(default_factory=Limits)
    adapt: tuple[Adaptation, ...] = (Norms(),)
    files: Mapping[str, bytes] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    precisions: tuple[str, ...] = ()
