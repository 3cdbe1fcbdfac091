"""Ours beside `torch-ttt` in one run: error, and seconds for 1,000 images.

Two settings: one session that gets 64 images a request, and 64 sessions that get one image each in turn. Both sides
have the same weights, images, order and threads, and answer every image. `torch-ttt` answers after its step, ours
before it, so that a slow start counts against ours. The frozen model's error stands beside.

`auto` is run as it comes, and first with a thriftier pace (`SETTINGS`): fewer gradients and looks. `speedup_1x64` and
`speedup_64x1` compare it with the faster of the peer's engines as they come: TENT as it is, and EATA with the least
repair that makes it run (`_torch_ttt.py`); both take three gradients an input. The figures `..._over_one_step` compare
with the fastest of the variants that we made of them, which take one and keep it.

With one thread, time is the processor time of this process, which other work on the machine hardly disturbs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adapters import recipes
from acclimate.adapters.guards import Guards
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks import _image_streams as streams
from benchmarks import _torch_ttt
from benchmarks._adapting import Adapting, Protocol, frozen_errors
from benchmarks._report import ROOT, Report, Value, emit, parser
from benchmarks._resnet_cifar import MEAN, STD, compiled, load_resnet

DATA = ROOT.parent / "shared" / "data"
DEPTH = 20
AS_THEY_COME: Mapping[str, _torch_ttt.Make] = {
    "torch-ttt tent, its defaults": _torch_ttt.tent_by_default,
    "torch-ttt eata, least repair": _torch_ttt.eata_least_repaired,
}
ONE_STEP: Mapping[str, _torch_ttt.Make] = {
    "torch-ttt tent, kept": _torch_ttt.tent_that_keeps,
    "torch-ttt tent, kept, batch statistics": _torch_ttt.tent_with_batch_statistics,
    "torch-ttt eata, repaired": _torch_ttt.eata_repaired,
}
PEERS = {**AS_THEY_COME, **ONE_STEP}
Lanes = list[NDArray[np.intp]]


@dataclass(frozen=True)
class Setting:
    """`sessions` streams at once, `batch` images a request; `thrifty` is the pace that is compared."""

    name: str
    sessions: int
    batch: int
    thrifty: str


SETTINGS = (
    Setting("1x64", 1, 64, "auto:eager=64:growth=1:every=384:look=32"),
    # A session sees too few images to pay for gradients with: only statistics are followed.
    Setting("64x1", 64, 1, "auto:eager=0:growth=3:every=1e9"),
)


def main() -> None:
    """Print the table or, with `--json`, one JSON object."""
    chosen = _parse()
    streams.require(chosen.data)
    if not _torch_ttt.installed():
        raise SystemExit(f"skipped: torch-ttt does not run here; {_torch_ttt.INSTALL}")
    torch.set_num_threads(chosen.threads)
    options = OnnxOptions(intra_op_threads=chosen.threads, adaptation_threads=chosen.threads)
    engine = OnnxEngine(read_bundle(compiled(chosen.weights, DEPTH, chosen.data)), options)
    images = streams.load(chosen.data, streams.shifts(chosen.data), chosen.limit)
    stream = streams.ordered(images, "continual", 0, 0.1)
    frozen = 100 * float(frozen_errors(engine, stream).mean())
    rows: list[dict[str, Value]] = []
    for setting in SETTINGS:
        lanes = dealt(stream, setting.sessions)
        names = (setting.thrifty, *chosen.recipes.split(","))
        found = [ours(name, engine, stream, lanes, setting) for name in names]
        found += [theirs(name, engine, stream, lanes, setting, chosen.weights) for name in PEERS]
        rows += [row | {"frozen_error": frozen} for row in found]
    emit(Report("peers", figures(rows), rows), as_json=chosen.json)


def dealt(stream: streams.Images, sessions: int) -> Lanes:
    """Positions of each session's stream: all of it, or a run of one shift for each of many."""
    if sessions == 1:
        return [np.arange(len(stream.y))]
    size = len(stream.y) // sessions
    return [np.arange(start * size, (start + 1) * size) for start in range(sessions)]


def ours(name: str, engine: OnnxEngine, stream: streams.Images, lanes: Lanes, setting: Setting) -> dict[str, Value]:
    """One of our recipes, in this setting; `name:parameter=value` overrides its defaults."""
    kind, *given = name.split(":")
    parameters = {key: float(value) for key, _, value in (text.partition("=") for text in given)}
    if setting.batch > 1:
        parameters["batch_rows"] = float(setting.batch)
    recipe = recipes.build(kind, parameters, engine.source, Guards())
    adapting = Adapting(engine, recipe, Protocol(setting.batch, setting.batch > 1, False, len(lanes)))
    started = _clock()
    wrong = adapting.play(stream, lanes)
    return _row(setting, f"acclimate {name}", wrong, lanes, _clock() - started)


def theirs(
    name: str, engine: OnnxEngine, stream: streams.Images, lanes: Lanes, setting: Setting, weights: Path
) -> dict[str, Value]:
    """One of the peer's engines, a copy of the model for each session."""
    model = load_resnet(weights, DEPTH)
    predictors = [PEERS[name](model, engine.source) for _ in lanes]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    wrong = np.zeros(len(stream.y), np.bool_)
    started = _clock()
    for turn in streams.batches(len(lanes[0]), setting.batch):
        for lane, predict in zip(lanes, predictors, strict=True):
            request = lane[turn]
            inputs = (torch.from_numpy(stream.x[request]).float() / 255 - mean) / std
            wrong[request] = predict(inputs).argmax(1).numpy() != stream.y[request]
    return _row(setting, name, wrong, lanes, _clock() - started)


def figures(rows: list[dict[str, Value]]) -> dict[str, float]:
    """Speed and error of our first recipe against the peer's engines, and the frozen model's error."""
    result: dict[str, float] = {}
    for setting in SETTINGS:
        here = [row for row in rows if row["setting"] == setting.name]
        mine = next(row for row in here if str(row["method"]).startswith("acclimate"))
        result |= {
            f"speedup_{setting.name}": _fastest(here, AS_THEY_COME) / float(mine["seconds_per_1000"]),
            f"speedup_{setting.name}_over_one_step": _fastest(here, ONE_STEP) / float(mine["seconds_per_1000"]),
            f"error_{setting.name}": float(mine["error"]),
            f"peer_error_{setting.name}": min(float(row["error"]) for row in here if row["method"] in PEERS),
            f"frozen_error_{setting.name}": float(mine["frozen_error"]),
        }
    return result


def _fastest(rows: list[dict[str, Value]], methods: Mapping[str, _torch_ttt.Make]) -> float:
    return min(float(row["seconds_per_1000"]) for row in rows if row["method"] in methods)


def _clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _row(setting: Setting, method: str, wrong: NDArray[np.bool_], lanes: Lanes, seconds: float) -> dict[str, Value]:
    played = np.concatenate(lanes)
    return {
        "setting": setting.name,
        "method": method,
        "error": 100 * float(wrong[played].mean()),
        "seconds_per_1000": 1000 * seconds / len(played),
    }


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=DATA / "cifar10c", help="folder of .npz files")
    options.add_argument("--weights", type=Path, default=DATA / "models" / f"resnet{DEPTH}_cifar10.safetensors")
    options.add_argument("--recipes", default="auto,eata,tent", help="of ours besides, separated by commas")
    options.add_argument("--limit", type=int, default=600, help="images of each shift")
    options.add_argument("--threads", type=int, default=1, help="of either side")
    return options.parse_args()


if __name__ == "__main__":
    main()
