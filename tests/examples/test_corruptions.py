"""Corruptions: pure functions of picture, severity and generator."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.examples.digits.corruptions import CORRUPTIONS, corrupted

PICTURE = np.zeros((1, 28, 28), np.uint8)
PICTURE[0, 6:22, 12:16] = 255
PICTURE[0, 8:12, 8:20] = 180


def apply(name: str, severity: float, seed: int = 3) -> np.ndarray:
    return corrupted(name, PICTURE, severity, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_seed_same_picture(name: str) -> None:
    np.testing.assert_array_equal(apply(name, 0.7), apply(name, 0.7))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_zero_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(apply(name, 0.0), PICTURE)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_and_type_are_kept_and_the_input_is_not_written(name: str) -> None:
    before = PICTURE.copy()
    for severity in (0.01, 0.5, 1.0):
        result = apply(name, severity)
        assert (result.shape, result.dtype) == (PICTURE.shape, np.uint8)
    np.testing.assert_array_equal(PICTURE, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severity_moves_the_picture_further(name: str) -> None:
    distances = [np.abs(apply(name, s).astype(int) - PICTURE).mean() for s in (0.0, 0.3, 0.65, 1.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 5


@pytest.mark.parametrize("name", ["noise", "haze", "occlusion"])
def test_random_ones_differ_between_pictures(name: str) -> None:
    assert (apply(name, 0.7, 1) != apply(name, 0.7, 2)).any()


def test_unknown_names_and_severities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'rain' is unknown; choose one of \['blur'"):
        apply("rain", 0.5)
    for severity in (-0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"is outside \[0, 1\]"):
            apply("blur", severity)
