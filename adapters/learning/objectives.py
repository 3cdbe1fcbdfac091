"""Losses of token scores, each session's own, with their cotangents.

Every function answers the loss `[S]` of each session and its gradient with respect to the scores, so that one `vjp` of
the engine gives each session the gradient of its own loss. Sessions of a batch do not touch each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.units import NONE, Targets
from acclimate.adapters.numerics import group_sum, log_softmax

FARTHEST = 5.0
"""Exponentials of more nats than this are not taken, so that no token outweighs all others: e^5 is about 150."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses `[S]` of the sessions, and the gradient of their sum with respect to the scores."""

    value: Float
    cotangents: TokenScores

    def plus(self, other: Loss, weight: float = 1.0) -> Loss:
        """The sum of two losses of the same rows."""
        mine, its, factor = self.cotangents, other.cotangents, np.float32(weight)
        cotangents = TokenScores(mine.logprob + factor * its.logprob, mine.entropy + factor * its.entropy)
        return Loss(self.value + factor * other.value, cotangents)


def likelihood(scores: TokenScores, rows: TokenRows, targets: Targets, sessions: int) -> Loss:
    """Mean negative log-probability of the tokens that count, by their weight: `-sum w log p / sum w`."""
    share = _shares(targets.weight, rows.group, sessions)
    value = -_each((share * scores.logprob).sum(axis=1), rows.group, sessions)
    return Loss(value, _only(np.negative(share)))


def contrast(
    scores: TokenScores, rows: TokenRows, targets: Targets, sessions: int, *, temperature: float = 1.0
) -> Loss:
    """Cross-entropy of the softmax over candidates of their log-probabilities, a mean over the units that have some.

    It is what classification by candidates is judged by: only how the right one compares with the others counts.
    The likelihood of units without candidates is added.
    """
    chosen = targets.gold != NONE
    if not chosen.any():
        return likelihood(scores, rows, targets, sessions)
    each, b, t, n = np.arange(len(chosen)), *_branches(targets, chosen), int(targets.branch.max()) + 1
    log_p = log_softmax(candidate_scores(scores, targets, n) / np.float32(temperature))
    gold = np.where(chosen, targets.gold, 0)
    count = _each(chosen.astype(np.float32), rows.group, sessions)
    share = (chosen / np.maximum(count[rows.group], 1) / temperature).astype(np.float32)
    slope = np.exp(log_p)
    slope[each, gold] -= 1
    cotangent = np.zeros_like(scores.logprob)
    cotangent[b, t] = (slope * share[:, np.newaxis])[b, targets.branch[b, t]]
    losses = -log_p[each, gold] * share * np.float32(temperature)
    loss = Loss(_each(np.where(chosen, losses, 0), rows.group, sessions), _only(cotangent))
    if chosen.all():
        return loss
    free = replace(targets, weight=np.where(chosen[:, np.newaxis], np.float32(0), targets.weight))
    return loss.plus(likelihood(scores, rows, free, sessions))


def input_perplexity(
    scores: TokenScores,
    rows: TokenRows,
    targets: Targets,
    sessions: int,
    *,
    threshold: float = 3.0,
    scale: float = 0.1,
) -> Loss:
    """Perplexity of what is read, of the samples that surprise: `S(x) CE(x)`, `S = 0.1 exp(CE - 3)` where `CE > 3`.

    CE is a sample's mean in nats; samples below the threshold count for nothing, and S is no function of theta (TLM:
    Hu et al. 2025, "Test-time learning for large language models", arXiv 2505.20633, eqs. 3 to 5).
    """
    total = np.maximum(targets.weight.sum(axis=1, keepdims=True), np.float32(1e-12))
    share = targets.weight / total
    mean = -(share * scores.logprob).sum(axis=1)
    weigh = np.where(mean > threshold, scale * np.exp(np.minimum(mean - threshold, FARTHEST)), 0).astype(np.float32)
    samples = np.maximum(_each(np.ones_like(mean), rows.group, sessions), 1)
    each = (weigh / samples[rows.group]).astype(np.float32)
    value = _each(each * mean, rows.group, sessions)
    return Loss(value, _only(-each[:, np.newaxis] * share))


