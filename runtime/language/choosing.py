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
from acclimate.adapters.learning.units import NONE
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
    """A row: its tokens, what each comes after, and which question and candidate each belongs to."""

    ids: Ids
    parent: Ids
    question: Ids
    candidate: Ids
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
    trees.sort(key=lambda tree: len(tree.ids))
    start = 0
    while start < len(trees):
        end = start + 1
        while end < len(trees) and (end + 1 - start) * len(trees[end].ids) <= at_once:
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
    context = questions[numbers[0]].context
    ids, parent = [context], [np.arange(-1, len(context) - 1)]
    question, candidate = [np.full(len(context), NONE)], [np.full(len(context), NONE)]
    length = len(context)
    for number in numbers:
        trunk = len(context) - 1
        for which, tokens in ((NONE, questions[number].prompt), *enumerate(questions[number].candidates)):
            if len(tokens) == 0:
                continue
            after = np.arange(length - 1, length + len(tokens) - 1)
            after[0] = trunk
            ids.append(tokens)
            parent.append(after)
            question.append(np.full(len(tokens), number))
            candidate.append(np.full(len(tokens), which))
            length += len(tokens)
            if which == NONE:
                trunk = length - 1
    ids_, parent_, question_, candidate_ = (np.concatenate(part) for part in (ids, parent, question, candidate))
    return _Tree(ids_, parent_, question_, candidate_, questions[numbers[0]].group)


def _score(engine: LanguageEngine, trees: Sequence[_Tree], theta: Float, found: list[Float], at_once: int) -> None:
    shape = (len(trees), max(len(tree.ids) for tree in trees))
    ids, parent, scored = np.zeros(shape, np.int64), np.full(shape, NONE), np.zeros(shape, np.bool_)
    for row, tree in enumerate(trees):
        span = slice(len(tree.ids))
        ids[row, span], parent[row, span], scored[row, span] = tree.ids, tree.parent, tree.candidate != NONE
    lengths = np.array([len(tree.ids) for tree in trees], np.int64)
    group = np.array([tree.group for tree in trees], np.intp)
    scores = score_in_parts(engine, TokenRows(ids, lengths, group, scored, parent), theta, at_once)
    for row, tree in enumerate(trees):
        for at in np.flatnonzero(tree.candidate != NONE):
            found[tree.question[at]][tree.candidate[at]] += scores.logprob[row, at]
