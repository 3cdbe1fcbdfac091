"""A complete language engine in NumPy: bytes, a fading memory of those before, and two projections with adapters.

It ships, so that learning and generation can be run and tested without torch, against arithmetic that fits on a page.
With `x_t` the embedding of byte `t` and `c_t = x_t + fading c_(t-1)` what came before it:
`h_t = tanh([x_t, c_t] W1' + s [x_t, c_t] A1' B1')`, `logits_t = h_t W2' + s h_t A2' B2' + bias`, `s = alpha / rank`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import Ids, TokenRows, TokenScores, parents, scorable
from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.manifest import (
    LANGUAGE_TASK,
    REQUIRED_FILES,
    Calibration,
    Cost,
    FileEntry,
    Lora,
    Manifest,
    TensorSpec,
)
from acclimate.adapters.numerics import group_sum, log_softmax
from acclimate.adapters.source import Source
from acclimate.runtime.engines.language import Decoder, Message, Pullback
from acclimate.runtime.engines.reference_decoder import ReferenceDecoder

BEGIN, END, VOCABULARY = 256, 257, 258
RANK, ALPHA, FADING = 4, 8.0, np.float32(0.7)
SHAPES = {
    "memory.lora_A.weight": "lora.A",
    "memory.lora_B.weight": "lora.B",
    "head.lora_A.weight": "lora.A",
    "head.lora_B.weight": "lora.B",
}


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """UTF-8 bytes are the tokens; 256 begins a conversation, 257 ends a text."""

    def encode(self, text: str) -> Ids:
        """Bytes of the text."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def decode(self, ids: Ids) -> str:
        """The text of the bytes; what is no byte is left out, what is no UTF-8 replaced."""
        return bytes(int(token) for token in ids if token < BEGIN).decode(errors="replace")

    def chat(self, messages: Sequence[Message]) -> Ids:
        """A line for each turn, then the assistant's name."""
        lines = "".join(f"{message.role}: {message.content}\n" for message in messages) + "assistant: "
        return np.concatenate([np.array([BEGIN], np.int64), self.encode(lines)])


