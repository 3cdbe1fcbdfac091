"""What a session keeps of the requests it answered: samples to learn from, and answers that labels may follow."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.runtime.errors import InvalidArgument

SETTLED = -1
# A request's id and the table's own share.
ENTRY_BYTES = 200


Key = tuple[str, int]
UNKNOWN = -1


@dataclass(slots=True, eq=False)
class Sample:
    """One row of a request `key`, what it was answered `[C]` where that is kept, and its true class or -1.

    `allowance` is its share of the milliseconds that the request lets steps over its rows take.
    """

    values: NDArray[Any]
    key: Key
    answer: Float | None = None
    label: int = UNKNOWN
    allowance: float = math.inf


NONE_LABELLED: deque[Sample] = deque(maxlen=0)
NONE_UNLABELLED: OrderedDict[Key, Sample] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Gathered:
    """Samples `[B, ...]` for a step, their true classes `[B]`, -1 where none has arrived, and answers `[B, C]`.

    `keys` name the requests and rows that they came with; empty: they are of the request that waits for the step.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    answers: Float | None = None
    keys: tuple[Key, ...] = ()


class SampleBuffer:
    """The samples a session has seen and not yet learnt from, oldest first, at most `capacity` of them.

    With `kept` above 0, that many samples stay after they were learnt from without a label: when it arrives they wait
    once more, before everything else. As many can wait so; the oldest make room.
    """

    def __init__(self, capacity: int, kept: int = 0) -> None:
        self._capacity = capacity
        self._kept = kept
        self._fresh: OrderedDict[int, Sample] = OrderedDict()
        self._arrivals = count()
        self._place: dict[Key, int] = {}
        # Where none are kept nothing ever enters these, and thousands of sessions can share them.
        self._unlabelled: OrderedDict[Key, Sample] = OrderedDict() if kept else NONE_UNLABELLED
        self._labelled: deque[Sample] = deque(maxlen=kept) if kept else NONE_LABELLED
        self._bytes = 0
        self.allowance = math.inf
        """Milliseconds that a step over the samples taken last may take, by what their requests allow."""

    def __len__(self) -> int:
        return len(self._labelled) + len(self._fresh)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples held, those kept for a label too."""
        return self._bytes * (len(self) + len(self._unlabelled))

    def extend(
        self,
        inputs: NDArray[Any],
        request_id: str = "",
        answers: Float | None = None,
        allowance: float = math.inf,
    ) -> int:
        """Add rows `[B, ...]`, with their answers `[B, C]` or none; returns how many old ones fell out to make room.

        `allowance` is how many milliseconds steps over these rows may take.
        """
        share = allowance / len(inputs)
        for row, values in enumerate(inputs):
            answer = None if answers is None else np.array(answers[row])
            number, sample = next(self._arrivals), Sample(np.array(values), (request_id, row), answer, allowance=share)
            self._fresh[number] = sample
            self._place[sample.key] = number
            self._bytes = sample.values.nbytes + (0 if answer is None else answer.nbytes)
        dropped = max(0, len(self._fresh) - self._capacity)
        for _ in range(dropped):
            self._oldest()
        return dropped

    def label(self, request_id: str, row: int, label: int) -> bool:
        """A true class has arrived; whether the sample is still here to be learnt from with it."""
        key = (request_id, row)
        if key in self._place:
            self._fresh[self._place[key]].label = label
            return True
        sample = self._unlabelled.pop(key, None)
        if sample is None:
            return False
        sample.label = label
        self._labelled.append(sample)
        return True

    def take(self, rows: int) -> Gathered:
        """Remove and return the `rows` samples that are first: those whose label came late, then the oldest."""
        late = [self._labelled.popleft() for _ in range(min(rows, len(self._labelled)))]
        taken = late + [self._oldest() for _ in range(rows - len(late))]
        self.allowance = sum(sample.allowance for sample in taken)
        for sample in taken:
            if sample.label == UNKNOWN and self._kept > 0:
                self._unlabelled[sample.key] = sample
                self._unlabelled.move_to_end(sample.key)
        while len(self._unlabelled) > self._kept:
            self._unlabelled.popitem(last=False)
        kept = [s.answer for s in taken if s.answer is not None]
        return Gathered(
            np.stack([s.values for s in taken]),
            np.array([s.label for s in taken], np.int64),
            np.stack(kept) if len(kept) == rows > 0 else None,
            tuple(sample.key for sample in taken),
        )

    def emptied(self) -> SampleBuffer:
        """A new buffer of the same size, with nothing in it."""
        return SampleBuffer(self._capacity, self._kept)

    def clear(self) -> None:
        """Forget all of them."""
        for held in (self._fresh, self._place, self._unlabelled, self._labelled):
            held.clear()

    def _oldest(self) -> Sample:
        number, sample = self._fresh.popitem(last=False)
        if self._place.get(sample.key) == number:
            del self._place[sample.key]
        return sample


class AnswerLog:
    """The answered classes of the latest requests, by request id."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[str, NDArray[np.intp]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of the answers, and an allowance for each."""
        return sum(ENTRY_BYTES + labels.nbytes for labels in self._answers.values())

    def __contains__(self, request_id: str) -> bool:
        """Whether a request is remembered."""
        return request_id in self._answers

    def remember(self, request_id: str, labels: NDArray[np.intp]) -> None:
        """Keep the answer `[B]` of a request; the oldest is forgotten when the log is full."""
        self._answers[request_id] = np.array(labels)
        self._answers.move_to_end(request_id)
        if len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def answer(self, request_id: str, row: int) -> int | None:
        """The class that was answered, or None if the request is not remembered or the row is settled.

        Raises:
            InvalidArgument: the request had fewer rows.
        """
        labels = self._answers.get(request_id)
        if labels is None:
            return None
        if not 0 <= row < len(labels):
            raise InvalidArgument(
                "ROW_OUT_OF_RANGE",
                f"row is {row}; request {request_id!r} had {len(labels)} rows, numbered from 0",
                row=row,
                rows=len(labels),
            )
        return None if labels[row] == SETTLED else int(labels[row])

    def clear(self) -> None:
        """Forget all of them."""
        self._answers.clear()

    def settle(self, request_id: str, row: int) -> None:
        """A label for this row has arrived; another one would be counted twice."""
        self._answers[request_id][row] = SETTLED
