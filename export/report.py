"""What an export found, as JSON for programs; `report_page` makes a page for people of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Cost
from acclimate.export.report_page import page
from acclimate.export.variants import PrecisionErrors
from acclimate.export.verify import Limits, Parity

REPORT_JSON, REPORT_PAGE = "report.json", "report.md"


@dataclass(frozen=True)
class Report:
    """Figures of one export; sizes in bytes, times in seconds unless a name says otherwise.

    `source` is what the model came as, `torch` or `onnx`; `kinds` counts the adaptable parameters by kind of slice.
    """

    name: str
    source: str
    sites: int
    parameters: int
    kinds: Mapping[str, int]
    model_parameters: int
    float_bytes: int
    file_bytes: Mapping[str, int]
    nodes: Mapping[str, int]
    parity: Parity
    limits: Limits
    cost: Cost
    headroom: float
    headroom_effect: Mapping[str, Mapping[str, float | None]]
    calibration_samples: int
    seconds: float
    precisions: Mapping[str, PrecisionErrors] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def files(self) -> dict[str, bytes]:
        """`report.json` and `report.md`."""
        document = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        return {REPORT_JSON: document.encode(), REPORT_PAGE: page(self).encode()}


def sizes_by_kind(layout: Layout) -> dict[str, int]:
    """Elements of all slices of each kind, in the layout's order."""
    sizes: dict[str, int] = {}
    for entry in layout.slices:
        sizes[entry.kind] = sizes.get(entry.kind, 0) + entry.size
    return sizes
