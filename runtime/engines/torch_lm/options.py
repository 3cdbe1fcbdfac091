"""What a language model is loaded with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from acclimate.runtime.engines.language import LanguageModelError

Precision = Literal["nf4", "int8", "int4", "bf16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

PROJECTIONS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
"""Projections that may be updated, in the order they take in theta, and the block that each is part of."""


@dataclass(frozen=True, slots=True)
class LmOptions:
    """A model, and how it is held and adapted.

    Attributes:
        name: what it is served as.
        path: a directory, a GGUF file, an alias (`smollm2`) or a hub id.
        precision: of the base: `nf4` and `int8` as bitsandbytes has them, `int4` in groups of 32 as GGUF's Q4_1.
        rank: of the updates; alpha: they count alpha / rank times.
        targets: projections that are updated.
        context: most tokens of a row or a text; 0: what the model was made for, but no more than 2048.
        step_tokens: tokens computed at once while learning or scoring; more are done in parts.
        threads: of the processor; 0: torch's own choice.
        cache: where converted models lie.
        device: `cpu`, `cuda`, or `auto`: CUDA where it is.
    """

    name: str
    path: str
    precision: Precision = "nf4"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    context: int = 0
    step_tokens: int = 4096
    threads: int = 0
    cache: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise LanguageModelError(f"precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        if unknown := [name for name in self.targets if name not in PROJECTIONS]:
            raise LanguageModelError(f"targets has {unknown}; use some of {', '.join(PROJECTIONS)}")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise LanguageModelError(f"targets is {list(self.targets)}; name at least one projection, each once")
        if self.rank < 1:
            raise LanguageModelError(f"rank is {self.rank}; use 1 or more")
