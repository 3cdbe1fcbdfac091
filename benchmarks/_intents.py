"""Users of BANKING77 (Casanueva et al. 2020, arXiv 2003.04807): a few intents each, some examples, and what they ask.

Two sets of users share no intent. What was chosen by trying, the recipe's parameters above all, was chosen on the
`tuning` users; figures are of the `reported` ones.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.units import Example
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.choosing import Question, candidate_logprobs

INTENTS, QUERIES, TUNING = 8, 80, 28
AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class User:
    """One session: its intents, `examples` and `queries` as pairs of a text and the number of its intent."""

    labels: tuple[str, ...]
    examples: tuple[tuple[str, int], ...]
    queries: tuple[tuple[str, int], ...]


def require(folder: Path) -> None:
    """End with a sentence where the data is not there."""
    missing = [name for name in ("banking77_train.csv", "banking77_test.csv") if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder} has no {', '.join(missing)}; give the folder of BANKING77 with --data")


def users(folder: Path, group: str, count: int, shots: int, seed: int) -> list[User]:
    """Users whose intents are of their group; `count` and `shots` change no user's intents and queries."""
    train, test = _read(folder / "banking77_train.csv"), _read(folder / "banking77_test.csv")
    names = sorted(train)
    order = np.random.default_rng(0).permutation(len(names))
    own = [names[at] for at in (order[:TUNING] if group == "tuning" else order[TUNING:])]
    return [_user(train, test, own, shots, np.random.default_rng([seed, number])) for number in range(count)]


def _user(
    train: dict[str, list[str]],
    test: dict[str, list[str]],
    names: Sequence[str],
    shots: int,
    random: np.random.Generator,
) -> User:
    chosen = [names[at] for at in random.choice(len(names), INTENTS, replace=False)]
    queries = [
        (test[name][at], number)
        for number, name in enumerate(chosen)
        for at in random.choice(len(test[name]), QUERIES // INTENTS, replace=False)
    ]
    drawn = [(name, random.permutation(len(train[name]))[:shots]) for name in chosen]
    examples = [(train[name][at], number) for number, (name, places) in enumerate(drawn) for at in places]
    shuffled = [examples[at] for at in random.permutation(len(examples))]
    return User(tuple(name.replace("_", " ") for name in chosen), tuple(shuffled), tuple(queries))


def prompt(text: str) -> str:
    """What is asked."""
    return f"Query: {text}\nIntent:"


def candidates(engine: LanguageEngine, user: User) -> tuple[Ids, ...]:
    """The user's intents in words, each to the end of its line."""
    return tuple(engine.tokenizer.encode(f" {label}\n") for label in user.labels)


def lesson_of(engine: LanguageEngine, user: User) -> tuple[Example, ...]:
    """The user's examples, with the intents among which each answers."""
    known = candidates(engine, user)
    return tuple(Example(engine.tokenizer.encode(prompt(text)), known[at], known) for text, at in user.examples)


def in_line(engine: LanguageEngine, user: User) -> Ids:
    """The user's examples one after the other, as they stand before a query in context."""
    lines = "".join(f"{prompt(text)} {user.labels[at]}\n" for text, at in user.examples)
    return engine.tokenizer.encode(lines)


def label_scores(
    engine: LanguageEngine, asked: Sequence[User], theta: Float, *, in_context: bool, examples: bool = False
) -> list[NDArray[np.float32]]:
    """Log-probabilities `[N, 8]` of the intents for each user's queries, or for its examples, under `theta [S, P]`."""
    questions, counts = [], []
    for group, user in enumerate(asked):
        known = candidates(engine, user)
        context = in_line(engine, user) if in_context else engine.tokenizer.encode("")
        texts = user.examples if examples else user.queries
        counts.append(len(texts))
        questions += [Question(engine.tokenizer.encode(prompt(text)), known, context, group) for text, _ in texts]
    found = np.stack(candidate_logprobs(engine, questions, theta, AT_ONCE))
    return np.split(found, np.cumsum(counts)[:-1])


def calibrated(
    engine: LanguageEngine, asked: Sequence[User], theta: Float, scores: Sequence[NDArray[np.floating]]
) -> list[NDArray[np.floating]]:
    """Scores of the queries, less each intent's mean score over the user's own examples, under `theta [S, P]`."""
    own = label_scores(engine, asked, theta, in_context=False, examples=True)
    return [one - mine.mean(axis=0) for one, mine in zip(scores, own, strict=True)]


def accuracies(asked: Sequence[User], scores: Sequence[NDArray[np.floating]]) -> list[float]:
    """Of each user, see `accuracy`."""
    return [accuracy(user, one) for user, one in zip(asked, scores, strict=True)]


def accuracy(user: User, scores: NDArray[np.floating]) -> float:
    """Percent of the queries whose intent scores highest."""
    right = np.array([at for _, at in user.queries])
    return 100 * float((scores.argmax(axis=1) == right).mean())


def _read(path: Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["category"], []).append(" ".join(row["text"].split()))
    return texts
