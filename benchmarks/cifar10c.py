"""Error of a recipe on corrupted images, through the real ONNX engine, one step after the other.

    python -m benchmarks.cifar10c --data ../shared/data/cifar10c --weights ../shared/data/models/... --recipe eata

A folder of `{shift}.npz` (`x` uint8 [N,32,32,3], `y`), `clean.npz` and `source.npz` is enough; so are weights or a
bundle it has not seen. With `--answers batch` a batch is answered as the papers' code does, before the update and
normalised with itself; with `--answers stream` each image is answered with what the daemon would serve at that
moment. The frozen model's error stands beside the adapted one's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np

from acclimate.adapters import recipes
from acclimate.adapters.guards import Guards
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks import _image_streams as streams
from benchmarks._adapting import Adapting, Protocol, frozen_errors
from benchmarks._bundles import add_bundle_options, chosen_bundle
from benchmarks._report import Report, Value, emit, parser


def main() -> None:
    """Run one recipe over one stream."""
    chosen = _parse()
    streams.require(chosen.data)
    engine = OnnxEngine(read_bundle(chosen_bundle(chosen)), OnnxOptions(adaptation_threads=chosen.threads))
    images = streams.load(chosen.data, chosen.shifts or streams.shifts(chosen.data), chosen.limit)
    order = "continual" if chosen.order == "reset" else chosen.order
    stream = streams.ordered(images, order, chosen.seed, chosen.dirichlet)
    clean_x, clean_y = streams.read(chosen.data, "clean", chosen.limit)
    guards = Guards() if chosen.guards else Guards(np.inf, 0.0, 1.0, 0, 2**62)
    recipe = recipes.build(chosen.recipe, _parameters(chosen), engine.source, guards)
    answers = chosen.answers or ("batch" if chosen.batch >= 8 else "stream")
    protocol = Protocol(chosen.batch, answers == "batch", chosen.order == "reset", chosen.sessions, chosen.feedback)
    adapting = Adapting(engine, recipe, protocol)
    before = adapting.clean_error(clean_x, clean_y)
    started = time.perf_counter()
    wrong = adapting.run(stream)
    seconds = time.perf_counter() - started
    frozen = frozen_errors(engine, stream)
    rows: list[Mapping[str, Value]] = [
        {
            "shift": name,
            "error": 100 * float(wrong[stream.shift == number].mean()),
            "frozen_error": 100 * float(frozen[stream.shift == number].mean()),
            "images": int((stream.shift == number).sum()),
        }
        for number, name in enumerate(stream.names)
    ]
    figures = {
        "mean_error": _mean(rows, "error"),
        "frozen_mean_error": _mean(rows, "frozen_error"),
        "clean_error_before": before,
        "clean_error_after": adapting.clean_error(clean_x, clean_y),
        "backward_samples": float(adapting.backward_rows),
        "forward_samples": float(adapting.forward_rows),
        "quantized_samples": float(adapting.quantized_rows),
        "selected_samples": float(adapting.selected),
        "steps": float(adapting.steps),
        "rollbacks": float(adapting.rollbacks),
        "restorations": float(adapting.restorations),
        "seconds_per_1000": 1000 * seconds / len(stream.y),
        "state_bytes_per_session": float(adapting.bank.row_bytes),
    }
    emit(Report("cifar10c", figures, rows), as_json=chosen.json)


def _mean(rows: Sequence[Mapping[str, Value]], key: str) -> float:
    return float(np.mean([float(row[key]) for row in rows]))


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    add_bundle_options(options)
    options.add_argument("--model", default="resnet", choices=["resnet"], help="architecture of --weights")
    options.add_argument("--recipe", default="eata", choices=sorted(recipes.RECIPES))
    options.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    options.add_argument("--order", default="continual", choices=["continual", "reset", "mixed", "correlated"])
    options.add_argument("--batch", type=int, default=64, help="images per request and session")
    options.add_argument("--sessions", type=int, default=1, help="that share the stream, all at once; 0: one per shift")
    options.add_argument("--feedback", type=float, default=0.0, help="share of the images whose label arrives")
    options.add_argument("--answers", choices=["batch", "stream"], help="default: batch from 8 images on")
    options.add_argument("--shifts", nargs="*", help="default: every file of the folder")
    options.add_argument("--limit", type=int, help="only the first images of each shift")
    options.add_argument("--seed", type=int, default=0, help="of the order")
    options.add_argument("--dirichlet", type=float, default=0.1, help="concentration of --order correlated")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--no-guards", dest="guards", action="store_false", help="as the papers' code: no guards")
    return options.parse_args()


def _parameters(chosen: argparse.Namespace) -> dict[str, float]:
    given = dict(text.split("=", 1) for text in chosen.parameter)
    parameters = {name: float(value) for name, value in given.items()}
    if chosen.batch >= 2 and "batch_rows" in recipes.values(chosen.recipe, {}):
        parameters.setdefault("batch_rows", float(chosen.batch))
    return parameters


if __name__ == "__main__":
    main()
