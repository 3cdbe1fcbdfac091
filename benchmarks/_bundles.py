"""Which bundle a benchmark runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._report import ROOT

DATA = ROOT.parent / "shared" / "data"


def add_bundle_options(options: argparse.ArgumentParser) -> None:
    """`--data`, and what `chosen_bundle` reads."""
    options.add_argument("--data", type=Path, default=DATA / "cifar10c", help="folder of .npz files")
    options.add_argument("--depth", type=int, default=20, help="6n+2")
    options.add_argument("--weights", type=Path, default=DATA / "models" / "resnet20_cifar10.safetensors")
    options.add_argument("--bundle", type=Path, help="use this bundle instead of compiling the weights")


def chosen_bundle(chosen: argparse.Namespace) -> Path:
    """That of `--bundle`; without one the weights are compiled, once, and kept under `out/`."""
    if chosen.bundle is not None:
        return Path(chosen.bundle)
    # Compiling needs torch, running a bundle does not.
    from benchmarks._resnet_cifar import compiled

    return compiled(chosen.weights, chosen.depth, chosen.data)
