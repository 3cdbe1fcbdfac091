"""Which of several candidates comes next: their log-probabilities, with all that they share computed once.

Questions of one session that come after the same context lie in one tree: the context is its trunk, each question a
branch, each candidate a branch of that. Of eight labels in three words each after a query of twenty tokens, a tree
computes a quarter of the tokens that eight rows would; after a context of 700 tokens, a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.language import Ids, TokenRows
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.units import NONE, Tree, Unit, stack
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.language.foundation import score_in_parts


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked: after `context` and `prompt`, which of the candidates? `group`: whose row of theta answers."""

    prompt: Ids
    candidates: tuple[Ids, ...]
    context: Ids
    group: int = 0

    @property
    def tokens(self) -> int:
        """Tokens besides the context."""
        return len(self.prompt) + sum(len(candidate) for candidate in self.candidates)


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """A row of several questions of one session; branch n of it is of question and candidate `answers[n]`."""

    unit: Unit
    answers: list[tuple[int, int]]
    group: int


def candidate_logprobs(
    engine: LanguageEngine, questions: Sequence[Question], theta: Float, at_once: int = 4096
) -> list[Float]:
    """For each question the log-probability `[K]` of each whole candidate, in nats.

    Args:
        engine: it scores trees.
        questions: of any sessions.
        theta: `[S, P]`.
        at_once: most tokens of one call of the engine; a row is at most a quarter of it or of the engine's context.

    Raises:
        InvalidArgument: a question has no prompt or no candidates, or is too long for the context.
    """
    for number, question in enumerate(questions):
        _check(question, number, engine.context)
    trees = _planted(questions, min(engine.context, max(at_once // 4, 1)))
    found = [np.zeros(len(question.candidates), np.float32) for question in questions]
    trees.sort(key=lambda tree: tree.unit.tokens)
    start = 0
    while start < len(trees):
        end = start + 1
        while end < len(trees) and (end + 1 - start) * trees[end].unit.tokens <= at_once:
            end += 1
        _score(engine, trees[start:end], theta, found, at_once)
        start = end
    return found


def _check(question: Question, number: int, context: int) -> None:
    if not question.candidates or any(len(candidate) == 0 for candidate in question.candidates):
        raise InvalidArgument("NO_CANDIDATES", f"questions[{number}]: give candidates, of a token or more each")
    if len(question.prompt) + len(question.context) == 0:
        raise InvalidArgument("BAD_PROMPT", f"questions[{number}]: the prompt is empty; candidates come after a token")
    length = len(question.context) + question.tokens
    if length > context:
        raise InvalidArgument(
            "BAD_PROMPT",
            f"questions[{number}]: {length} tokens with all candidates; the context holds {context}; shorten it",
            tokens=length,
            context=context,
        )


def _planted(questions: Sequence[Question], room: int) -> list[_Tree]:
    """Questions of the same session and context together, in trees of about `room` tokens besides the context."""
    shared: dict[tuple[int, bytes], list[int]] = {}
    for number, question in enumerate(questions):
        # Without a context there is nothing to share, and rows of one question each are the cheapest.
        key = question.context.tobytes() if len(question.context) else f"alone {number}".encode()
        shared.setdefault((question.group, key), []).append(number)
    trees = []
    for numbers in shared.values():
        held: list[int] = []
        size = 0
        for number in numbers:
            if held and size + questions[number].tokens + len(questions[number].context) > room:
                trees.append(_tree(questions, held))
                held, size = [], 0
            held.append(number)
            size += questions[number].tokens
        trees.append(_tree(questions, held))
    return trees


def _tree(questions: Sequence[Question], numbers: Sequence[int]) -> _Tree:
    grown, first = Tree(), questions[numbers[0]]
    answers: list[tuple[int, int]] = []
    context = grown.add(first.context)
    for number in numbers:
        asked = grown.add(questions[number].prompt, context)
        for which, candidate in enumerate(questions[number].candidates):
            grown.add(candidate, asked, branch=len(answers))
            answers.append((number, which))
    return _Tree(grown.unit(), answers, first.group)


def _score(engine: LanguageEngine, trees: Sequence[_Tree], theta: Float, found: list[Float], at_once: int) -> None:
    rows = stack([tree.unit for tree in trees])
    scored, group = rows.targets.branch != NONE, np.array([tree.group for tree in trees], np.intp)
    scores = score_in_parts(engine, TokenRows(rows.ids, rows.lengths, group, scored, rows.parent), theta, at_once)
    for row, tree in enumerate(trees):
        sums = np.bincount(rows.targets.branch[row, scored[row]], scores.logprob[row, scored[row]])
        for (number, which), logprob in zip(tree.answers, sums, strict=True):
            found[number][which] = logprob
