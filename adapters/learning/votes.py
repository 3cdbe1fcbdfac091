"""Answers that many texts give to one question: which is the majority's, and what each text is worth by it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float


def majority(
    answers: Sequence[Hashable | None], weights: Sequence[float] | None = None
) -> tuple[Hashable | None, float]:
    """The answer with the most votes, and its share of all; the first of equals; None does not vote.

    Self-consistency (Wang et al. 2023, arXiv 2203.11171); `weights` make it a weighted vote.
    """
    votes: dict[Hashable, float] = {}
    for at, answer in enumerate(answers):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + (1.0 if weights is None else weights[at])
    if not votes:
        return None, 0.0
    best = max(votes, key=lambda answer: votes[answer])
    return best, votes[best] / (len(answers) if weights is None else max(sum(weights), 1e-12))


def rewards(answers: Sequence[Hashable | None], agreed: Hashable | None) -> Float:
    """1 for every text `[N]` that gives the agreed answer, else 0 (TTRL: Zuo et al. 2025, arXiv 2504.16084, eq. 2)."""
    return np.array([answer is not None and answer == agreed for answer in answers], np.float32)


def advantages(reward: Float) -> Float:
    """`(r - mean) / std` over the texts of one question `[N]`; zeros where all are alike (GRPO: arXiv 2402.03300)."""
    spread = reward.std()
    if spread < 1e-6:
        return np.zeros_like(reward)
    result: Float = ((reward - reward.mean()) / spread).astype(np.float32)
    return result


def vote(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Log of the mean probability `[B, K]` over ways to ask `[W, B, K]`, each normalised over the candidates."""
    shifted = scores - scores.max(axis=2, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=2, keepdims=True)
    result: NDArray[np.floating] = np.log(np.maximum(p.mean(axis=0), 1e-30))
    return result
