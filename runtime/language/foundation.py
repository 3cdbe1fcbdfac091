"""What all sessions of a language model share while they learn: its canaries, and what they say of the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.objectives import likelihood
from acclimate.adapters.learning.units import Stack, Tree, Unit, stack
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.canary_texts import CANARIES


@dataclass(frozen=True, slots=True, eq=False)
class Foundation:
    """Canaries of K texts in groups, what the source says of them, and its Fisher information.

    Attributes:
        units: K of them; their completions count, and anchor.
        group: `[K]` which group each belongs to.
        logprob: `[K, T]` of their tokens under the source, where they count.
        loss: `[G]` nats a token under the source.
        fisher: `[P]` mean squared gradient of the canaries' loss, scaled to a mean of 1.
    """

    units: tuple[Unit, ...]
    stacked: Stack
    group: NDArray[np.int64]
    logprob: Float
    loss: Float
    fisher: Float

    @property
    def tokens(self) -> int:
        """Tokens of one look at the canaries."""
        return int(self.stacked.lengths.sum())


def foundation(engine: LanguageEngine) -> Foundation:
    """Measure the source on its canaries; once for a model, it takes about as long as one small step."""
    units, group = [], []
    for number, exchanges in enumerate(CANARIES.values()):
        for messages, answer in exchanges:
            tree = Tree()
            tree.add(engine.tokenizer.encode(answer), tree.add(engine.tokenizer.chat(messages)), weight=1.0)
            units.append(tree.unit(anchored=1.0))
            group.append(number)
    stacked = stack(units)
    numbers = np.arange(len(units))
    rows, targets = stacked.take(numbers, numbers)
    theta = np.repeat(engine.source.theta[np.newaxis], len(units), axis=0)
    scores, gradient = engine.vjp(rows, theta, likelihood_of(stacked))
    fisher = (gradient.astype(np.float64) ** 2).mean(axis=0)
    fisher = (fisher / max(float(fisher.mean()), 1e-30)).astype(np.float32)
    nats, tokens = -(targets.weight * scores.logprob).sum(axis=1), targets.weight.sum(axis=1)
    loss = _by_group(nats, tokens, np.array(group))
    return Foundation(tuple(units), stacked, np.array(group), scores.logprob, loss, fisher)


def canary_losses(engine: LanguageEngine, base: Foundation, theta: Float, at_once: int) -> Float:
    """Nats a token `[S, G]` of each group of canaries under `theta [S, P]`."""
    sessions, count = len(theta), len(base.units)
    index = np.tile(np.arange(count), sessions)
    rows, targets = base.stacked.take(index, np.repeat(np.arange(sessions), count))
    scores = score_in_parts(engine, rows, theta, at_once)
    nats = -(targets.weight * scores.logprob).sum(axis=1).reshape(sessions, count)
    tokens = targets.weight.sum(axis=1).reshape(sessions, count)
    return np.stack([_by_group(nats[at], tokens[at], base.group) for at in range(sessions)])


def likelihood_of(stacked: Stack) -> TokenScores:
    """Cotangents of every unit's own mean loss; they do not depend on the scores."""
    numbers = np.arange(len(stacked.lengths))
    rows, targets = stacked.take(numbers, numbers)
    nothing = TokenScores(np.zeros(rows.ids.shape, np.float32), np.zeros(rows.ids.shape, np.float32))
    return likelihood(nothing, rows, targets, len(numbers)).cotangents


def score_in_parts(engine: LanguageEngine, rows: TokenRows, theta: Float, at_once: int) -> TokenScores:
    """Scores of rows, so many at once that they and their padding are at most `at_once` tokens."""
    parts = [engine.score(part, theta) for part in in_parts(rows, at_once)]
    if len(parts) == 1:
        return parts[0]
    return TokenScores(
        np.concatenate([part.logprob for part in parts]), np.concatenate([part.entropy for part in parts])
    )


def in_parts(rows: TokenRows, at_once: int) -> list[TokenRows]:
    """Rows in parts of at most `at_once` tokens, padding included; a longer row is a part of its own."""
    size = max(at_once // max(rows.ids.shape[1], 1), 1)
    return [part_of(rows, slice(start, start + size)) for start in range(0, len(rows.ids), size)] or [rows]


def part_of(rows: TokenRows, span: slice) -> TokenRows:
    """Some of the rows."""
    scored = None if rows.scored is None else rows.scored[span]
    parent = None if rows.parent is None else rows.parent[span]
    return TokenRows(rows.ids[span], rows.lengths[span], rows.group[span], scored, parent)


def gradient_in_parts(
    engine: LanguageEngine,
    rows: TokenRows,
    theta: Float,
    loss: Callable[[TokenScores], TokenScores],
    at_once: int,
) -> Float:
    """The gradient `[S, P]` of a loss whose cotangents depend on the scores."""
    if rows.ids.size <= at_once:
        return engine.vjp(rows, theta, loss)[1]
    cotangents = loss(score_in_parts(engine, rows, theta, at_once))
    total, start = np.zeros_like(theta), 0
    for part in in_parts(rows, at_once):
        span = slice(start, start + len(part.ids))
        start = span.stop
        own = TokenScores(cotangents.logprob[span], cotangents.entropy[span])
        total += engine.vjp(part, theta, own)[1]
    return total


def _by_group(nats: Float, tokens: Float, group: NDArray[np.int64]) -> Float:
    """Nats a token of each group."""
    total = np.bincount(group, nats) / np.maximum(np.bincount(group, tokens), 1e-12)
    return total.astype(np.float32)
