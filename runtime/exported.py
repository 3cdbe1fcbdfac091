"""What a session has learnt, by the names of the source model: what is read out of a daemon."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.layout import Float, Kind, Layout
from acclimate.adapters.manifest import Lora


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor of a session's row: its name in the source model, its kind in the layout, float32 values."""

    name: str
    kind: Kind
    values: Float


@dataclass(frozen=True, slots=True)
class ExportedSession:
    """What a session has learnt, by the names that the source model gives its tensors.

    Attributes:
        model, session_id: whose they are; model_version is that of the bundle.
        version: of the session's parameters, as in replies; 0 is the source's.
        parameters_digest: of the layout; models with equal digests take each other's parameters.
        parameters: in the order of the layout of `theta`.
        statistics: normalisation statistics, in the order of the layout of `stats`.
        lora: the low-rank updates among the parameters, with rank and alpha.
    """

    model: str
    session_id: str
    model_version: str
    version: int
    parameters_digest: str
    parameters: tuple[NamedTensor, ...]
    statistics: tuple[NamedTensor, ...]
    lora: tuple[Lora, ...] = ()


def named_tensors(layout: Layout, row: Float) -> tuple[NamedTensor, ...]:
    """The slices of one row, in order."""
    parts = layout.unpack(row)
    return tuple(NamedTensor(entry.name, entry.kind, parts[entry.name]) for entry in layout.slices)
