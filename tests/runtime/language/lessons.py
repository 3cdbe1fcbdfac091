"""A small engine, and lessons on which something, nothing or harm is to be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from acclimate.adapters.learning.units import Example
from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.engines.reference_language import ReferenceLanguageEngine, reference_language
from acclimate.runtime.language.canary_texts import CANARIES
from acclimate.runtime.language.jobs import Job, LearningBudget, Learnt, Progress
from acclimate.runtime.language.rollouts import draw

LABELS = ("red", "green", "blue")


def engine() -> ReferenceLanguageEngine:
    """It knows how often each letter of the canaries occurs."""
    texts = [answer + " " + messages[0].content for group in CANARIES.values() for messages, answer in group]
    return reference_language(" ".join(texts))


def example(prompt: str, completion: str, *candidates: str) -> Example:
    def ids(text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    return Example(ids(prompt), ids(completion), tuple(ids(candidate) for candidate in candidates))


def text(ids: np.ndarray) -> str:
    """The inverse of what `example` does."""
    return ids.astype(np.uint8).tobytes().decode()


def colours(count: int = 24) -> tuple[Example, ...]:
    """Each of three words has a colour."""
    return tuple(example(f"{'axz'[n % 3]}{n // 3} is ", LABELS[n % 3], *LABELS) for n in range(count))


def coins(count: int = 16, seed: int = 0) -> tuple[Example, ...]:
    """Nothing to learn: each answer is as often one as the other, whatever the question."""
    random = np.random.default_rng(seed)
    answers = random.permutation([n % 2 for n in range(count)])
    words = ["".join(chr(97 + c) for c in random.integers(0, 26, 4)) for _ in range(count)]
    return tuple(
        example(f"{word} is ", ("ab", "ba")[answer], "ab", "ba") for word, answer in zip(words, answers, strict=True)
    )


def own_texts(model: ReferenceLanguageEngine, count: int = 20, seed: int = 0) -> tuple[Example, ...]:
    """What the source writes by itself, at temperature 1."""
    sampling = Sampling(12, temperature=1.0)
    prompts = [model.tokenizer.encode(f"{chr(97 + n)} ") for n in range(count)]
    asked = [(p, model.source.theta, replace(sampling, seed=100 * seed + n)) for n, p in enumerate(prompts)]
    return tuple(Example(p, text.ids) for p, text in zip(prompts, draw(model, asked), strict=True))


def documents() -> tuple[Example, ...]:
    pairs = [("cat", "mat"), ("dog", "log"), ("cow", "bow"), ("rat", "hat"), ("pig", "wig")]
    return tuple(example(f"THE {a.upper()} SAT ON THE {b.upper()}; " * 3, "") for a, b in pairs)


def job(session: str, theta: np.ndarray, examples: tuple[Example, ...], **given) -> Job:
    if "budget" not in given:
        given["budget"] = LearningBudget()
    return Job(session, theta, examples, **given)


@dataclass
class Clock:
    """Seconds that pass by being asked for."""

    tick: float = 0.0
    at: float = field(default=0.0)

    def __call__(self) -> float:
        self.at += self.tick
        return self.at


def results(records: Iterator[Progress | Learnt]) -> dict[str, Learnt]:
    return {record.session: record for record in records if isinstance(record, Learnt)}
