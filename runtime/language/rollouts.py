"""Texts that a model writes to learn from: drawn together, counted as votes or verified, worth what that says."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.lesson import Rollouts
from acclimate.adapters.learning.units import Example
from acclimate.adapters.learning.votes import advantages, majority, rewards
from acclimate.runtime.engines.language import LanguageEngine, Sampling
from acclimate.runtime.language.jobs import Job

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SLOTS = 32


@dataclass(frozen=True, slots=True)
class Drawn:
    """A text that was drawn: its tokens, what it says, and the sum of their log-probabilities."""

    ids: Ids
    text: str
    logprob: float
    finish: str


def last_word(text: str) -> Hashable | None:
    """The last number of a text, or else its last word in small letters; None where there is neither."""
    numbers = NUMBER.findall(text.replace(",", ""))
    if numbers:
        return str(float(numbers[-1]))
    words = re.findall(r"\w+", text.lower())
    return words[-1] if words else None


def draw(engine: LanguageEngine, asked: Sequence[tuple[Ids, Float, Sampling]], slots: int = SLOTS) -> list[Drawn]:
    """Texts after prompts, each under its own `theta [P]`, as many at once as there are slots."""
    decoder, waiting = engine.decoder(min(slots, max(len(asked), 1))), list(enumerate(asked))[::-1]
    owner: dict[int, int] = {}
    tokens: list[list[int]] = [[] for _ in asked]
    texts, logprob, finish = [""] * len(asked), [0.0] * len(asked), [""] * len(asked)
    while waiting or owner:
        while waiting and decoder.free:
            number, (prompt, theta, sampling) = waiting.pop()
            owner[decoder.admit(prompt, theta, sampling)] = number
        for emitted in decoder.step():
            number = owner[emitted.slot]
            tokens[number].append(emitted.token)
            texts[number] += emitted.text
            logprob[number] += emitted.logprob
            if emitted.finish:
                finish[number] = emitted.finish
                del owner[emitted.slot]
    return [
        Drawn(np.array(own, np.int64), text, score, why)
        for own, text, score, why in zip(tokens, texts, logprob, finish, strict=True)
    ]


def written(
    engine: LanguageEngine, how: Rollouts, lessons: Sequence[tuple[Job, Sequence[Example]]], theta: Float, epoch: int
) -> list[tuple[tuple[Example, ...], int]]:
    """For each row `[R, P]`: its prompts with texts of its own, each with its advantage, and the tokens this took.

    Prompts on whose texts the votes do not differ teach nothing, and are left out.
    """
    asked = []
    for row, (job, examples) in enumerate(lessons):
        for number, example in enumerate(examples):
            for sample in range(how.samples):
                seed = int(np.random.SeedSequence([job.seed, epoch, number, sample]).generate_state(1)[0])
                asked.append((example.prompt, theta[row], Sampling(how.max_tokens, how.temperature, seed=seed)))
    drawn = iter(draw(engine, asked))
    result = []
    for job, examples in lessons:
        told: list[Example] = []
        tokens = 0
        for example in examples:
            texts = [next(drawn) for _ in range(how.samples)]
            tokens += sum(len(text.ids) + len(example.prompt) for text in texts)
            worth = advantages(_rewards(job, engine.tokenizer.decode(example.prompt), texts))
            told += [
                Example(example.prompt, text.ids, advantage=float(value))
                for text, value in zip(texts, worth, strict=True)
                if value != 0 and len(text.ids)
            ]
        result.append((tuple(told), tokens))
    return result


def _rewards(job: Job, prompt: str, texts: Sequence[Drawn]) -> Float:
    if job.verifier is not None:
        return np.array([job.verifier(prompt, text.text) for text in texts], np.float32)
    answers = [(job.answer or last_word)(text.text) for text in texts]
    return rewards(answers, majority(answers)[0])
