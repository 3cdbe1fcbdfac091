"""What a session keeps of its samples: those to learn from, and those whose label may still come."""

from __future__ import annotations

import numpy as np

from acclimate.runtime.sessions.gathering import SampleBuffer


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.float32)[:, np.newaxis]


def taken(buffer: SampleBuffer, count: int) -> tuple[list[int], list[int]]:
    gathered = buffer.take(count)
    return gathered.inputs[:, 0].astype(int).tolist(), gathered.labels.tolist()


def test_a_label_in_time_goes_with_its_sample() -> None:
    buffer = SampleBuffer(8, kept=8)
    buffer.extend(rows(1, 2), "a")
    buffer.extend(rows(3), "b")
    assert buffer.label("a", 1, 7)
    assert not buffer.label("c", 0, 7)
    assert not buffer.label("b", 1, 7)
    assert taken(buffer, 3) == ([1, 2, 3], [-1, 7, -1])


def test_a_label_that_comes_late_brings_its_sample_back_first_and_once() -> None:
    buffer = SampleBuffer(8, kept=8)
    buffer.extend(rows(1, 2, 3), "a")
    buffer.take(3)
    assert len(buffer) == 0
    buffer.extend(rows(4, 5), "b")
    assert buffer.label("a", 2, 6)
    assert not buffer.label("a", 2, 6)
    assert len(buffer) == 3
    assert taken(buffer, 3) == ([3, 4, 5], [6, -1, -1])
    assert not buffer.label("a", 2, 6), "a sample that was learnt from with its label was kept"


def test_without_room_to_keep_nothing_comes_back() -> None:
    buffer = SampleBuffer(8)
    buffer.extend(rows(1, 2), "a")
    assert buffer.label("a", 0, 3)
    assert taken(buffer, 2) == ([1, 2], [3, -1])
    assert not buffer.label("a", 1, 3)
    assert buffer.nbytes == 0


def test_what_is_kept_is_bounded_and_counted() -> None:
    buffer = SampleBuffer(4, kept=3)
    for turn in range(10):
        buffer.extend(rows(turn), f"r{turn}")
        buffer.take(1)
    assert buffer.nbytes == 3 * 4
    assert [buffer.label(f"r{turn}", 0, 1) for turn in range(10)] == [False] * 7 + [True] * 3
    assert buffer.extend(rows(10, 11, 12, 13, 14, 15), "new") == 2
    assert len(buffer) == 7
    assert buffer.nbytes == 7 * 4
    assert not buffer.label("new", 1, 0), "it fell out"
    assert taken(buffer, 4) == ([7, 8, 9, 12], [1, 1, 1, -1])
    buffer.clear()
    assert len(buffer) == buffer.nbytes == 0
    assert not buffer.label("new", 2, 0)


def test_a_request_id_that_comes_again_names_the_later_sample() -> None:
    buffer = SampleBuffer(8, kept=8)
    buffer.extend(rows(1), "same")
    buffer.extend(rows(2), "same")
    assert buffer.label("same", 0, 5)
    assert taken(buffer, 1) == ([1], [-1])
    assert taken(buffer, 1) == ([2], [5])
