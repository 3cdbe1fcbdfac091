"""Tasks of BIG-Bench Hard: demonstrations, questions, and how an answer is found and judged."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.transformations import answer_back, answer_there, options, reorder
from acclimate.adapters.learning.units import Example
from acclimate.adapters.learning.votes import vote
from acclimate.runtime.engines.language import LanguageEngine, Sampling
from acclimate.runtime.language.choosing import Question, candidate_logprobs
from acclimate.runtime.language.rollouts import draw
from benchmarks._report import Value

CLOSED = 20
"""Tasks with more different answers than this are written, not chosen."""
ITEM = re.compile(r"^- (.+?)\s*$", re.MULTILINE)
AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Task:
    """`shown` and `asked` are pairs of input and target; `answers`, all targets of the task where they are few."""

    name: str
    shown: tuple[tuple[str, str], ...]
    asked: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]


def names(folder: Path, wanted: Sequence[str]) -> list[str]:
    """The tasks that are there, or those that are wanted.

    Raises:
        SystemExit: there is none, or one that is wanted is missing.
    """
    there = sorted(path.stem for path in folder.glob("*.json"))
    missing = sorted(set(wanted) - set(there))
    if missing or not there:
        raise SystemExit(f"{folder} has no {', '.join(missing) or 'tasks'}; give the folder of BIG-Bench Hard (--data)")
    return list(wanted) or there


def read(folder: Path, name: str, chosen: argparse.Namespace) -> Task:
    """A task, its examples in an order of the seed."""
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["examples"]
    pairs = [(row["input"].strip(), row["target"].strip()) for row in rows]
    order = np.random.default_rng(chosen.seed).permutation(len(pairs))
    drawn = [pairs[at] for at in order]
    count = chosen.demonstrations
    answers = sorted({target for _, target in pairs})
    closed = tuple(answers) if len(answers) <= CLOSED else ()
    return Task(name, tuple(drawn[:count]), tuple(drawn[count : count + chosen.limit]), closed)


class Kept:
    """Rows of a table that were measured before, under the same settings.

    Args:
        file: one JSON object a line, the settings first; None: nothing is kept.
        settings: what the rows depend on.

    Raises:
        SystemExit: the file's rows were measured under others.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, str]) -> None:
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else []
        found = [json.loads(line) for line in lines]
        if found and found[0] != dict(settings):
            raise SystemExit(f"{file} has rows measured under {found[0]}, not {settings}; give another file (--keep)")
        self._rows: dict[str, Mapping[str, Value]] = {row["task"]: row for row in found[1:]}
        if not found:
            self._add(settings)

    def all(self, names: Sequence[str], measure: Callable[[str], Mapping[str, Value]]) -> list[Mapping[str, Value]]:
        """The rows of these tasks; what is not there is measured and kept."""
        for name in names:
            if name not in self._rows:
                self._rows[name] = measure(name)
                self._add(self._rows[name])
        return [self._rows[name] for name in names]

    def _add(self, line: Mapping[str, Value]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(line)) + "\n")


def examples(engine: LanguageEngine, task: Task) -> tuple[Example, ...]:
    """The demonstrations as a session is shown them."""
    encode = engine.tokenizer.encode
    return tuple(Example(encode(_prompt(text)), encode(f" {target}\n\n")) for text, target in task.shown)


def accuracy(engine: LanguageEngine, task: Task, theta: Float, *, in_context: bool, ways: int) -> float:
    """Percent of the questions that are answered right under `theta [P]`."""
    if not task.answers:
        return _written(engine, task, theta, in_context=in_context)
    scores = [_chosen(engine, task, theta, in_context, way) for way in range(ways if in_context else 1)]
    right = 0
    for at, (text, target) in enumerate(task.asked):
        known = _candidates(task, text)
        voted = vote(np.stack([np.array([[one[at][answer] for answer in known]]) for one in scores]))[0]
        right += known[int(voted.argmax())] == target
    return 100 * right / len(task.asked)


def _chosen(engine: LanguageEngine, task: Task, theta: Float, in_context: bool, way: int) -> list[dict[str, float]]:
    """Log-probabilities of each question's candidates, asked in one of several ways; the first is as it is."""
    random, encode = np.random.default_rng([way, 17]), engine.tokenizer.encode
    shown = list(task.shown)
    if way:
        shown = [_turned(shown[at], random) for at in random.permutation(len(shown))]
    context = encode("".join(f"{_prompt(text)} {target}\n\n" for text, target in shown) if in_context else "")
    questions, orders = [], []
    for text, _ in task.asked:
        letters = options(text)
        order = list(random.permutation(len(letters))) if way and letters else list(range(len(letters)))
        asked = reorder(text, order) if letters else text
        orders.append(order)
        known = tuple(encode(f" {answer}\n") for answer in _candidates(task, text))
        questions.append(Question(encode(_prompt(asked)), known, _fitting(engine, context, asked, known)))
    found = candidate_logprobs(engine, questions, theta[np.newaxis], AT_ONCE)
    return [
        {_back(answer, order): float(score) for answer, score in zip(_candidates(task, text), one, strict=True)}
        for (text, _), order, one in zip(task.asked, orders, found, strict=True)
    ]


def _written(engine: LanguageEngine, task: Task, theta: Float, *, in_context: bool) -> float:
    """Percent of the questions whose answer is written word for word."""
    encode = engine.tokenizer.encode
    context = "".join(f"{_prompt(text)} {target}\n\n" for text, target in task.shown) if in_context else ""
    asked = []
    for text, target in task.asked:
        prompt = encode(context + _prompt(text))[-(engine.context - 128) :]
        asked.append((prompt, theta, Sampling(len(encode(target)) + 8, stop=("\n",))))
    texts = draw(engine, asked, slots=4)
    return 100 * float(
        np.mean([one.text.strip() == target for one, (_, target) in zip(texts, task.asked, strict=True)])
    )


def _prompt(text: str) -> str:
    return f"Q: {text}\nA:"


def _candidates(task: Task, text: str) -> list[str]:
    """The answers among which a question asks to choose: its options, or else those of its task."""
    if letters := options(text):
        return [f"({letter})" for letter in letters]
    items = ITEM.findall(text)
    return items if set(items) & set(task.answers) else list(task.answers)


def _turned(pair: tuple[str, str], random: np.random.Generator) -> tuple[str, str]:
    """The demonstration with its options in another order."""
    text, target = pair
    if not (letters := options(text)):
        return text, target
    order = list(random.permutation(len(letters)))
    return reorder(text, order), f"({answer_there(target.strip('()'), order)})"


def _back(answer: str, order: Sequence[int]) -> str:
    return f"({answer_back(answer.strip('()'), order)})" if order else answer


def _fitting(engine: LanguageEngine, context: Ids, asked: str, known: Sequence[Ids]) -> Ids:
    """As much of the end of the context as fits before the question."""
    size = len(engine.tokenizer.encode(_prompt(asked))) + sum(len(candidate) for candidate in known)
    spare = engine.context - size
    return context if len(context) <= spare else context[-spare:] if spare > 0 else context[:0]
