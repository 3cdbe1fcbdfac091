"""Scores of texts, each alone or after the same context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acclimate.adapters.language import Ids, token_rows
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation.reading import prompt_ids
from acclimate.runtime.generation.types import GeneratedToken, Prompt, Scored

MAX_TEXTS = 1024
# Rows scored together: what a call keeps in memory does not grow with the request.
TOGETHER = 16


def score_ids(engine: LanguageEngine, context: Prompt | None, texts: Sequence[str]) -> list[tuple[int, Ids]]:
    """For each text the number of tokens that are only read, and all its tokens.

    Raises:
        InvalidArgument: there is no text, one too many, or one is empty, a single token after nothing, or too long.
    """
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidArgument(
            "TEXT_COUNT_INVALID", f"texts has {len(texts)} entries; send 1 to {MAX_TEXTS}", field="texts"
        )
    before = np.zeros(0, np.int64) if context is None else prompt_ids(engine, context)
    rows = []
    for place, text in enumerate(texts):
        ids = np.concatenate([before, engine.tokenizer.encode(text)])
        read = max(1, len(before))
        if len(ids) <= read:
            raise InvalidArgument(
                "TEXT_EMPTY",
                f"texts[{place}] has no token to score: a text needs one after the prompt, or two where there is none",
                field="texts",
            )
        if len(ids) > engine.context:
            raise InvalidArgument(
                "TEXT_TOO_LONG",
                f"texts[{place}] has {len(ids)} tokens with what comes before it; the model's context holds "
                f"{engine.context}",
                field="texts",
                tokens=len(ids),
                context=engine.context,
            )
        rows.append((read, ids))
    return rows


def scores(engine: LanguageEngine, rows: Sequence[tuple[int, Ids]], theta: Float, each_token: bool) -> list[Scored]:
    """Scores of tokens made by `score_ids`, under one session's `theta [P]`."""
    scored: list[Scored] = []
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        found = engine.score(token_rows([ids for _, ids in part], [0] * len(part)), theta[np.newaxis])
        for row, (read, ids) in enumerate(part):
            logprob, entropy = found.logprob[row, read : len(ids)], found.entropy[row, read : len(ids)]
            each: tuple[GeneratedToken, ...] = ()
            if each_token:
                facts = zip(ids[read:].tolist(), logprob.tolist(), entropy.tolist(), strict=True)
                each = tuple(
                    GeneratedToken(token, engine.tokenizer.decode(np.array([token])), float(log_p), float(nats))
                    for token, log_p, nats in facts
                )
            total = float(logprob.sum(dtype=np.float64))
            scored.append(Scored(total, perplexity(total, len(logprob)), len(logprob), each))
    return scored


def perplexity(logprob: float, tokens: int) -> float:
    """`exp(-logprob / tokens)`; what no float holds is infinite."""
    try:
        return math.exp(-logprob / tokens)
    except OverflowError:
        return math.inf
