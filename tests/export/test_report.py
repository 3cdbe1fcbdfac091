"""The report as a page: what it says, and that it says nothing it does not know."""

from __future__ import annotations

from dataclasses import replace

from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Cost
from acclimate.export.report import Report, sizes_by_kind
from acclimate.export.report_page import page
from acclimate.export.verify import Limits, Parity

PARITY = Parity(
    forward_rel_error=1.2e-7,
    vjp_rel_error=3.4e-6,
    batch_stats_rel_error=5.6e-7,
    float_accuracy=0.91,
    int8_accuracy=0.9075,
    int8_drop_points=0.25,
    int8_disagreement_points=1.5,
)
REPORT = Report(
    name="pets", source="torch", sites=2, parameters=24, kinds={"norm.scale": 8, "lora.A": 16}, model_parameters=1000,
    float_bytes=4000, file_bytes={"vjp.onnx": 1500, "vjp.fp16.onnx": 900, "weights.safetensors": 1000, "vocab.txt": 70},
    nodes={"vjp.onnx": 12}, parity=PARITY, limits=Limits(), cost=Cost(2e6, 6e6, 0.25, 1.75), headroom=1.5,
    headroom_effect={"1": {"int8_accuracy": 0.9, "int8_disagreement_points": 0.5}}, calibration_samples=500,
    seconds=12.34,
)  # fmt: skip


def rows(text: str) -> dict[str, tuple[str, ...]]:
    """Cells of every table's rows by the first."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    cells = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)
    return {first: rest for first, *rest in cells}  # type: ignore[misc]


def test_sizes_counts_checks_and_costs_are_all_there() -> None:
    found = {name: tuple(rest) for name, rest in rows(page(REPORT)).items()}
    assert found["model"] == ("1,000 parameters, 4,000 bytes in float32",)
    assert found["adapts per session"] == ("24 parameters at 2 sites (8 norm.scale, 16 lora.A), 2.4 %",)
    assert found["bundle"] == ("3,470 bytes, 0.87 times the float32 parameters",)
    assert found["calibrated on"] == ("500 samples, with labels",)
    assert found["Forward against torch"] == ("1.2e-07", "1e-04")
    assert found["VJP against float64 autograd"] == ("3.4e-06", "1e-03")
    assert found["Statistics of a batch"] == ("5.6e-07", "1e-03")
    assert found["Accuracy lost to int8"] == ("0.25 points (91.00 % to 90.75 %)", "0.5 points")
    assert found["prediction, int8, one at a time"] == ("2.00", "0.250")
    assert found["gradient (forward and VJP), of a batch of 16"] == ("6.00", "1.750")
    assert found["vjp.onnx"][:2] == ("1,500", "12")
    assert found["vjp.fp16.onnx"][2] == found["vjp.onnx"][2] + ", in fp16"
    assert found["vocab.txt"] == ("70", "", "travels with the model")
    assert found["1"] == ("90.00 %", "0.50 %")


def test_what_is_not_known_is_said_so() -> None:
    unlabelled = replace(
        PARITY, float_accuracy=None, int8_accuracy=None, int8_drop_points=None, batch_stats_rel_error=0.0
    )
    text = page(replace(REPORT, source="onnx", parity=unlabelled))
    found = {name: tuple(rest) for name, rest in rows(text).items()}
    assert found["Accuracy lost to int8"] == ("unknown: no labels were given", "-")
    assert found["Answers that int8 changed"] == ("1.50 %", "2 %"), "this is what is limited then"
    assert found["calibrated on"] == ("500 samples, without labels",)
    assert "Forward against ONNX Runtime on the file" in found
    assert "VJP against central differences" in found
    assert "Statistics of a batch" not in found
    assert "autograd" not in text


def test_kinds_are_counted_by_elements() -> None:
    layout = Layout.of([("a", "norm.scale", (3,)), ("b", "bias", (2,)), ("c", "norm.scale", (4,))])
    assert sizes_by_kind(layout) == {"norm.scale": 7, "bias": 2}
