"""Whether adapting helps: the same samples, answered by the session's own parameters and by the source's.

Entropy minimisation raises confidence, so an adapted session's estimate of its own accuracy flatters it; beside the
frozen model's on the same samples at least the sign of the difference can be judged, and where labels arrive it is
measured.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.accuracy import Scores
from acclimate.runtime.figures import ComparisonFigures
from acclimate.runtime.sessions.session import SessionKey

REMEMBERED = 4096
"""Compared requests that a label can still name."""


@dataclass(slots=True)
class Answers:
    """What one of the two models answered: samples above the bundle's confidence threshold, and right answers."""

    confident: int = 0
    correct: int = 0


class Comparison:
    """The books of one model's compared samples; touched on the event loop's thread only."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._samples = self._disagreed = self._labelled = 0
        self._adapted, self._frozen = Answers(), Answers()
        self._remembered: OrderedDict[tuple[SessionKey, str], NDArray[np.intp]] = OrderedDict()

    def compared(self, key: SessionKey, request_id: str, adapted: Scores, frozen: Scores) -> None:
        """Count the rows `[B]` of one request; `frozen` may be of the first of them alone."""
        rows = len(frozen.label)
        self._samples += rows
        self._disagreed += int((adapted.label[:rows] != frozen.label).sum())
        for answers, scores in ((self._adapted, adapted), (self._frozen, frozen)):
            answers.confident += int((scores.confidence[:rows] > self._threshold).sum())
        self._remembered[key, request_id] = frozen.label
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def labelled(self, key: SessionKey, request_id: str, row: int, label: int, adapted: int) -> None:
        """The true class of an answer, which was `adapted`; counted if the source's answer to it is known."""
        frozen = self._remembered.get((key, request_id))
        if frozen is not None and row < len(frozen):
            self._labelled += 1
            self._adapted.correct += label == adapted
            self._frozen.correct += label == int(frozen[row])

    def figures(self) -> ComparisonFigures:
        """As they stand now."""
        return ComparisonFigures(
            samples=self._samples,
            disagreed=self._disagreed,
            labelled=self._labelled,
            confident={"adapted": self._adapted.confident, "frozen": self._frozen.confident},
            correct={"adapted": self._adapted.correct, "frozen": self._frozen.correct},
        )