@dataclass(frozen=True, eq=False)
class ReferenceLanguageEngine:
    """Weights: `embedding [V, H]`, `memory [H, 2H]`, `head [V, H]`, `bias [V]`; `down` the source's two A matrices."""

    name: str
    embedding: Float
    memory: Float
    head: Float
    bias: Float
    down: tuple[Float, Float]
    context: int = 512

    @cached_property
    def manifest(self) -> Manifest:
        """As an exporter would describe it; the graphs it lists do not exist."""
        width = self.embedding.shape[1]
        shapes = ((RANK, 2 * width), (width, RANK), (RANK, width), (VOCABULARY, RANK))
        kinds = zip(SHAPES, SHAPES.values(), shapes, strict=True)
        nothing = FileEntry(sha256="0" * 64, bytes=0)
        return Manifest(
            name=self.name,
            version="1",
            task=LANGUAGE_TASK,
            classes=(),
            inputs=(TensorSpec("text", "BYTES", (-1,)),),
            outputs=(TensorSpec("text", "BYTES", (-1,)),),
            parameters=Layout.of([(name, kind, shape) for name, kind, shape in kinds]),  # type: ignore[misc]
            statistics=Layout.of([]),
            sites=(),
            calibration=Calibration(0.0, False, 0.0, 0.0, 0.0),
            cost=Cost(self.flops_per_token, 3 * self.flops_per_token, 0.01, 0.03),
            files=dict.fromkeys(REQUIRED_FILES, nothing),
            provenance={"engine": "reference"},
            lora=tuple(
                Lora(name, f"{name}.lora_A.weight", f"{name}.lora_B.weight", RANK, ALPHA) for name in ("memory", "head")
            ),
        )

    @cached_property
    def source(self) -> Source:
        """The A matrices as made, zeros in B, a Fisher of ones; no statistics, classes or canaries."""
        layout = self.manifest.parameters
        theta = np.zeros(layout.size, np.float32)
        for entry, values in zip(layout.slices[::2], self.down, strict=True):
            theta[entry.span] = values.reshape(-1)
        empty = np.zeros(0, np.float32)
        return Source(
            parameters=layout,
            statistics=self.manifest.statistics,
            theta=theta,
            stats=empty,
            fisher=np.ones(layout.size, np.float32),
            class_prior=empty,
            canary_inputs=empty,
            canary_labels=np.zeros(0, np.int64),
            calibration=self.manifest.calibration,
        )

    @property
    def tokenizer(self) -> ByteTokenizer:
        """Bytes."""
        return ByteTokenizer()

    @property
    def flops_per_token(self) -> float:
        """Of the two projections."""
        return 2.0 * (self.memory.size + self.head.size)

    def score(self, rows: TokenRows, theta: Float) -> TokenScores:
        """Scores of rows under `theta [S, P]`."""
        return self._scores(rows, log_softmax(self._forward(rows, theta)[2]))

    def vjp(self, rows: TokenRows, theta: Float, cotangents: TokenScores | Pullback) -> tuple[TokenScores, Float]:
        """Scores, and the gradient `[S, P]`, by the chain rule written out."""
        inputs, hidden, logits = self._forward(rows, theta)
        log_p = log_softmax(logits)
        scores = self._scores(rows, log_p)
        upstream = self._upstream(rows, log_p, cotangents(scores) if callable(cotangents) else cotangents)
        a1, b1, a2, b2 = self._adapters(theta, rows.group)
        grad_a2, grad_b2, grad_q = _low_rank(hidden, a2, b2, upstream)
        grad_h = (upstream @ self.head + grad_q @ a2) * (1 - hidden**2)
        grad_a1, grad_b1, _ = _low_rank(inputs, a1, b1, grad_h)
        parts = [part.reshape(len(part), -1) for part in (grad_a1, grad_b1, grad_a2, grad_b2)]
        gradient = group_sum(np.concatenate(parts, axis=1), rows.group, len(theta)).astype(theta.dtype)
        return scores, gradient

    def decoder(self, slots: int) -> Decoder:
        """An empty decoder."""
        width = self.embedding.shape[1]
        return ReferenceDecoder(self.advance, self.tokenizer, width=width, context=self.context, slots=slots, end=END)

    def advance(self, memory: Float, tokens: Ids, theta: Float) -> tuple[Float, Float]:
        """The memory `[B, H]` and logits `[B, V]` after one more token `[B]` each, under `theta [B, P]`."""
        embedded = self.embedding[tokens]
        memory = embedded + FADING * memory
        inputs = np.concatenate([embedded, memory], axis=1)[:, np.newaxis]
        return memory, self._project(inputs, theta, np.arange(len(theta)))[1][:, 0]

    def close(self) -> None:
        """Nothing to release."""

    def _forward(self, rows: TokenRows, theta: Float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Inputs `[B, T, 2H]`, hidden `[B, T, H]` and logits `[B, T, V]`."""
        embedded: NDArray[Any] = self.embedding[rows.ids]
        memory, before, each = embedded.copy(), parents(rows), np.arange(len(embedded))
        for t in range(embedded.shape[1]):
            earlier = memory[each, np.maximum(before[:, t], 0)]
            memory[:, t] += np.where(before[:, t, np.newaxis] >= 0, FADING * earlier, 0)
        inputs = np.concatenate([embedded, memory], axis=2)
        return (inputs, *self._project(inputs, theta, rows.group))

    def _project(self, inputs: Float, theta: Float, group: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        a1, b1, a2, b2 = self._adapters(theta, group)
        scale = np.float32(ALPHA / RANK)
        low: NDArray[Any] = inputs @ a1.swapaxes(1, 2) @ b1.swapaxes(1, 2)
        hidden: NDArray[Any] = np.tanh(inputs @ self.memory.T + scale * low)
        low = hidden @ a2.swapaxes(1, 2) @ b2.swapaxes(1, 2)
        return hidden, hidden @ self.head.T + scale * low + self.bias

    def _adapters(self, theta: Float, group: NDArray[np.intp]) -> tuple[Float, ...]:
        """A and B of both projections for each row of a batch."""
        return tuple(
            theta[:, entry.span].reshape(len(theta), *entry.shape)[group] for entry in self.manifest.parameters.slices
        )

    def _scores(self, rows: TokenRows, log_p: Float) -> TokenScores:
        before, each = np.maximum(parents(rows), 0), np.arange(len(log_p))[:, np.newaxis]
        scored = np.where(scorable(rows), log_p[each, before, rows.ids], 0)
        entropy = -(np.exp(log_p) * log_p).sum(axis=2)
        return TokenScores(scored, np.where(scorable(rows), entropy[each, before], 0))

    def _upstream(self, rows: TokenRows, log_p: Float, cotangents: TokenScores) -> Float:
        """Cotangents of the logits: `onehot - p` for a log-probability, `-p (log p + H)` for an entropy."""
        before, (b, t) = parents(rows), np.nonzero(scorable(rows))
        onto, share = (b, before[b, t]), np.zeros(log_p.shape[:2], log_p.dtype)
        p = np.exp(log_p)
        entropy = -(p * log_p).sum(axis=2)
        np.add.at(share, onto, cotangents.logprob[b, t])
        upstream = -share[..., np.newaxis] * p
        np.add.at(upstream, (*onto, rows.ids[b, t]), cotangents.logprob[b, t])
        share[:] = 0
        np.add.at(share, onto, cotangents.entropy[b, t])
        result: Float = upstream - share[..., np.newaxis] * p * (log_p + entropy[..., np.newaxis])
        return result


def _low_rank(
    inputs: NDArray[Any], a: NDArray[Any], b: NDArray[Any], upstream: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gradients of `s inputs A' B'`: of A, of B, and of `inputs A'`."""
    scale = np.float32(ALPHA / RANK)
    low, grad_low = inputs @ a.swapaxes(1, 2), scale * upstream @ b
    return grad_low.swapaxes(1, 2) @ inputs, scale * upstream.swapaxes(1, 2) @ low, grad_low


def reference_language(
    text: str = "", width: int = 16, seed: int = 0, name: str = "reference-language"
) -> ReferenceLanguageEngine:
    """An engine of random weights that knows how often each byte occurs in `text`, and nothing else of it."""
    random = np.random.default_rng(seed)
    counts = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=VOCABULARY) + 0.1
    return ReferenceLanguageEngine(
        name=name,
        embedding=random.normal(0, 0.5, (VOCABULARY, width)).astype(np.float32),
        memory=random.normal(0, 0.5 / width**0.5, (width, 2 * width)).astype(np.float32),
        head=random.normal(0, 0.5 / width**0.5, (VOCABULARY, width)).astype(np.float32),
        bias=np.log(counts / counts.sum()).astype(np.float32),
        down=(
            random.normal(0, (2 * width) ** -0.5, (RANK, 2 * width)).astype(np.float32),
            random.normal(0, width**-0.5, (RANK, width)).astype(np.float32),
        ),
    )
