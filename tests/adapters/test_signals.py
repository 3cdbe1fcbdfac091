"""What is watched: each level against arithmetic, false alarms on i.i.d. streams and delays on shifted ones."""

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest

from acclimate.adapters.bank import State
from acclimate.adapters.fields import THETA
from acclimate.adapters.requests import Outputs
from acclimate.adapters.signals import SIGNALS, USUAL, levels
from acclimate.adapters.watch import DEFAULTS, LEVELS, PRECEDENCE, REASON, SENSITIVITY, Choice, Drift, Watch
from acclimate.runtime.engines.reference import reference_engine

SOURCE = reference_engine().source
CLASSES, P, Q = SOURCE.classes, len(SOURCE.theta), len(SOURCE.stats)
NONE: dict[str, Choice] = dict.fromkeys(SIGNALS, "none")
# Steps after a shift within which nine sessions in ten have been told of it.
DELAYS: dict[Choice, int] = {"page_hinkley": 12, "adwin": 60}
PAIRS = [(signal, choice) for signal in SIGNALS for choice in DELAYS]


@dataclasses.dataclass
class World:
    """Draws what a step sees, for `sessions` of `rows` samples each; `shift` moves one signal."""

    sessions: int
    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.draws = np.random.default_rng(self.seed)
        self.group = np.repeat(np.arange(self.sessions), self.rows)

    def step(self, watch: Watch, state: State, shift: str = "") -> State:
        draws, count = self.draws, self.sessions * self.rows
        scale = 4.0 if shift in ("entropy", "confidence") else 1.5
        logits = draws.normal(size=(count, CLASSES)) * scale
        logits[:, 0] += 8.0 * (shift == "predictions")
        noise = draws.normal(size=(self.sessions, Q)) / math.sqrt(self.rows)
        stats = (SOURCE.stats * (1 + 0.3 * np.abs(noise)) + 2.0 * (shift == "statistics")).astype(np.float32)
        away = draws.normal(size=(self.sessions, P)) * (3.0 if shift == "parameters" else 0.05)
        state = state | {THETA: (SOURCE.theta + away / np.sqrt(SOURCE.fisher * P)).astype(np.float32)}
        outputs = Outputs(logits.astype(np.float32), stats[self.group])
        return state | watch.observe(SOURCE, state, outputs, stats, self.group, np.ones(self.sessions, np.float32))

    def fresh(self, watch: Watch) -> State:
        return {name: np.stack([value] * self.sessions) for name, value in watch.template(SOURCE).items()}


def play(
    world: World, watch: Watch, steps: int, shift: str = "", state: State | None = None
) -> tuple[State, np.ndarray]:
    """The state after some steps, and the drift told at each `[steps, S]`."""
    state, told = world.fresh(watch) if state is None else state, []
    for _ in range(steps):
        state = world.step(watch, state, shift)
        told.append(state[REASON])
    return state, np.array(told)


@pytest.mark.parametrize(("signal", "choice"), PAIRS)
def test_an_iid_stream_is_quiet_and_a_shifted_one_is_told_soon(signal: str, choice: Choice) -> None:
    watch, world = Watch.of(NONE | {signal: choice}), World(sessions=48, rows=32)
    state, told = play(world, watch, 250)
    assert (told != Drift.NONE).sum() <= 5, "more than one false alarm in 2400 steps"
    state, told = play(world, watch, DELAYS[choice], signal, state)
    assert set(told[told != Drift.NONE].tolist()) == {Drift[signal.upper()]}
    assert (told != Drift.NONE).any(axis=0).mean() >= 0.9


@pytest.mark.parametrize("rows", [2, 8, 128])
def test_steps_of_any_size_are_as_quiet(rows: int) -> None:
    _, told = play(World(sessions=48, rows=rows), Watch(), 150)
    assert (told != Drift.NONE).sum() <= 3


def test_one_change_is_told_once() -> None:
    """A stream that changes in everything alarms one detector first; the others begin anew with it."""
    watch, world = Watch(), World(sessions=16, rows=32)
    state, _ = play(world, watch, 40)
    _, told = play(world, watch, 30, "predictions", state)
    assert (told != Drift.NONE).sum(axis=0).tolist() == [1] * 16


def test_each_signal_is_what_its_docstring_says() -> None:
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]], np.float32))
    source = dataclasses.replace(SOURCE, class_prior=np.full(4, 0.25, np.float32))
    theta = source.theta + np.eye(P, dtype=np.float32)[:1] * 2
    state = {THETA: theta, USUAL: np.array([[1, 0, 0, 0]], np.float32)}
    stats = source.stats[np.newaxis].copy()
    group, one = np.zeros(2, np.intp), np.ones(1, np.float32)
    (found,) = levels(source, state, Outputs(logits, stats[group]), stats, group, one)
    share = np.array([0.475, 0.175, 0.175, 0.175])

    def divergence(p: np.ndarray, q: np.ndarray) -> float:
        middle = (p + q) / 2
        parts = [a[a > 0] @ np.log(a[a > 0] / middle[a > 0]) for a in (p, q)]
        return sum(parts) / 2

    spread = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
    expected = {
        "entropy": (spread / math.log(4) + 1) / 2,
        "confidence": (1 - 0.475) / 0.75,
        "statistics": 0,
        "predictions": (divergence(share, np.full(4, 0.25)) + divergence(share, np.eye(4)[0])) / 2 / math.log(2),
        "parameters": math.log1p(4 * source.fisher[0]),
    }
    np.testing.assert_allclose(found, [expected[signal] for signal in SIGNALS], atol=1e-5)
    (held,) = levels(source, state, Outputs(logits, stats[group]), stats, group, one * 0)
    np.testing.assert_array_equal(np.isnan(held), [signal == "statistics" for signal in SIGNALS])


def test_what_cannot_be_told_leaves_level_and_average_as_they_were() -> None:
    world, watch = World(sessions=1, rows=4), Watch()
    state = world.step(watch, world.fresh(watch) | {THETA: SOURCE.theta[np.newaxis]})
    broken = Outputs(np.full((4, CLASSES), np.nan, np.float32), np.zeros((4, Q), np.float32))
    stats = np.full((1, Q), np.nan, np.float32)
    after = watch.observe(SOURCE, state, broken, stats, world.group, np.ones(1, np.float32))
    for name in (USUAL, LEVELS):
        np.testing.assert_array_equal(after[name], state[name])
    assert all(np.isfinite(value).all() for value in after.values())


def test_every_signal_has_a_detector_a_default_and_a_place() -> None:
    assert set(SENSITIVITY) == set(DEFAULTS) == set(SIGNALS) == {drift.reason for drift in PRECEDENCE}
    assert set(DEFAULTS.values()) <= set(get_args(Choice))
    assert len(PRECEDENCE) == len(Drift) - 1
    quiet = Watch.of(NONE)
    assert set(quiet.template(SOURCE)) == {USUAL, LEVELS, REASON}
