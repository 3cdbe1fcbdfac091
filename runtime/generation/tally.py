"""Counters of one language model, kept as plain numbers and pulled by the metrics collector."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from acclimate.runtime.histograms import SECONDS, Buckets


@dataclass(slots=True)
class LanguageTally:
    """What happened since the daemon started; touched on the event loop's thread only."""

    texts: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    learned_tokens: int = 0
    scored_tokens: int = 0
    first_token_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    between_tokens_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    lessons: Counter[str] = field(default_factory=Counter)
    lesson_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
