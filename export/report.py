"""What an export found, as JSON for programs and as a page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acclimate.adapters.manifest import Cost
from acclimate.export.verify import Limits, Parity

REPORT_JSON, REPORT_PAGE = "report.json", "report.md"


@dataclass(frozen=True)
class Report:
    """Figures of one export; sizes in bytes, times in seconds unless a name says otherwise."""

    name: str
    sites: int
    parameters: int
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

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def files(self) -> dict[str, bytes]:
        """`report.json` and `report.md`."""
        document = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        return {REPORT_JSON: document.encode(), REPORT_PAGE: self.page().encode()}

    def page(self) -> str:
        """The report in Markdown."""
        parity, limits = self.parity, self.limits
        graphs = sum(self.file_bytes.values())
        rows = [
            ("Forward against torch, relative", f"{parity.forward_rel_error:.1e}", f"{limits.forward:.0e}"),
            ("VJP against float64 autograd, relative", f"{parity.vjp_rel_error:.1e}", f"{limits.vjp:.0e}"),
            ("Batch statistics, relative", f"{parity.batch_stats_rel_error:.1e}", f"{limits.vjp:.0e}"),
            _accuracy_row(parity, limits),
            ("Answers that int8 changed", f"{parity.int8_disagreement_points:.2f} %", _disagreement_limit(self)),
        ]
        sizes = [(name, f"{size:,}", str(self.nodes.get(name, ""))) for name, size in sorted(self.file_bytes.items())]
        effect = [
            (headroom, _percent(found["int8_accuracy"]), f"{found['int8_disagreement_points'] or 0.0:.2f} %")
            for headroom, found in self.headroom_effect.items()
        ]
        return "\n".join(
            [
                f"# {self.name}",
                "",
                f"{self.model_parameters:,} parameters ({self.float_bytes:,} bytes in float32), of which "
                f"{self.parameters:,} at {self.sites} sites adapt per session; {graphs:,} bytes of graphs and arrays. "
                f"Calibrated on {self.calibration_samples:,} samples; exported in {self.seconds:.1f} s.",
                "",
                "## Checks",
                "",
                *_table(("check", "found", "limit"), rows),
                "",
                "## Files",
                "",
                *_table(("file", "bytes", "nodes"), sizes),
                "",
                "## Cost of a sample",
                "",
                *_table(
                    ("pass", "MFLOPs", "ms of one core"),
                    [
                        (
                            "int8 forward",
                            f"{self.cost.forward_flops / 1e6:.2f}",
                            f"{self.cost.forward_ms:.3f} (batch 1)",
                        ),
                        ("forward and VJP", f"{self.cost.vjp_flops / 1e6:.2f}", f"{self.cost.vjp_ms:.3f} (batch 16)"),
                    ],
                ),
                "",
                f"## Headroom of activation ranges ({self.headroom:g} was used)",
                "",
                *_table(("factor", "int8 accuracy", "changed answers"), effect),
                "",
            ]
        )


def _accuracy_row(parity: Parity, limits: Limits) -> tuple[str, str, str]:
    if parity.int8_drop_points is None:
        return "Accuracy lost to int8", "no labels were given", "-"
    found = f"{parity.int8_drop_points:.2f} points ({_percent(parity.float_accuracy)} to "
    return "Accuracy lost to int8", found + f"{_percent(parity.int8_accuracy)})", f"{limits.int8_points:g} points"


def _disagreement_limit(report: Report) -> str:
    return "-" if report.parity.int8_drop_points is not None else f"{report.limits.disagreement_points:g} %"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
