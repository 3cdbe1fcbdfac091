"""How statistics follow a stream: against torch's batch normalisation, and what each kind forgets."""

import numpy as np
import pytest
import torch

from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.requests import Forward, Request
from acclimate.adapters.statistics import Blend, Held, Running, SourceBlend, Statistics, TrainMode
from acclimate.adapters.step import Batch, adaptation_step
from acclimate.runtime.scheduler.drive import run_step
from tests.adapters.plain import ENGINE, OPEN, ROWS, ZEROS, Plain, tensor
from tests.adapters.stepping import WHOLE, fresh, recipe, step, stream


def test_norm_ema_keeps_torchs_running_statistics() -> None:
    """Torch's running variance is unbiased; without that factor the two are the same, answers included."""
    layer = torch.nn.BatchNorm1d(6, affine=False, momentum=0.1, dtype=torch.float64)
    chosen = recipe("norm_ema", ENGINE, OPEN, batch_rows=ROWS)
    state, plain = fresh(chosen, ENGINE, 1), Plain()
    layer.running_mean, layer.running_var = plain.mean.clone(), plain.var.clone()
    for turn in range(5):
        inputs = stream(turn, ROWS, features=6)
        before = layer.running_var.clone()
        layer(tensor(inputs))
        layer.running_var = 0.9 * before + (layer.running_var - 0.9 * before) * (ROWS - 1) / ROWS
        result = step(chosen, state, inputs, ZEROS, ENGINE)
        state = result.state
        plain.mean, plain.var = layer.running_mean, layer.running_var
        np.testing.assert_allclose(state[STATS][0], torch.cat([plain.mean, plain.var]), rtol=1e-5)
        np.testing.assert_allclose(result.logits, plain.logits(tensor(inputs)).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state[THETA][0], ENGINE.source.theta)


def test_norm_alpha_remembers_nothing_but_its_latest_batch() -> None:
    chosen = recipe("norm_alpha", ENGINE, OPEN, batch_rows=ROWS, alpha=0.25)
    first = fresh(chosen, ENGINE, 1)
    later = step(chosen, first, stream(1, ROWS, features=6, shift=5), ZEROS, ENGINE).state
    inputs = stream(2, ROWS, features=6)
    fresh_one, used = (step(chosen, state, inputs, ZEROS, ENGINE) for state in (first, later))
    np.testing.assert_array_equal(used.logits, fresh_one.logits)
    np.testing.assert_array_equal(used.state[STATS], fresh_one.state[STATS])
    mean, var = Plain().blend(tensor(inputs), 0.25)
    np.testing.assert_allclose(used.state[STATS][0], torch.cat([mean, var]), rtol=1e-5)


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (Blend(0), [1, 1]),
        (Blend(6), [0.25, 0.5]),
        (Running(0.1), [0.1, 0.1]),
        (TrainMode(0.1), [1, 1]),
        (SourceBlend(0.2), [0.2, 0.2]),
        (Held(), [0, 0]),
    ],
)
def test_the_weight_of_a_batch(statistics: Statistics, expected: list[float]) -> None:
    alpha = statistics.alpha(np.array([2, 6]))
    np.testing.assert_allclose(alpha, expected)
    assert alpha.dtype == np.float32


def test_train_mode_measures_with_the_batch_alone_and_answers_with_what_it_moved() -> None:
    chosen, inputs, group = recipe("norm_ema", ENGINE, OPEN, momentum=0.2), stream(3, ROWS, features=6), ZEROS
    asked: list[Request] = []
    result = step(chosen, fresh(chosen, ENGINE, 1), inputs, group, ENGINE, asked=asked)
    first, second = (request.rows for request in asked if isinstance(request, Forward))
    np.testing.assert_array_equal(first.alpha, 1)
    np.testing.assert_array_equal(second.alpha, 0)
    np.testing.assert_array_equal(second.stats, np.repeat(result.state[STATS], ROWS, axis=0))
    np.testing.assert_array_equal(result.logits, ENGINE.forward(Forward(second)).logits)
    unread = Batch(inputs, group, answering=False)
    quiet = run_step(adaptation_step(chosen, ENGINE.source, fresh(chosen, ENGINE, 1), unread), ENGINE, WHOLE)
    assert (result.asked.forward, quiet.asked.forward) == (2 * ROWS, ROWS)
    np.testing.assert_array_equal(quiet.state[STATS], result.state[STATS])


def test_held_statistics_stay() -> None:
    stats = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(Held().move(stats, stats * 7, np.zeros(2, np.float32)), stats)