def divergence(scores: TokenScores, base: Float, rows: TokenRows, targets: Targets, sessions: int) -> Loss:
    """How far the model has gone from the source on the tokens that anchor it: `r - 1 - log r`, `r = p / p0`.

    A mean, weighted by the anchors and linear beyond `log r = 5`, of the estimate of `KL(p0 || p)` that is never
    negative and 0 only where both say the same (Schulman 2020, "Approximating KL divergence", k3). `base [B, T]` holds
    `log p0`. Scores hold one token's probability of a distribution: on texts that the source did not write it is a
    penalty, not the divergence.
    """
    share = _shares(targets.anchor, rows.group, sessions)
    log_ratio = scores.logprob - base
    ratio = np.exp(np.minimum(log_ratio, FARTHEST))
    beyond = np.maximum(log_ratio - FARTHEST, 0) * (ratio - 1)
    value = _each((share * (ratio - 1 - np.minimum(log_ratio, FARTHEST) + beyond)).sum(axis=1), rows.group, sessions)
    return Loss(value, _only(share * (ratio - 1)))


def policy(
    scores: TokenScores,
    rows: TokenRows,
    targets: Targets,
    sessions: int,
    *,
    forking: float = 0.0,
    low: float = 0.0,
    high: float = np.inf,
    band: float = 0.0,
) -> Loss:
    """Policy gradient on texts that the model itself wrote: `-mean A log p` over their tokens, with a band of entropy.

    Advantages are those of `votes.advantages` (TTRL: Zuo et al. 2025, arXiv 2504.16084, with GRPO's normalisation).
    Only the share of a text's tokens with the highest entropies, `1 - forking`, is updated, where the text might have
    gone another way, and entropy outside `[low, high]` nats costs `band` times its distance there (SPINE and ETTRL;
    their constants are not published, and these are ours).
    """
    counted = targets.weight > 0
    if forking > 0 and counted.any():
        some = counted.any(axis=1)
        cut = np.zeros((len(counted), 1), scores.entropy.dtype)
        told = np.where(counted, scores.entropy, np.nan)[some]
        cut[some] = np.nanquantile(told, forking, axis=1, keepdims=True, method="lower")
        counted = counted & (scores.entropy >= cut)
    share = _shares(np.where(counted, targets.weight, 0).astype(np.float32), rows.group, sessions)
    pushed = share * targets.advantage[:, np.newaxis]
    below, above = low - scores.entropy, scores.entropy - high
    outside = np.maximum(np.maximum(below, above), 0) if band else np.zeros_like(scores.entropy)
    value = (-pushed * scores.logprob + np.float32(band) * share * outside).sum(axis=1)
    slope = np.where(outside > 0, np.where(below > above, -1, 1), 0) * np.float32(band) * share
    return Loss(_each(value, rows.group, sessions), TokenScores((-pushed).astype(np.float32), slope.astype(np.float32)))


def candidate_scores(scores: TokenScores, targets: Targets, candidates: int) -> Float:
    """Log-probabilities `[B, K]` of whole candidates: sums over their tokens."""
    found = np.zeros((len(targets.gold), candidates), np.float32)
    b, t = _branches(targets, targets.gold != NONE)
    np.add.at(found, (b, targets.branch[b, t]), scores.logprob[b, t])
    return found


