"""The sketch tells what pictures look like, whatever their layout, and knows what a shift does to them."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from acclimate.adapters.sketch import SIZE, sketch

DTYPES = (np.uint8, np.int64, np.float32)


def pictures(seed: int = 0, count: int = 6) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 200, (count, 3, 8, 8))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


def test_each_number_is_what_it_says() -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 1, 5, 7)).astype(np.float64)
    across, down, apart = np.diff(image, axis=3), np.diff(image, axis=2), image[..., 2:] - image[..., :-2]
    expected = [image.mean(), image.std()]
    expected += [np.abs(across).mean(), np.sqrt((across**2).mean()), np.abs(down).mean(), np.sqrt((down**2).mean())]
    expected += [np.abs(apart).mean()]
    np.testing.assert_allclose(sketch(image)[0], np.log1p(expected), rtol=1e-5)


def test_a_picture_is_sketched_alike_in_either_layout() -> None:
    images = pictures()
    np.testing.assert_array_equal(sketch(images), sketch(np.ascontiguousarray(images.transpose(0, 2, 3, 1))))


@pytest.mark.parametrize(
    ("damage", "moved"),
    [
        pytest.param(lambda x: x / 2, 0, id="dark"),
        pytest.param(lambda x: 128 + (x - 128) / 4, 1, id="flat"),
        pytest.param(lambda x: x + np.random.default_rng(0).normal(0, 20, x.shape), 2, id="noisy"),
        pytest.param(lambda x: (x + np.roll(x, 1, 3) + np.roll(x, 2, 3)) / 3, 3, id="blurred"),
        pytest.param(lambda x: np.where(np.random.default_rng(0).random(x.shape) < 0.02, 255, x), 3, id="impulses"),
    ],
)
def test_a_shift_moves_it_by_many_times_what_pictures_differ(
    damage: Callable[[np.ndarray], np.ndarray], moved: int
) -> None:
    clean, other = sketch(pictures(0, 64)), sketch(pictures(1, 64))
    shifted = sketch(damage(pictures(1, 64).astype(np.float32)))
    usual = np.abs(clean.mean(axis=0) - other.mean(axis=0))
    change = np.abs(clean.mean(axis=0) - shifted.mean(axis=0))
    assert change[moved] > max(5 * usual[moved], 0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda kind: arrays.arrays(
            kind,
            arrays.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=6),
            elements={"allow_nan": False, "allow_infinity": False, "min_value": -1e3, "max_value": 1e3}
            if kind is np.float32
            else st.integers(0, 200),
        )
    )
)
def test_any_numbers_are_sketched_row_by_row(inputs: np.ndarray) -> None:
    found = sketch(inputs)
    assert found.shape == (len(inputs), SIZE) and found.dtype == np.float32
    assert np.isfinite(found).all()
    for row in range(len(inputs)):
        np.testing.assert_allclose(sketch(inputs[row : row + 1])[0], found[row], rtol=1e-5, atol=1e-6)
