"""The report of an export as a page for people: what the bundle is, whether it is right, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, OBSERVE_FILE, SOURCE_FILE, VJP_FILE

if TYPE_CHECKING:
    from acclimate.export.report import Report

Row = tuple[str, ...]
_WHAT = {
    FROZEN_FILE: "the plain int8 model",
    FORWARD_FILE: "the int8 model with one session's parameters as inputs",
    OBSERVE_FILE: "float answers for many sessions at once",
    VJP_FILE: "float answers and gradients for many sessions at once",
    SOURCE_FILE: "parameters, statistics and measurements of the source model",
    "weights.safetensors": "weights that the graphs share",
}


def page(report: Report) -> str:
    """The report in Markdown."""
    sections = (
        (f"# {report.name}", "", _table(("", ""), _summary(report))),
        ("## Checks", _CHECKS, _table(("check", "found", "limit"), _checks(report))),
        ("## Cost of a sample", _COST, _table(("pass", "MFLOPs", "ms"), _costs(report))),
        ("## Files", "", _table(("file", "bytes", "nodes", "what"), _files(report))),
        (
            "## Headroom of activation ranges",
            _HEADROOM.format(used=report.headroom),
            _table(("factor", "int8 accuracy", "answers that int8 changed"), _effects(report.headroom_effect)),
        ),
    )
    return "\n\n".join(part for section in sections for part in section if part) + "\n"


_CHECKS = "A bundle that exceeds a limit is not written. Errors are relative, by Euclidean norm."
_COST = (
    "A multiply-accumulate counts as two operations. Milliseconds are of one core of the machine that exported; the "
    "daemon measures its own."
)
_HEADROOM = (
    "Activations move when a session adapts, so their calibrated ranges are widened by a factor, here {used:g}. A "
    "wider range is coarser: this is what other factors would have done to the unadapted model."
)


def _summary(report: Report) -> Iterable[Row]:
    total = sum(report.file_bytes.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.kinds.items())
    share = 100 * report.parameters / max(report.model_parameters, 1)
    yield "model", f"{report.model_parameters:,} parameters, {report.float_bytes:,} bytes in float32"
    yield "adapts per session", f"{report.parameters:,} parameters at {report.sites} sites ({kinds}), {share:.2g} %"
    yield "state of a session", f"{4 * report.parameters:,} bytes of parameters"
    yield "bundle", f"{total:,} bytes, {total / max(report.float_bytes, 1):.2f} times the float32 parameters"
    yield "calibrated on", f"{report.calibration_samples:,} samples, {_labels(report)}"
    yield "exported in", f"{report.seconds:.1f} s"


def _labels(report: Report) -> str:
    return "without labels" if report.parity.float_accuracy is None else "with labels"


def _checks(report: Report) -> Iterable[Row]:
    parity, limits = report.parity, report.limits
    of_torch = report.source == "torch"
    forward, vjp = ("torch", "float64 autograd") if of_torch else ("ONNX Runtime on the file", "central differences")
    yield f"Forward against {forward}", f"{parity.forward_rel_error:.1e}", f"{limits.forward:.0e}"
    yield f"VJP against {vjp}", f"{parity.vjp_rel_error:.1e}", f"{limits.vjp:.0e}"
    if parity.vjp_other_sides:
        yield "Units on the other side of a kink in float64, compared on this one", str(parity.vjp_other_sides), "-"
    # Nothing to compare where there is no batch norm, and then nothing is off.
    if parity.batch_stats_rel_error:
        yield "Statistics of a batch", f"{parity.batch_stats_rel_error:.1e}", f"{limits.vjp:.0e}"
    for precision, found in report.precisions.items():
        how = f"{precision}, emulated" if found.emulated else precision
        yield f"Logits in {how}, against float32", f"{found.logits:.1e}", f"{found.logits_limit:g}"
        yield f"Gradients in {how}, against float32", f"{found.gradients:.1e}", f"{found.gradients_limit:g}"
    changed = f"{parity.int8_disagreement_points:.2f} %"
    if parity.int8_drop_points is None:
        yield "Accuracy lost to int8", "unknown: no labels were given", "-"
        yield "Answers that int8 changed", changed, f"{limits.disagreement_points:g} %"
        return
    accuracies = f"{_percent(parity.float_accuracy)} to {_percent(parity.int8_accuracy)}"
    yield (
        "Accuracy lost to int8",
        f"{parity.int8_drop_points:.2f} points ({accuracies})",
        f"{limits.int8_points:g} points",
    )
    yield "Answers that int8 changed", changed, "-"


def _costs(report: Report) -> Iterable[Row]:
    cost = report.cost
    yield "prediction, int8, one at a time", f"{cost.forward_flops / 1e6:.2f}", f"{cost.forward_ms:.3f}"
    yield "gradient (forward and VJP), of a batch of 16", f"{cost.vjp_flops / 1e6:.2f}", f"{cost.vjp_ms:.3f}"


def _files(report: Report) -> Iterable[Row]:
    for name, size in sorted(report.file_bytes.items()):
        yield name, f"{size:,}", f"{report.nodes[name]:,}" if name in report.nodes else "", _what(name)


def _what(name: str) -> str:
    stem, *precision, suffix = name.split(".")
    plain = _WHAT.get(f"{stem}.{suffix}", "travels with the model")
    return f"{plain}, in {precision[0]}" if precision else plain


def _effects(effect: Mapping[str, Mapping[str, float | None]]) -> Iterable[Row]:
    for factor, found in effect.items():
        yield factor, _percent(found["int8_accuracy"]), f"{found['int8_disagreement_points'] or 0.0:.2f} %"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
