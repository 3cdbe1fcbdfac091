"""What a lesson is made of: rows of tokens that say which of their tokens count, and stacks of them to take from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import Ids, TokenRows
from acclimate.adapters.layout import Float

NONE = -1


@dataclass(frozen=True, slots=True)
class Example:
    """What a user showed: after `prompt [p]` comes `completion [c]`. An empty completion: a document, to be read.

    `candidates` are the completions among which one answers, where they are known; `completion` is one of them.
    `advantage` weighs a text that the model itself wrote, see `objectives.policy`.
    """

    prompt: Ids
    completion: Ids
    candidates: tuple[Ids, ...] = ()
    advantage: float = 1.0

    @property
    def answer(self) -> int:
        """The completion's place among the candidates, or -1."""
        same = (at for at, other in enumerate(self.candidates) if np.array_equal(other, self.completion))
        return next(same, NONE)


@dataclass(frozen=True, slots=True)
class Unit:
    """One row of tokens, a text or a tree; every array is `[t]`.

    Attributes:
        ids: the tokens.
        parent: which token each comes after; see `TokenRows`.
        weight: how much each token counts in the loss.
        branch: which candidate, or which of several texts of a tree, each token belongs to; -1: none.
        gold: the candidate that is right; -1: no candidates.
        anchor: how much each token counts in the divergence from the source.
        advantage: see `Example`.
        rivals: where a tree asks several questions, the candidates of each, the right one first: candidate `c` of
            question `q` is branch `q * rivals + c`. 0: it asks one question at most, see `gold`.
    """

    ids: Ids
    parent: Ids
    weight: Float
    branch: Ids
    gold: int = NONE
    anchor: Float = field(default_factory=lambda: np.zeros(0, np.float32))
    advantage: float = 1.0
    rivals: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return len(self.ids)


class Tree:
    """Puts a unit together, branch by branch."""

    def __init__(self) -> None:
        self._ids: list[Ids] = []
        self._parent: list[Ids] = []
        self._weight: list[Float] = []
        self._branch: list[Ids] = []
        self._length = 0

    def add(self, ids: Ids, after: int = NONE, *, weight: float = 0.0, branch: int = NONE) -> int:
        """Tokens that come after token `after`; the place of their last one."""
        if len(ids) == 0:
            return after
        parent = np.arange(self._length - 1, self._length + len(ids) - 1)
        parent[0] = after
        self._ids.append(ids)
        self._parent.append(parent)
        self._weight.append(np.full(len(ids), weight, np.float32))
        self._branch.append(np.full(len(ids), branch, np.int64))
        self._length += len(ids)
        return self._length - 1

    def unit(self, gold: int = NONE, *, anchored: float = 0.0, advantage: float = 1.0, rivals: int = 0) -> Unit:
        """What was added; `anchored` is the anchor of tokens that count in the loss, and of all where none does."""
        ids, parent, branch = (np.concatenate(part) for part in (self._ids, self._parent, self._branch))
        weight = np.concatenate(self._weight)
        held = weight > 0 if weight.any() else np.ones(len(ids), np.bool_)
        return Unit(ids, parent, weight, branch, gold, (anchored * held).astype(np.float32), advantage, rivals)


@dataclass(frozen=True, slots=True)
class Targets:
    """Which tokens count, for rows taken from a stack; arrays as in `Unit`, `[B, T]` and `[B]`."""

    weight: Float
    branch: Ids
    gold: Ids
    anchor: Float
    advantage: Float
    rivals: Ids


@dataclass(frozen=True, slots=True)
class Stack:
    """N units padded to one length."""

    ids: Ids
    lengths: Ids
    parent: Ids
    targets: Targets

    def take(self, index: NDArray[np.intp], group: NDArray[np.intp]) -> tuple[TokenRows, Targets]:
        """Units by number `[B]`, for rows `[B]` of theta; no longer than the longest of them."""
        lengths = self.lengths[index]
        longest = int(lengths.max(initial=1))
        ids, parent = self.ids[index, :longest], self.parent[index, :longest]
        chains = bool((parent == np.arange(-1, longest - 1))[np.arange(longest) < lengths[:, np.newaxis]].all())
        own = self.targets
        targets = Targets(
            own.weight[index, :longest],
            own.branch[index, :longest],
            own.gold[index],
            own.anchor[index, :longest],
            own.advantage[index],
            own.rivals[index],
        )
        scored = (targets.weight > 0) | (targets.anchor > 0)
        scored |= (targets.branch != NONE) & ((targets.gold != NONE) | (targets.rivals > 0))[:, np.newaxis]
        return TokenRows(ids, lengths, group, scored, None if chains else parent), targets


def stack(units: Sequence[Unit]) -> Stack:
    """Pad units to one length; what is padded counts for nothing."""
    lengths = np.array([unit.tokens for unit in units], np.int64)
    shape = (len(units), int(lengths.max(initial=1)))
    ids, parent, branch = np.zeros(shape, np.int64), np.full(shape, NONE), np.full(shape, NONE)
    weight, anchor = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row, unit in enumerate(units):
        span = slice(unit.tokens)
        ids[row, span], parent[row, span], branch[row, span] = unit.ids, unit.parent, unit.branch
        weight[row, span] = unit.weight
        anchor[row, : len(unit.anchor)] = unit.anchor
    gold = np.array([unit.gold for unit in units], np.int64)
    advantage = np.array([unit.advantage for unit in units], np.float32)
    rivals = np.array([unit.rivals for unit in units], np.int64)
    return Stack(ids, lengths, parent, Targets(weight, branch, gold, anchor, advantage, rivals))
