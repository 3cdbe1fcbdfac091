"""The protocol between what learns and generates text, and whatever computes a language model.

A session's parameters are low-rank updates of the model's projections: a row `theta [P]` of the layout in the
manifest, zeros in every `lora.B` at the source. Rows of one batch may belong to many sessions; nothing outside
`engines/` knows which engine it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from acclimate.adapters.language import Ids, TokenRows, TokenScores
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.source import Source

Pullback = Callable[[TokenScores], TokenScores]
"""Cotangents that depend on the scores; it is called once, with the scores of all rows."""

Finish = Literal["", "eos", "stop", "length", "context"]
"""Why a text ended: the model said so, a stop string, `max_tokens`, no room in the context; empty: it goes on."""


class LanguageModelError(ValueError):
    """A language model cannot be loaded; the message names it, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a text is drawn. Temperature 0 is greedy; `top_p` keeps the smallest set of tokens of that probability."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Emitted:
    """A token of the text in a slot. `text` is what it adds, empty while a character is incomplete or may be a stop.

    `logprob` is of the unadjusted distribution (temperature 1, all tokens), `entropy` that distribution's, in nats.
    """

    slot: int
    token: int
    text: str
    logprob: float
    entropy: float
    finish: Finish = ""


class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> Ids:
        """Ids `[t]` of a text, without special tokens added."""

    def decode(self, ids: Ids) -> str:
        """The text of ids."""

    def chat(self, messages: Sequence[Message]) -> Ids:
        """Ids of a conversation in the model's own template, up to where the assistant's next turn begins."""


class Decoder(Protocol):
    """Texts being generated together, each with parameters of its own; used by one thread at a time.

    A text keeps the parameters it was admitted with to its end.
    """

    @property
    def free(self) -> int:
        """Slots that are not in use."""

    def admit(self, prompt: Ids, theta: Float, sampling: Sampling) -> int:
        """Begin a text after `prompt [t]` with a session's `theta [P]`; the slot it occupies until it finishes.

        Raises:
            InvalidArgument: the prompt is empty or leaves no room in the context. ResourceExhausted: no slot is free.
        """

    def step(self) -> list[Emitted]:
        """Extend every admitted text by one token; a text that finishes gives its slot back.

        A long prompt is read over several steps, in which its text has no token yet.
        """

    def release(self, slot: int) -> None:
        """Give up the text in a slot; harmless where there is none."""


class LanguageEngine(Protocol):
    """A loaded language model. Arrays passed in are never written; `score` and `vjp` are safe from several threads."""

    @property
    def manifest(self) -> Manifest:
        """Task `text-generation`; `parameters` and `lora` describe theta, `statistics` is empty."""

    @property
    def source(self) -> Source:
        """The unadapted row of theta: what a new session begins with."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""

    @property
    def context(self) -> int:
        """Most tokens of a row."""

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass; a gradient takes about twice that besides."""

    def score(self, rows: TokenRows, theta: Float) -> TokenScores:
        """Scores of rows under `theta [S, P]`."""

    def vjp(self, rows: TokenRows, theta: Float, cotangents: TokenScores | Pullback) -> tuple[TokenScores, Float]:
        """Scores, and the gradient `[S, P]` of `(scores * cotangents).sum()`, summed over each session's rows.

        Cotangents that depend on the scores are a function of them, so that one forward pass is enough.
        """

    def decoder(self, slots: int) -> Decoder:
        """An empty decoder for up to `slots` texts at once."""

    def close(self) -> None:
        """Release what the engine holds; calling it twice is harmless."""