def sample_losses(scores: TokenScores, targets: Targets, *, temperature: float = 1.0) -> tuple[Float, Float, Any]:
    """The loss of each sample `[N]`, tokens behind it `[N]` and its row `[N]`: what a held-out check compares.

    A unit with candidates is one sample, judged by contrast; of another, every branch is one, judged by the mean
    negative log-probability of its tokens that count.
    """
    contrasted = np.flatnonzero(targets.gold != NONE)
    found = candidate_scores(scores, targets, int(targets.branch.max(initial=0)) + 1) / np.float32(temperature)
    losses = -log_softmax(found)[contrasted, targets.gold[contrasted]]
    b, t = np.nonzero((targets.weight > 0) & (targets.gold == NONE)[:, np.newaxis])
    width = int(targets.branch.max(initial=0)) + 2
    key, place = np.unique(b * width + targets.branch[b, t] + 1, return_inverse=True)
    tokens = np.bincount(place, targets.weight[b, t], minlength=len(key))
    total = np.bincount(place, -targets.weight[b, t] * scores.logprob[b, t], minlength=len(key))
    return (
        np.concatenate([losses, total / np.maximum(tokens, 1e-12)]).astype(np.float32),
        np.concatenate([np.ones(len(losses)), tokens]).astype(np.float32),
        np.concatenate([contrasted, key // width]),
    )


@dataclass(frozen=True, slots=True)
class Choices:
    """Of M questions with candidates.

    Attributes:
        contrast: `[M]` as in `contrast`, in nats.
        right: `[M]` whether the right candidate is the likeliest; a tie is not right.
        guess: `[M]` how often guessing would be right: one over the number of candidates.
        row: `[M]` the unit that asks.
    """

    contrast: Float
    right: NDArray[np.bool_]
    guess: Float
    row: NDArray[np.intp]


def choices(scores: TokenScores, targets: Targets) -> Choices:
    """How every question is answered: units with a `gold` candidate, and those of trees with `rivals`."""
    losses, right, guess, rows = list[Float](), list[NDArray[np.bool_]](), list[Float](), list[int]()
    for row in np.flatnonzero((targets.gold != NONE) | (targets.rivals > 0)):
        (tokens,) = np.nonzero(targets.branch[row] != NONE)
        branch, gold = targets.branch[row, tokens], max(int(targets.gold[row]), 0)
        width = int(targets.rivals[row]) or int(branch.max()) + 1
        size = -(-(int(branch.max()) + 1) // width) * width
        found = np.bincount(branch, scores.logprob[row, tokens], minlength=size).astype(np.float32)
        there = np.bincount(branch, minlength=size) > 0
        found[~there] = -np.inf
        each = found.reshape(-1, width)
        losses.append(-log_softmax(each)[:, gold])
        right.append(each[:, gold] > np.delete(each, gold, axis=1).max(axis=1, initial=-np.inf))
        guess.append((1 / there.reshape(-1, width).sum(axis=1)).astype(np.float32))
        rows += [int(row)] * len(each)
    if not rows:
        nothing = np.zeros(0, np.float32)
        return Choices(nothing, np.zeros(0, np.bool_), nothing, np.zeros(0, np.intp))
    contrasts = np.concatenate(losses).astype(np.float32)
    return Choices(contrasts, np.concatenate(right), np.concatenate(guess), np.array(rows, np.intp))


def _branches(targets: Targets, rows: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the tokens of candidates are, in those rows."""
    b, t = np.nonzero((targets.branch != NONE) & rows[:, np.newaxis])
    return b, t


def _each(values: NDArray[Any], group: NDArray[np.intp], sessions: int) -> Float:
    """Sums `[S]` of the rows of each session, in float32."""
    return group_sum(values, group, sessions).astype(np.float32)


def _shares(weight: Float, group: NDArray[np.intp], sessions: int) -> Float:
    """What each token `[B, T]` counts for in its session's mean."""
    total = _each(weight.sum(axis=1), group, sessions)
    share: NDArray[Any] = weight / np.maximum(total[group], np.float32(1e-12))[:, np.newaxis]
    return share


def _only(logprob: NDArray[Any]) -> TokenScores:
    """Cotangents of log-probabilities alone."""
    return TokenScores(logprob.astype(np.float32), np.zeros_like(logprob, np.float32))
