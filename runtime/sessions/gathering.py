"""What a session keeps of the requests it answered: samples to learn from, and answers that labels may follow."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.runtime.errors import InvalidArgument

SETTLED = -1


class SampleBuffer:
    """The samples a session has seen and not yet learnt from, oldest first, at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self._samples: deque[NDArray[Any]] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._samples)

    def extend(self, inputs: NDArray[Any]) -> int:
        """Add rows `[B, ...]`; returns how many old ones fell out to make room."""
        dropped = max(0, len(self._samples) + len(inputs) - (self._samples.maxlen or 0))
        self._samples.extend(np.array(row) for row in inputs)
        return dropped

    def take(self, rows: int) -> NDArray[Any]:
        """Remove and return the oldest rows `[rows, ...]`."""
        return np.stack([self._samples.popleft() for _ in range(rows)])

    def clear(self) -> None:
        """Forget all of them."""
        self._samples.clear()


class AnswerLog:
    """The answered classes of the latest requests, by request id."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[str, NDArray[np.intp]] = OrderedDict()

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

    def settle(self, request_id: str, row: int) -> None:
        """A label for this row has arrived; another one would be counted twice."""
        self._answers[request_id][row] = SETTLED
