"""Views keep shape, dtype and range, are drawn per row, and do what their names say."""

import numpy as np
import pytest

from acclimate.adapters.augmentations import STRONG, Space, Strength, mixed_view, shuffled_patches, strong_view
from acclimate.adapters.randomness import keys

STILL = Strength(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
VIEWS = [strong_view, shuffled_patches, mixed_view]


def images(rows: int, *, first: bool = True, dtype: type = np.uint8, side: int = 16) -> np.ndarray:
    """Smooth pictures: a blurred image of pure noise says nothing."""
    draws = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    phase = draws.uniform(0, 6, size=(rows, 3, 4, 1, 1))
    waves = np.sin(phase[:, :, 0] + 5 * y) * np.cos(phase[:, :, 1] + 4 * x) + 0.3 * np.sin(phase[:, :, 2] + 3 * (x + y))
    unit = (waves + 1.3) / 2.6
    array = unit if first else unit.transpose(0, 2, 3, 1)
    return (255 * array).astype(np.uint8) if dtype is np.uint8 else array.astype(dtype)


INPUTS = {
    "channels first": images(6),
    "channels last": images(6, first=False),
    "floats": images(6, dtype=np.float32),
    "grey": images(6)[:, :1],
    "odd sides": images(6, side=15),
    "vectors": np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_views_keep_shape_and_dtype_and_are_drawn_by_row(view, kind: str) -> None:
    inputs, space = INPUTS[kind], Space.of(INPUTS[kind])
    before, key = inputs.copy(), keys(0, np.arange(6))
    seen = view(inputs, key, space)
    assert (seen.shape, seen.dtype) == (inputs.shape, inputs.dtype)
    np.testing.assert_array_equal(inputs, before)
    np.testing.assert_array_equal(view(inputs[4:5], key[4:5], space)[0], seen[4])
    assert not np.array_equal(seen, inputs)
    assert not np.array_equal(view(inputs, keys(1, np.arange(6)), space), seen)
    assert view(inputs[:0], key[:0], space).shape == (0, *inputs.shape[1:])


def test_channels_first_and_last_are_the_same_picture() -> None:
    first, last, key = images(4), images(4, first=False), keys(0, np.arange(4))
    for view in VIEWS:
        one, other = view(first, key, Space.of(first)), view(last, key, Space.of(last))
        np.testing.assert_array_equal(one.transpose(0, 2, 3, 1), other)


def test_no_strength_changes_nothing_but_mirrors() -> None:
    inputs = images(40)
    seen = strong_view(inputs, keys(0, np.arange(40)), Space.of(inputs), STILL)
    same = (np.abs(seen.astype(int) - inputs) <= 1).all(axis=(1, 2, 3))
    mirrored = (np.abs(seen.astype(int) - inputs[..., ::-1]) <= 1).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 10 < mirrored.sum() < 30


def test_a_strong_view_is_near_its_image_and_not_another() -> None:
    inputs = images(30)
    seen = strong_view(inputs, keys(0, np.arange(30)), Space.of(inputs), STRONG).astype(float)
    spread = (np.minimum(np.abs(seen - inputs), np.abs(seen - inputs[..., ::-1]))).mean()
    assert 5 < spread < 60


def test_a_known_warp_moves_pixels_where_it_says() -> None:
    inputs = np.zeros((1, 1, 9, 9), np.float32)
    inputs[0, 0, 4, 6] = 1
    key, turned = keys(0, np.arange(64)), []
    quarter = Strength(0, 0, 0, 0, 0, 90, 0, 0, 0, 0)
    for row in key:
        seen = strong_view(inputs, row[np.newaxis], Space(0, 1, 1), quarter)[0, 0]
        y, x = np.unravel_index(seen.argmax(), seen.shape)
        turned.append(np.hypot(y - 4, x - 4))
    np.testing.assert_allclose(turned, 2, atol=0.9)


def test_shuffling_moves_whole_patches_and_loses_none() -> None:
    inputs = images(8)
    seen = shuffled_patches(inputs, keys(0, np.arange(8)), Space.of(inputs))

    def patches(image: np.ndarray) -> list[bytes]:
        return sorted(image[:, y : y + 4, x : x + 4].tobytes() for y in range(0, 16, 4) for x in range(0, 16, 4))

    for image, view in zip(inputs, seen, strict=True):
        assert patches(image) == patches(view)
        assert not np.array_equal(image, view)


def test_vectors_are_shuffled_in_blocks() -> None:
    inputs = np.arange(8, dtype=np.float32)[np.newaxis].repeat(20, axis=0)
    seen = shuffled_patches(inputs, keys(0, np.arange(20)), Space.of(inputs))
    np.testing.assert_allclose(np.sort(seen, axis=1), inputs, atol=1e-5)
    np.testing.assert_allclose(seen[:, 1::2] - seen[:, ::2], 1, atol=1e-5)


def test_space_reads_range_and_axes() -> None:
    assert Space.of(images(2)) == Space(0, 255, 1)
    assert Space.of(images(2, first=False)).channel_axis == 3
    assert Space.of(np.zeros((0, 5), np.float32)) == Space(0, 1, None)
    assert Space.of(np.full((2, 5), 3, np.float32)).high > 3
