"""Why `auto` blends statistics: error by share of the stream's statistics, and what each way of choosing would take.

    python -m benchmarks.blends --data ../shared/data/cifar10c --json

No parameter moves here. For each shift, statistics are pooled over its first images, blended with the source's, and
the quantized model answers. `information` chooses the share whose answers hold the most (as `auto` does), `entropy`
the one whose answers are surest, `oracle` the one with the fewest errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import entropy, softmax
from acclimate.adapters.requests import Forward, Rows
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks import _image_streams as streams
from benchmarks._report import ROOT, Report, Value, emit, parser
from benchmarks._resnet_cifar import compiled

DATA = ROOT.parent / "shared" / "data"
SHARES = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
POOLED = 512


def main() -> None:
    """Every shift and the clean images, at every share."""
    chosen = _parse()
    streams.require(chosen.data)
    bundle = chosen.bundle or compiled(DATA / "models" / "resnet20_cifar10.safetensors", 20, chosen.data)
    engine = OnnxEngine(read_bundle(bundle), OnnxOptions(adaptation_threads=chosen.threads))
    rows: list[Mapping[str, Value]] = []
    picked: dict[str, list[float]] = {"information": [], "entropy": [], "oracle": []}
    for name in (*streams.shifts(chosen.data), "clean"):
        x, y = streams.read(chosen.data, name, chosen.limit)
        tried = [_answers(engine, x, share) for share in SHARES]
        errors = [100 * float((logits.argmax(axis=1) != y).mean()) for logits in tried]
        rows.append({"shift": name, **{f"{share:g}": error for share, error in zip(SHARES, errors, strict=True)}})
        if name != "clean":
            picked["information"].append(errors[int(np.argmax([_information(logits) for logits in tried]))])
            picked["entropy"].append(errors[int(np.argmin([entropy(logits).mean() for logits in tried]))])
            picked["oracle"].append(min(errors))
    shifted = rows[:-1]
    figures = {f"mean_error_share_{share}": _mean(shifted, share) for share in map("{:g}".format, SHARES)}
    figures |= {f"mean_error_by_{how}": float(np.mean(errors)) for how, errors in picked.items()}
    emit(Report("blends", figures, rows), as_json=chosen.json)


def _mean(rows: Sequence[Mapping[str, Value]], share: str) -> float:
    return float(np.mean([float(row[share]) for row in rows]))


def _answers(engine: OnnxEngine, x: NDArray[np.uint8], share: float) -> Float:
    """Logits `[N, C]` of the quantized model at the source's parameters and a blend of statistics."""
    source, count = engine.source, min(POOLED, len(x))
    rows = Rows(
        x[:count],
        np.repeat(source.theta[np.newaxis], count, axis=0),
        np.repeat(source.stats[np.newaxis], count, axis=0),
        np.zeros(count, np.intp),
        np.ones(count, np.float32),
    )
    pooled = engine.forward(Forward(rows)).batch_stats[0]
    folded = engine.fold(source.theta, source.stats + np.float32(share) * (pooled - source.stats))
    return np.concatenate([engine.predict(x[part], folded) for part in streams.batches(len(x), 100)])


def _information(logits: Float) -> float:
    """`H(mean p) - mean H(p)` in nats."""
    marginal = softmax(logits).mean(axis=0)
    return float(-(marginal * np.log(np.maximum(marginal, 1e-12))).sum() - entropy(logits).mean())


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, help="default: the pretrained ResNet-20, compiled")
    options.add_argument("--data", type=Path, default=DATA / "cifar10c")
    options.add_argument("--limit", type=int, default=600, help="images of each shift (default: %(default)s)")
    options.add_argument("--threads", type=int, default=2)
    return options.parse_args()


if __name__ == "__main__":
    main()
