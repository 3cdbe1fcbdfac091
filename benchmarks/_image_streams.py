"""Orders in which shifted images reach sessions: one shift after the other, mixed, or with correlated labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STANDARD_ORDER = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


@dataclass(frozen=True)
class Images:
    """Images `[N, 3, H, W]` uint8, labels `[N]`, and the shift `[N]` that each comes from, as a position in `names`."""

    names: tuple[str, ...]
    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    shift: NDArray[np.intp]

    def take(self, index: NDArray[np.intp]) -> Images:
        """These images, in this order."""
        return Images(self.names, self.x[index], self.y[index], self.shift[index])


def require(folder: Path) -> None:
    """End the benchmark here, saying why, where the images are not on this machine."""
    if not (folder / "source.npz").is_file():
        print(f"skipped: no images at {folder}; give the folder with --data", file=sys.stderr)
        raise SystemExit(0)


def read(folder: Path, name: str, limit: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images `[N, 3, H, W]` and labels of one `{name}.npz` with `x` uint8 `[N, H, W, 3]` and `y`."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        x, y = file["x"][:limit], file["y"][:limit]
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y.astype(np.int64)


def shifts(folder: Path) -> tuple[str, ...]:
    """Shifts in a folder: the standard ones in their order, then any others by name."""
    present = {path.stem for path in folder.glob("*.npz")} - {"clean", "source"}
    return (*(name for name in STANDARD_ORDER if name in present), *sorted(present - set(STANDARD_ORDER)))


def load(folder: Path, names: Sequence[str], limit: int | None) -> Images:
    """Every shift's images, one shift after the other."""
    parts = [read(folder, name, limit) for name in names]
    shift = np.repeat(np.arange(len(names)), [len(y) for _, y in parts])
    return Images(tuple(names), np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), shift)


def ordered(images: Images, order: str, seed: int, concentration: float) -> Images:
    """The stream.

    Args:
        images: in order of shifts.
        order: `continual` (shuffled within each shift), `mixed` (shuffled over all of them) or `correlated`
            (within each shift, labels come in runs: a Dirichlet share of each class per slot, Yuan et al. 2023).
        seed: of the shuffles.
        concentration: the Dirichlet parameter of `correlated`; smaller is more correlated.
    """
    generator = np.random.default_rng(seed)
    if order == "mixed":
        return images.take(generator.permutation(len(images.y)))
    blocks = [np.flatnonzero(images.shift == number) for number in range(len(images.names))]
    if order == "continual":
        # Row i is the same picture in every shift; one permutation keeps the shifts comparable.
        return images.take(np.concatenate([block[generator.permutation(len(block))] for block in blocks]))
    return images.take(np.concatenate([block[_runs(images.y[block], generator, concentration)] for block in blocks]))


def _runs(labels: NDArray[np.int64], generator: np.random.Generator, concentration: float) -> NDArray[np.intp]:
    """Positions such that labels arrive in runs: classes are dealt to as many slots as there are classes."""
    classes = int(labels.max()) + 1
    slots: list[list[NDArray[np.intp]]] = [[] for _ in range(classes)]
    for label in range(classes):
        mine = generator.permutation(np.flatnonzero(labels == label))
        share = generator.dirichlet(np.full(classes, concentration))
        cuts = (np.cumsum(share)[:-1] * len(mine)).astype(int)
        for slot, part in zip(slots, np.split(mine, cuts), strict=True):
            slot.append(part)
    return np.concatenate([part for slot in slots for part in slot]).astype(np.intp)


def batches(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
