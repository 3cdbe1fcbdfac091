"""How far the label-free estimates of accuracy are off, for the frozen model and for a session that adapts.

    python -m benchmarks.estimates --data ../shared/data/cifar10c --recipe auto --json

Two estimates, both as the daemon reports them (`acclimate/adapters/accuracy.py`): average thresholded confidence (ATC)
and difference of confidences (DoC). Each is taken over all answers of a shift and compared with their accuracy; the
figures are the mean distance over the shifts, in points, and on the clean images the frozen model's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from acclimate.adapters import recipes
from acclimate.adapters.accuracy import Telemetry, difference_of_confidences, observe, score
from acclimate.adapters.bank import SessionBank
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.layout import Float
from acclimate.adapters.recipes import Recipe, template
from acclimate.adapters.step import Batch, adaptation_step
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.scheduler.drive import run_step
from benchmarks import _image_streams as streams
from benchmarks._adapting import EVALUATION_ROWS, WHOLE
from benchmarks._bundles import add_bundle_options, chosen_bundle
from benchmarks._image_streams import Images, batches
from benchmarks._report import Report, Value, emit, parser

Row = Mapping[str, Value]


def main() -> None:
    """The frozen model and one session, over the same stream."""
    chosen = _parse()
    streams.require(chosen.data)
    engine = OnnxEngine(read_bundle(chosen_bundle(chosen)), OnnxOptions(adaptation_threads=chosen.threads))
    images = streams.load(chosen.data, chosen.shifts or streams.shifts(chosen.data), chosen.limit)
    stream = streams.ordered(images, "continual", chosen.seed, 0.0)
    recipe = recipes.build(chosen.recipe, {"batch_rows": chosen.batch}, engine.source, Guards())
    clean_x, clean_y = streams.read(chosen.data, "clean", chosen.limit)
    clean = _row(engine, "clean", "frozen", _frozen(engine, clean_x), clean_y)
    rows = [
        _row(engine, name, who, logits[stream.shift == number], stream.y[stream.shift == number])
        for who, logits in (("frozen", _frozen(engine, stream.x)), (chosen.recipe, _adapted(engine, recipe, stream)))
        for number, name in enumerate(stream.names)
    ]
    figures = {
        f"{estimate}_error_points_{label}": _mean_error(rows, who, estimate)
        for estimate in ("atc", "doc")
        for label, who in (("frozen", "frozen"), ("adapted", chosen.recipe))
    }
    figures |= {f"{estimate}_error_points_clean": _error(clean, estimate) for estimate in ("atc", "doc")}
    emit(Report("estimates", figures, [clean, *rows]), as_json=chosen.json)


def _frozen(engine: Engine, x: np.ndarray) -> Float:
    return np.concatenate([engine.frozen(x[part]) for part in batches(len(x), EVALUATION_ROWS)])


def _adapted(engine: Engine, recipe: Recipe, stream: Images) -> Float:
    """Logits `[N, C]` that one session serves: each batch is answered, then learnt from."""
    bank, logits = SessionBank(template(recipe, engine.source), 1), []
    row = bank.allocate()
    for part in batches(len(stream.y), recipe.batch_rows):
        inputs = stream.x[part]
        logits.append(engine.predict(inputs, engine.fold(bank.view(THETA, row), bank.view(STATS, row))))
        step = adaptation_step(recipe, engine.source, bank.gather([row]), Batch(inputs, np.zeros(len(inputs), np.intp)))
        result = run_step(step, engine, WHOLE)
        bank.scatter([row], result.state)
        if result.restore[0]:
            bank.reset(row)
    return np.concatenate(logits)


def _row(engine: Engine, shift: str, who: str, logits: Float, labels: np.ndarray) -> Row:
    """Accuracy and both estimates in percent, over all these answers alike."""
    calibration = engine.manifest.calibration
    seen = observe(Telemetry(), score(logits), calibration.confidence_threshold)
    return {
        "shift": shift,
        "model": who,
        "accuracy": 100 * float((logits.argmax(axis=1) == labels).mean()),
        "atc": 100 * seen.above,
        "doc": 100 * difference_of_confidences(seen, calibration),
        "images": len(labels),
    }


def _error(row: Row, estimate: str) -> float:
    return abs(float(row[estimate]) - float(row["accuracy"]))


def _mean_error(rows: Sequence[Row], who: str, estimate: str) -> float:
    return float(np.mean([_error(row, estimate) for row in rows if row["model"] == who]))


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    add_bundle_options(options)
    options.add_argument("--recipe", default="auto", choices=sorted(set(recipes.RECIPES) - {"source"}))
    options.add_argument("--batch", type=int, default=64, help="images per request and step")
    options.add_argument("--shifts", nargs="*", help="default: every file of the folder")
    options.add_argument("--limit", type=int, help="only the first images of each shift")
    options.add_argument("--seed", type=int, default=0, help="of the order")
    options.add_argument("--threads", type=int, default=2)
    return options.parse_args()


if __name__ == "__main__":
    main()
