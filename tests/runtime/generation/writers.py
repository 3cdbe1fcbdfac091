"""A daemon that serves a small language model in NumPy, and what a decoder of its own would write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.config import Config
from acclimate.runtime.engines.language import Decoder, Emitted, LanguageEngine, Sampling
from acclimate.runtime.engines.reference_language import ReferenceLanguageEngine, reference_language
from tests.runtime.rpc.loopback import Loopback, serving

MODEL = "bytes"
CORPUS = "the quick brown fox jumps over the lazy dog; " * 20
PROMPT = "the quick "


def engine() -> ReferenceLanguageEngine:
    return reference_language(CORPUS, name=MODEL)


def config(**sections: Any) -> Config:
    """Defaults, on free ports."""
    return Config(server={"grpc_port": 0, "http_port": 0}, **sections)  # type: ignore[arg-type]


@contextmanager
def writing(model: Any = None, **sections: Any) -> Iterator[Loopback]:
    """Serve the small model until the block ends."""
    with serving(config(**sections), languages={MODEL: model or engine()}) as running:
        try:
            yield running
        finally:
            if isinstance(model, Held):
                model.go.set()


def alone(
    language: LanguageEngine, sampling: Sampling, theta: Float | None = None, prompt: str = PROMPT
) -> list[Emitted]:
    """What a decoder with one slot writes."""
    decoder, tokens = language.decoder(1), list[Emitted]()
    decoder.admit(language.tokenizer.encode(prompt), language.source.theta if theta is None else theta, sampling)
    while not tokens or not tokens[-1].finish:
        tokens += decoder.step()
    return tokens


class Held:
    """The small model, whose decoder waits before each step until `go` is set, but for so many `steps`."""

    def __init__(self) -> None:
        self._engine = engine()
        self.steps = 0
        self.go = threading.Event()
        self.decoders: list[HeldDecoder] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def decoder(self, slots: int) -> Decoder:
        self.decoders.append(HeldDecoder(self._engine.decoder(slots), self))
        return self.decoders[-1]


class HeldDecoder:
    """See `Held`."""

    def __init__(self, inner: Decoder, held: Held) -> None:
        self._inner, self._held = inner, held
        self.broken = False

    @property
    def free(self) -> int:
        return self._inner.free

    def admit(self, prompt: Ids, theta: Float, sampling: Sampling) -> int:
        return self._inner.admit(prompt, theta, sampling)

    def step(self) -> list[Emitted]:
        if self._held.steps:
            self._held.steps -= 1
        else:
            self._held.go.wait(60)
        if self.broken:
            raise RuntimeError("the decoder cannot")
        return self._inner.step()

    def release(self, slot: int) -> None:
        self._inner.release(slot)


def moved(language: LanguageEngine, seed: int = 1, scale: float = 0.3) -> Float:
    """A row of theta that is not the source's."""
    source = language.source.theta
    return (source + scale * np.random.default_rng(seed).normal(size=source.shape)).astype(np.float32)
