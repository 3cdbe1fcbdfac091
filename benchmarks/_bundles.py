"""Which bundle a benchmark runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def chosen_bundle(chosen: argparse.Namespace) -> Path:
    """That of `--bundle`; without one the weights are compiled, once, and kept under `out/`."""
    if chosen.bundle is not None:
        return Path(chosen.bundle)
    # Compiling needs torch, running a bundle does not.
    from benchmarks._resnet_cifar import compiled

    return compiled(chosen.weights, chosen.depth, chosen.data)
