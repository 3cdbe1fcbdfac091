"""What a row of the catalogue is, and what it may read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from acclimate.runtime.errors import Code
from acclimate.runtime.figures import Histogram, ListedSession, ModelSnapshot, ServiceSnapshot

PREFIX = "acclimate_"
CODES = ("OK", *(code.value for code in Code), "CANCELLED", "INTERNAL")
"""Values of the label `code`: gRPC status codes that the daemon answers with."""

Kind = Literal["counter", "gauge", "histogram"]
Number = float | None
Sample = tuple[tuple[str, ...], float]
Value = Number | Histogram | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scrape:
    """All that rows read: the service's figures and those of the ports, at one moment.

    Attributes:
        service: the service and its models.
        version: of the package.
        memory_bytes, cpu_seconds: of the process.
        rpcs: finished rpcs by method and status code.
        streams: open inference streams; streamed: their requests by status code.
        auth_failures, quota_refusals: callers turned away, by reason and by quota.
        joules: used by the machine, by source; empty where nothing tells.
    """

    service: ServiceSnapshot
    version: str
    memory_bytes: int
    cpu_seconds: float
    rpcs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    streams: int = 0
    streamed: Mapping[str, int] = field(default_factory=dict)
    auth_failures: Mapping[str, int] = field(default_factory=dict)
    quota_refusals: Mapping[str, int] = field(default_factory=dict)
    joules: Mapping[str, float] = field(default_factory=dict)


class Named(Protocol):
    """A snapshot of one model."""

    @property
    def model(self) -> str:
        """Its name."""


Snapshot = TypeVar("Snapshot", bound=Named)


# Without slots: what is generic keeps its type on the instance, or tries to.
@dataclass(frozen=True)
class RowOfModels(Generic[Snapshot]):
    """A metric with the label `model`, and `label` besides if it has one.

    `read` takes it from a model's snapshot: a number, a histogram, or with a label numbers by its value; None, and
    there is no series, where it is not known. `values` are the label's values that are exported as 0 before anything
    happened.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Snapshot], Value]
    label: str = ""
    values: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""
        return ("model", self.label) if self.label else ("model",)


ModelMetric = RowOfModels[ModelSnapshot]


@dataclass(frozen=True, slots=True)
class ProcessMetric:
    """A metric of the whole daemon.

    `read` takes it from a scrape: a number or a histogram, None where it is not known; with one label numbers by its
    value; with more samples, each the labels' values and a number. `values` are those of its one label that are
    exported as 0 before anything happened.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Scrape], Value | Sequence[Sample]]
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionMetric:
    """A gauge of the few sessions that are named: labels `model`, `tenant`, `session`, and `label` if it has one.

    `read` takes it from such a session: a number, None where it is not known, or with a label numbers by its value.
    """

    name: str
    help: str
    read: Callable[[ListedSession], Number | Mapping[str, float]]
    label: str = ""
    kind: Kind = "gauge"
    values: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""
        return ("model", "tenant", "session", self.label) if self.label else ("model", "tenant", "session")


Row = ProcessMetric | RowOfModels[Any] | SessionMetric


def line(row: Row) -> str:
    """A row of a table of metrics: name, type, labels, meaning."""
    labels = ", ".join(f"`{label}`" for label in row.labels)
    return f"| `{PREFIX}{row.name}` | {row.kind} | {labels} | {row.help} |"
