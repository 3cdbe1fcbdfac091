"""The demo as people see it: a live table while it runs, a summary and a picture at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from acclimate.examples.digits.demo_record import WINDOW, Record, share

COLUMNS = (
    *("severity", "frozen", "adapted", "estimated", "entropy"),
    *("updates", "budget ms", "rolled back", "p50 ms", "p99 ms"),
)


def live_table(records: Sequence[Record], frames: int) -> Table:
    """One row per camera: accuracy over the latest frames, what the daemon says of its session, latency so far."""
    done = max((len(record.adapted) for record in records), default=0)
    table = Table(title=f"frame {done} of {frames}; accuracy over the last {WINDOW} frames", title_justify="left")
    table.add_column("camera")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(*_cells(record))
    return table


def _cells(record: Record) -> list[str]:
    view, latency = record.view, record.latency_ms or [0.0]
    frozen, adapted = record.recent(record.frozen), record.recent(record.adapted)
    colour = "green" if adapted > frozen else "red" if adapted < frozen - 0.02 else "white"
    return [
        f"{record.camera} [dim]({record.corruption})[/dim]",
        f"{record.severity[-1] if record.severity else 0:.2f}",
        f"{frozen:.0%}",
        f"[{colour}]{adapted:.0%}[/{colour}]",
        f"{view.estimated_accuracy:.0%}" if view else "",
        f"{view.mean_entropy:.2f}" if view else "",
        f"{view.updates}" if view else "",
        f"{view.adaptation_ms:.0f}" if view else "",
        f"{view.rollbacks}" if view else "",
        f"{np.percentile(latency, 50):.1f}",
        f"{np.percentile(latency, 99):.1f}",
    ]


def summary_table(result: dict[str, Any]) -> Table:
    """Accuracy per camera over the whole stream, frozen against adapted."""
    table = Table(title="the whole stream", title_justify="left")
    for name in ("camera", "frozen", "adapted", "while drifted: frozen", "adapted", "updates", "rolled back"):
        table.add_column(name, justify="left" if name == "camera" else "right")
    for camera in result["cameras"]:
        table.add_row(
            f"{camera['camera']} [dim]({camera['corruption']})[/dim]",
            f"{camera['frozen_accuracy']:.1%}",
            f"{camera['adapted_accuracy']:.1%}",
            _percent(camera["drifted_frozen_accuracy"]),
            _percent(camera["drifted_adapted_accuracy"]),
            f"{camera['updates']}",
            f"{camera['rollbacks']}",
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def sentences(result: dict[str, Any]) -> list[str]:
    """The result in words, the bad news included."""
    worse = result["worse_cameras"]
    return [
        f"Accuracy over {result['frames']} frames: frozen {result['frozen_accuracy']:.1%}, "
        f"adapted {result['adapted_accuracy']:.1%}.",
        f"On clean digits no session was shown: {result['clean_accuracy_before']:.1%} before, "
        f"{result['clean_accuracy_after']:.1%} after.",
        f"{result['updates']} updates, {result['rollbacks']} rolled back; predictions took "
        f"{result['predict_p50_ms']:.1f} ms (p50) and {result['predict_p99_ms']:.1f} ms (p99).",
        f"Worse than frozen: {', '.join(worse)}." if worse else "No camera did worse than its frozen twin.",
        f"The daemon imported torch: {result['torch_imported']}; it holds {result['daemon_rss_mb']:.0f} MB.",
    ]


def plot(records: Sequence[Record], path: Path) -> None:
    """Rolling accuracy of every camera over its frames, drift severity shaded behind, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (len(records) + 3) // 4
    figure = Figure(figsize=(14, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, record in zip(figure.subplots(rows, 4, sharey=True, squeeze=False).flat, records, strict=False):
        frames = np.arange(len(record.adapted))
        axes.fill_between(frames, record.severity, color="#d8d8d8", label="severity", linewidth=0)
        axes.plot(frames, _rolling(record.frozen), color="#b04a3a", label="frozen")
        axes.plot(frames, _rolling(record.adapted), color="#2a6f97", label="adapted")
        axes.set_title(f"{record.camera}: {record.corruption}", fontsize=10)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("frame")
    figure.axes[0].set_ylabel(f"accuracy, last {WINDOW} frames")
    figure.axes[0].legend(loc="lower left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _rolling(answers: Sequence[bool]) -> list[float]:
    return [share(answers[max(0, end - WINDOW) : end]) for end in range(1, len(answers) + 1)]
