"""Simulated cameras: a clean start, a drift, a clean end, and the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.examples.digits.data import Digits
from acclimate.examples.digits.streams import CAMERAS, SCHEDULE, Camera, Frame, Phase, phase_at, severity_at, stream

LENGTH = 100
DIGITS = Digits(
    np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28)).astype(np.uint8), np.arange(40, dtype=np.int64) % 10
)


def frames(camera: Camera, seed: int = 0) -> list[Frame]:
    return list(stream(camera, DIGITS, LENGTH, seed))


def images(camera: Camera, seed: int = 0) -> np.ndarray:
    return np.stack([frame.image for frame in frames(camera, seed)])


def test_eight_cameras_one_of_which_never_drifts() -> None:
    assert len({camera.name for camera in CAMERAS}) == len(CAMERAS) == 8
    assert [camera.name for camera in CAMERAS if camera.corruption is None] == ["lobby"]
    assert sum(share for _, share in SCHEDULE) == pytest.approx(1)


@pytest.mark.parametrize("length", [7, 100, 801])
def test_severity_rises_holds_and_falls(length: int) -> None:
    severities = np.array([severity_at(step, length, 0.8) for step in range(length)])
    phases = [phase_at(step, length)[0] for step in range(length)]
    assert list(dict.fromkeys(phases)) == list(Phase)
    for phase, expected in ((Phase.BEFORE, 0), (Phase.DRIFTED, 0.8), (Phase.AFTER, 0)):
        assert {severity for severity, p in zip(severities, phases, strict=True) if p is phase} == {expected}
    top = int(severities.argmax())
    assert (np.diff(severities[: top + 1]) >= 0).all()
    assert (np.diff(severities[top:]) <= 0).all()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_a_stream_is_a_function_of_its_seed(camera: Camera) -> None:
    np.testing.assert_array_equal(images(camera, 4), images(camera, 4))
    assert (images(camera, 4) != images(camera, 5)).any()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_labels_stay_with_their_pictures(camera: Camera) -> None:
    known = {image.tobytes(): int(label) for image, label in zip(DIGITS.images, DIGITS.labels, strict=True)}
    clean = [frame for frame in frames(camera) if frame.severity == 0]
    assert len(clean) >= 35
    assert all(known[frame.image.tobytes()] == frame.label for frame in clean)


def test_every_digit_comes_before_any_comes_again() -> None:
    first = [frame.image.tobytes() for frame in frames(CAMERAS[0])[: len(DIGITS)]]
    assert len(set(first)) == len(DIGITS)


def test_cameras_see_different_orders() -> None:
    labels = {tuple(frame.label for frame in frames(camera)) for camera in CAMERAS}
    assert len(labels) == len(CAMERAS)
