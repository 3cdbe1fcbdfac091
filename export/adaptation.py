"""What sessions may adapt, as values: norms, biases, low-rank updates of frozen weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from acclimate.export.errors import ExportError


@dataclass(frozen=True, slots=True)
class Norms:
    """Gains and shifts of norms; `BundleSpec.sites` chooses which."""


@dataclass(frozen=True, slots=True)
class Biases:
    """Biases of linear layers and convolutions that no batch norm follows.

    `targets` are glob patterns over module names; each has to match.
    """

    targets: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class LowRank:
    """`W + (alpha / rank) B A` for linear layers and ungrouped convolutions (LoRA, Hu et al. 2021, arXiv 2106.09685).

    `targets` are glob patterns over module names; each has to match. No `alpha` means `rank`: a factor of one.

    Raises:
        ExportError: a rank below one, or an alpha that is not positive.
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ExportError(f"lora: r is {self.rank}; it must be at least 1")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise ExportError(f"lora: alpha is {self.alpha}; it must be positive")

    @property
    def weight(self) -> float:
        """Alpha, the rank where none was given."""
        return float(self.rank if self.alpha is None else self.alpha)


Adaptation = Norms | Biases | LowRank


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module's name matches one of the glob patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
