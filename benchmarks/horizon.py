"""Forgetting and collapse: one session over a long stream of shifts that come again and again.

    python -m benchmarks.horizon --data ../shared/data/cifar10c --recipe auto --samples 100000 --json

A round shows every shift in turn, other images of it each time until there are none left; ten tenths of the stream are
as many rounds each, so that their errors compare. A recipe that collapses shows it in the last tenth; the frozen
model's error stands beside, and the clean images before and after.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import recipes
from acclimate.adapters.guards import Guards
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks import _image_streams as streams
from benchmarks._adapting import Adapting, Protocol, frozen_errors
from benchmarks._bundles import add_bundle_options, chosen_bundle
from benchmarks._report import Report, Value, emit, parser

TENTHS = 10


def main() -> None:
    """Play the rounds, and print the error of each tenth."""
    chosen = _parse()
    streams.require(chosen.data)
    engine = OnnxEngine(read_bundle(chosen_bundle(chosen)), OnnxOptions(adaptation_threads=chosen.threads))
    images = streams.load(chosen.data, streams.shifts(chosen.data), None)
    stream = images.take(rounds(images, chosen.samples, chosen.rounds, chosen.seed))
    clean_x, clean_y = streams.read(chosen.data, "clean")
    parameters = {"batch_rows": float(chosen.batch)} if "batch_rows" in recipes.values(chosen.recipe, {}) else {}
    parameters |= {name: float(value) for name, _, value in (text.partition("=") for text in chosen.parameter)}
    guards = Guards() if chosen.guards else Guards(np.inf, 0.0, 1.0, 0, 2**62)
    recipe = recipes.build(chosen.recipe, parameters, engine.source, guards)
    adapting = Adapting(engine, recipe, Protocol(chosen.batch, chosen.batch >= 8, False, 1, chosen.feedback))
    before = adapting.clean_error(clean_x, clean_y)
    wrong, frozen = adapting.run(stream), frozen_errors(engine, stream)
    tenths = np.array_split(np.arange(len(wrong)), TENTHS)
    rows: list[dict[str, Value]] = [
        {"tenth": number + 1, "error": _percent(wrong[part]), "frozen_error": _percent(frozen[part])}
        for number, part in enumerate(tenths)
    ]
    figures = {
        "samples": float(len(wrong)),
        "mean_error": _percent(wrong),
        "frozen_mean_error": _percent(frozen),
        "error_second_tenth": float(rows[1]["error"]),
        "error_last_tenth": float(rows[-1]["error"]),
        "worst_tenth": max(float(row["error"]) for row in rows),
        "clean_error_before": before,
        "clean_error_after": adapting.clean_error(clean_x, clean_y),
        "backward_samples": float(adapting.backward_rows),
        "rollbacks": float(adapting.rollbacks),
        "restorations": float(adapting.restorations),
    }
    emit(Report("horizon", figures, rows), as_json=chosen.json)


def rounds(images: streams.Images, samples: int, count: int, seed: int) -> NDArray[np.intp]:
    """Positions of `count` rounds over all shifts: `samples` in all, or the next number that divides."""
    shifts, generator = len(images.names), np.random.default_rng(seed)
    each = -(-samples // (count * shifts))
    decks: list[list[int]] = [[] for _ in range(shifts)]
    order: list[int] = []
    for _ in range(count):
        for number, deck in enumerate(decks):
            while len(deck) < each:
                deck += generator.permutation(np.flatnonzero(images.shift == number)).tolist()
            order += deck[:each]
            del deck[:each]
    return np.array(order, np.intp)


def _percent(wrong: NDArray[np.bool_]) -> float:
    return 100 * float(wrong.mean())


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    add_bundle_options(options)
    options.add_argument("--recipe", default="auto", choices=sorted(recipes.RECIPES))
    options.add_argument("--samples", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=20, help="a multiple of ten makes the tenths alike")
    options.add_argument("--batch", type=int, default=64, help="images per request")
    options.add_argument("--feedback", type=float, default=0.0, help="share of the images whose label arrives")
    options.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    options.add_argument("--seed", type=int, default=0, help="of the order")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--no-guards", dest="guards", action="store_false", help="as the papers' code: no guards")
    return options.parse_args()


if __name__ == "__main__":
    main()
