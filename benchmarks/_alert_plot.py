"""The course of `benchmarks.drift_alert` on one picture: accuracies above, the level that the alert watches below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

THRESHOLD = 0.3
SMOOTH = 30
SESSION, FORK, FROZEN, LEVEL = "#1b6ca8", "#c8553d", "#8a8a8a", "#7a4fa3"


@dataclass(frozen=True, slots=True)
class Moment:
    """Shares of right answers at one time, seconds since the beginning; NaN while there is no fork."""

    at: float
    session: float
    fork: float
    frozen: float


def draw(
    moments: Sequence[Moment], turned: float, alerted: float, levels: Sequence[tuple[float, float]], path: Path
) -> None:
    """Draw the accuracies, rolling over three seconds, and the level; write a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 4.6), height_ratios=(2, 1), layout="constrained"
    )
    at = np.array([moment.at for moment in moments])
    for name, colour, text in (
        ("frozen", FROZEN, "frozen model"),
        ("fork", FORK, "the session's fork, left alone"),
        ("session", SESSION, "the session, taken back when the alert fires"),
    ):
        values = np.array([getattr(moment, name) for moment in moments])
        known = ~np.isnan(values)
        above.plot(at[known], _rolling(values[known]), color=colour, label=text, linewidth=1.6)
    below.plot(*zip(*levels, strict=True), color=LEVEL, linewidth=1.6)
    below.axhline(THRESHOLD, color=LEVEL, linestyle="--", linewidth=1)
    for axes in (above, below):
        axes.axvspan(turned, at[-1], color="#f4e3c1", alpha=0.5, linewidth=0)
        axes.axvline(alerted, color="black", linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
    above.annotate("alert fires,\nroll-back", (alerted, 0.06), (4, 0), textcoords="offset points", fontsize=8)
    above.annotate("labels come in runs", (turned, 0.06), (4, 0), textcoords="offset points", fontsize=8)
    above.set(ylabel="accuracy", ylim=(0, 1.02))
    above.legend(fontsize=8, loc="lower left", frameon=False, bbox_to_anchor=(0.0, 0.12))
    below.set(ylabel="drift level\n(entropy)", xlabel="seconds; rules run 60 times as fast", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rolling(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    return [float(values[max(0, end - SMOOTH) : end].mean()) for end in range(1, len(values) + 1)]
