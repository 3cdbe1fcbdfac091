"""How accuracy of `benchmarks.intents` goes with the number of examples: one picture, the frozen model in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import LanguageEngine
from benchmarks import _intents as intents
from benchmarks._report import Value

SHOTS = (1, 2, 4, 8)
FROZEN, TRAINED = "#8a8a8a", "#1b6ca8"
LINES = {
    "zero_shot": (FROZEN, "-", "frozen model"),
    "zero_shot_calibrated": (FROZEN, "--", "frozen model, calibrated"),
    "trained": (TRAINED, "-", "trained"),
    "trained_calibrated": (TRAINED, "--", "trained, calibrated"),
}
Scores = Sequence[NDArray[np.floating]]
Users = Callable[[int], Sequence[intents.User]]
"""The users with so many examples of each intent; their queries do not depend on that."""
Teach = Callable[[Sequence[intents.User]], Float]
"""What the users' sessions learn of their examples: `theta [S, P]`."""


def measured(engine: LanguageEngine, users_of: Users, teach: Teach) -> list[Mapping[str, Value]]:
    """Mean accuracies in percent, a row for each number of examples."""
    rows: list[Mapping[str, Value]] = []
    asked: Scores | None = None
    for count in SHOTS:
        users = users_of(count)
        source = np.repeat(engine.source.theta[np.newaxis], len(users), axis=0)
        if asked is None:
            asked = intents.label_scores(engine, users, source, in_context=False)
        frozen = _accuracies(engine, users, source, asked)
        theta = teach(users)
        trained = _accuracies(engine, users, theta, intents.label_scores(engine, users, theta, in_context=False))
        row: dict[str, Value] = {"examples": count, "users": len(users)}
        row |= dict(zip(LINES, (*frozen, *trained), strict=True))
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def draw(rows: Sequence[Mapping[str, Value]], path: Path) -> None:
    """Draw the rows; write a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    counts = [float(row["examples"]) for row in rows]
    for name, (colour, style, text) in LINES.items():
        values = [float(row[name]) for row in rows]
        axes.plot(counts, values, color=colour, linestyle=style, marker="o", markersize=4, label=text, linewidth=1.8)
    axes.set(xlabel="examples of each of 8 intents", ylabel="queries answered right, %", xscale="log", ylim=(0, 100))
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _accuracies(
    engine: LanguageEngine, users: Sequence[intents.User], theta: Float, asked: Scores
) -> tuple[float, float]:
    """Mean over users as they are scored, and less each intent's mean score over the user's own examples."""
    calibrated = intents.calibrated(engine, users, theta, asked)
    return float(np.mean(intents.accuracies(users, asked))), float(np.mean(intents.accuracies(users, calibrated)))
