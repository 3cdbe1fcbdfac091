"""What every engine promises; `ENGINES` is the table, and a new engine is one row in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.numerics import softmax
from acclimate.adapters.requests import Forward, Gradient, Rows
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.reference import reference_engine
from tests.runtime.digits import picture
from tests.runtime.serving import drifted


@dataclass(frozen=True)
class Subject:
    """An engine under test: how it is made, samples for it, and how far int8 may lie from float.

    Attributes:
        build: a new engine from the path of the committed bundle.
        samples: inputs `[rows, ...]` from a seed.
        quantized: largest mean difference of class probabilities between `frozen` and the float `forward`.
        kinks: largest relative error of finite differences, which step over the kinks of ReLUs; export compares
            the gradient with autograd's to 1e-3.
    """

    build: Callable[[Path], Engine]
    samples: Callable[[int, int], np.ndarray]
    quantized: float
    kinks: float


ENGINES = {
    "reference": Subject(lambda _: reference_engine(), lambda seed, rows: drifted(seed, rows), 1e-6, 1e-3),
    "onnx": Subject(lambda path: OnnxEngine(read_bundle(path), OnnxOptions()), picture, 0.02, 0.1),
}


@pytest.fixture(scope="module", params=sorted(ENGINES))
def subject(request: pytest.FixtureRequest) -> Subject:
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def engine(subject: Subject, bundle_path: Path) -> Iterator[Engine]:
    built = subject.build(bundle_path)
    yield built
    built.close()


def rows_of(engine: Engine, inputs: np.ndarray, group: list[int], alpha: float, jitter: float = 0.0) -> Rows:
    """Rows at the source, or `jitter` away from it with each row elsewhere."""
    count, source = len(inputs), engine.source
    generator = np.random.default_rng(5)
    theta = np.repeat(source.theta[np.newaxis], count, axis=0)
    theta = (theta * (1 + jitter * generator.normal(size=theta.shape))).astype(np.float32)
    stats = np.repeat(source.stats[np.newaxis], count, axis=0)
    return Rows(inputs, theta, stats, np.array(group, np.intp), np.full(count, alpha, np.float32))


def cotangent(engine: Engine, rows: int) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(rows, len(engine.manifest.classes))).astype(np.float32)


def test_shapes_and_dtypes(engine: Engine, subject: Subject) -> None:
    inputs, manifest = subject.samples(0, 6), engine.manifest
    rows = rows_of(engine, inputs, [0, 0, 1, 1, 1, 2], 0.5)
    outputs, gradients = engine.forward(Forward(rows)), engine.vjp(Gradient(rows, cotangent(engine, 6)))
    folded = engine.fold(engine.source.theta, engine.source.stats)
    shapes = {
        "frozen": (engine.frozen(inputs), (6, len(manifest.classes))),
        "predict": (engine.predict(inputs, folded), (6, len(manifest.classes))),
        "forward": (outputs.logits, (6, len(manifest.classes))),
        "batch_stats": (outputs.batch_stats, (6, manifest.statistics.size)),
        "grad_theta": (gradients.grad_theta, (6, manifest.parameters.size)),
        "vjp logits": (gradients.logits, (6, len(manifest.classes))),
    }
    for name, (array, shape) in shapes.items():
        assert (array.shape, array.dtype) == (shape, np.float32), name
        assert np.isfinite(array).all(), name


def test_the_source_folded_answers_as_the_frozen_model_to_the_bit(engine: Engine, subject: Subject) -> None:
    inputs = subject.samples(1, 64)
    folded = engine.fold(engine.source.theta, engine.source.stats)
    np.testing.assert_array_equal(engine.predict(inputs, folded), engine.frozen(inputs))


def test_a_row_is_answered_the_same_in_every_batch(engine: Engine, subject: Subject) -> None:
    inputs = subject.samples(2, 33)
    folded = engine.fold(*(row[0] for row in _elsewhere(engine, inputs[:1])))
    for answer in (engine.frozen, lambda part: engine.predict(part, folded)):
        whole = answer(inputs)
        for size in (1, 2, 7):
            parts = [answer(inputs[start : start + size]) for start in range(0, 33, size)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_float_pass_at_the_source_is_the_frozen_model_but_for_quantization(
    engine: Engine, subject: Subject
) -> None:
    inputs = subject.samples(3, 256)
    forward = engine.forward(Forward(rows_of(engine, inputs, [0] * 256, 0.0))).logits
    apart = np.abs(softmax(forward) - softmax(engine.frozen(inputs)))
    assert apart.mean() <= subject.quantized


def test_the_float_pass_elsewhere_is_the_folded_model_but_for_quantization(engine: Engine, subject: Subject) -> None:
    inputs = subject.samples(4, 128)
    theta, stats = _elsewhere(engine, inputs)
    rows = Rows(inputs, theta, stats, np.zeros(128, np.intp), np.zeros(128, np.float32))
    adapted = softmax(engine.predict(inputs, engine.fold(theta[0], stats[0])))
    assert np.abs(softmax(engine.forward(Forward(rows)).logits) - adapted).mean() <= 2 * subject.quantized
    assert np.abs(softmax(engine.frozen(inputs)) - adapted).max() > 1e-3, "theta is not elsewhere at all"


def _elsewhere(engine: Engine, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same theta and statistics, a little off the source's, for each row."""
    one = rows_of(engine, inputs[:1], [0], 0.0, jitter=0.05)
    stats = (one.stats * np.float32(1.05)).astype(np.float32)
    return np.repeat(one.theta, len(inputs), axis=0), np.repeat(stats, len(inputs), axis=0)


def test_batch_statistics_are_the_pooled_mean_and_variance_of_the_group(engine: Engine, subject: Subject) -> None:
    """With alpha 0 the rows are independent, so pooling follows from the law of total variance."""
    inputs, group = subject.samples(5, 9), [0, 1, 0, 1, 1, 0, 2, 1, 0]
    together = engine.forward(Forward(rows_of(engine, inputs, group, 0.0))).batch_stats
    single = engine.forward(Forward(rows_of(engine, inputs, list(range(9)), 0.0))).batch_stats.astype(np.float64)
    layout = {entry.name: entry.span for entry in engine.manifest.statistics.slices}
    for row, number in enumerate(group):
        mates = single[np.array(group) == number]
        for site in engine.manifest.sites:
            means, variances = mates[:, layout[site.mean]], mates[:, layout[site.var]]
            pooled = variances.mean(axis=0) + means.var(axis=0)
            np.testing.assert_allclose(together[row, layout[site.mean]], means.mean(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(together[row, layout[site.var]], pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_gradient_is_that_of_the_forward_pass(engine: Engine, subject: Subject, alpha: float) -> None:
    """Central differences along random directions; alpha above 0 couples the rows of a group."""
    inputs, group = subject.samples(6, 6), [0, 0, 0, 1, 1, 1]
    rows, weights = rows_of(engine, inputs, group, alpha, jitter=0.02), cotangent(engine, 6)
    gradient = engine.vjp(Gradient(rows, weights)).grad_theta
    generator, step = np.random.default_rng(7), 1e-3
    scale = np.linalg.norm(gradient) / np.sqrt(gradient.size)
    assert scale > 0
    measured, predicted = [], []
    for _ in range(12):
        # One direction per group: the rows of a session share its parameters.
        direction = generator.normal(size=(2, gradient.shape[1]))[np.array(group)].astype(np.float32) * step

        def loss(theta: np.ndarray) -> float:
            moved = Rows(rows.inputs, theta, rows.stats, rows.group, rows.alpha)
            return float((engine.forward(Forward(moved)).logits.astype(np.float64) * weights).sum())

        measured.append((loss(rows.theta + direction) - loss(rows.theta - direction)) / 2)
        predicted.append(float((gradient.astype(np.float64) * direction).sum()))
    error = np.linalg.norm(np.subtract(measured, predicted)) / np.linalg.norm(measured)
    assert error < subject.kinks, f"relative error {error:.4f}"


def test_features_make_the_logits(engine: Engine, subject: Subject) -> None:
    rows, figures = rows_of(engine, subject.samples(7, 6), [0] * 6, 0.0, jitter=0.02), engine.source.features
    outputs = engine.forward(Forward(rows))
    assert figures is not None
    assert outputs.features.shape == (6, engine.manifest.features) == (6, figures.width)
    # The figures hold the layer to 8 bits, and so does the graph.
    made = outputs.features @ figures.weight.T + figures.bias
    np.testing.assert_allclose(made, outputs.logits, rtol=1e-3, atol=1e-3 * np.abs(outputs.logits).max())


def test_a_cotangent_of_features_adds_to_that_of_the_logits(engine: Engine, subject: Subject) -> None:
    """The last layer is linear, so its weight turns one into the other."""
    rows, weights = rows_of(engine, subject.samples(7, 6), [0, 0, 0, 1, 1, 1], 0.5, jitter=0.02), cotangent(engine, 6)
    figures = engine.source.features
    assert figures is not None
    through, zeros = (weights @ figures.weight).astype(np.float32), np.zeros_like(weights)
    expected = engine.vjp(Gradient(rows, weights)).grad_theta
    size = np.linalg.norm(expected)
    assert size > 0
    for half in (Gradient(rows, zeros, through), Gradient(rows, weights / 2, through / 2)):
        assert np.linalg.norm(engine.vjp(half).grad_theta - expected) < 1e-3 * size


def test_the_passes_agree_on_the_logits(engine: Engine, subject: Subject) -> None:
    rows = rows_of(engine, subject.samples(8, 12), [0] * 5 + [1] * 7, 0.3, jitter=0.02)
    forward, vjp = engine.forward(Forward(rows)).logits, engine.vjp(Gradient(rows, cotangent(engine, 12))).logits
    np.testing.assert_allclose(vjp, forward, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_groups_do_not_see_each_other(engine: Engine, subject: Subject, alpha: float) -> None:
    mine, weights = subject.samples(9, 8), cotangent(engine, 16)
    replies = []
    for stranger in (10, 11):
        inputs = np.concatenate([mine, subject.samples(stranger, 8)])
        rows = rows_of(engine, inputs, [0] * 8 + [1] * 8, alpha)
        replies.append((engine.forward(Forward(rows)), engine.vjp(Gradient(rows, weights))))
    (one, one_back), (other, other_back) = replies
    for a, b in ((one.logits, other.logits), (one.batch_stats, other.batch_stats)):
        np.testing.assert_allclose(a[:8], b[:8], rtol=1e-5, atol=1e-5)
        assert not np.allclose(a[8:], b[8:], rtol=1e-2, atol=1e-2)
    size = np.linalg.norm(one_back.grad_theta[:8])
    assert np.linalg.norm(one_back.grad_theta[:8] - other_back.grad_theta[:8]) <= 1e-5 * size


def test_what_is_passed_in_is_never_written(engine: Engine, subject: Subject) -> None:
    rows, weights = rows_of(engine, subject.samples(12, 4), [0, 0, 1, 1], 0.5), cotangent(engine, 4)
    given = [getattr(rows, field.name) for field in fields(rows)] + [weights]
    before = [array.tobytes() for array in given]
    for array in given:
        array.flags.writeable = False
    engine.forward(Forward(rows))
    engine.vjp(Gradient(rows, weights))
    engine.frozen(rows.inputs)
    engine.predict(rows.inputs, engine.fold(rows.theta[0], rows.stats[0]))
    assert [array.tobytes() for array in given] == before


def test_what_is_handed_out_stays_as_it_was(engine: Engine, subject: Subject) -> None:
    """A reply that shares memory with the engine's scratch space would change with the next call."""
    inputs = subject.samples(13, 4)
    rows, weights = rows_of(engine, inputs, [0, 0, 1, 1], 0.5), cotangent(engine, 4)
    forward, vjp, frozen = engine.forward(Forward(rows)), engine.vjp(Gradient(rows, weights)), engine.frozen(inputs)
    kept = [array.copy() for array in (forward.logits, forward.batch_stats, vjp.grad_theta, frozen)]
    other = rows_of(engine, subject.samples(14, 4), [0, 0, 1, 1], 0.5)
    engine.forward(Forward(other))
    engine.vjp(Gradient(other, -weights))
    engine.frozen(other.inputs)
    for array, copy in zip((forward.logits, forward.batch_stats, vjp.grad_theta, frozen), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_calls_from_several_threads_do_not_disturb_each_other(engine: Engine, subject: Subject) -> None:
    def job(seed: int) -> list[bytes]:
        inputs = subject.samples(seed, 3 + seed % 4)
        rows = rows_of(engine, inputs, [seed % 2] * len(inputs), 0.5)
        folded = engine.fold(engine.source.theta * np.float32(1 + seed / 50), engine.source.stats)
        outputs, gradients = engine.forward(Forward(rows)), engine.vjp(Gradient(rows, cotangent(engine, len(inputs))))
        arrays = (engine.frozen(inputs), engine.predict(inputs, folded), outputs.logits, gradients.grad_theta)
        return [array.tobytes() for array in arrays]

    alone = [job(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, range(12))) == alone


def test_closing_twice_is_harmless(subject: Subject, bundle_path: Path) -> None:
    engine = subject.build(bundle_path)
    engine.close()
    engine.close()


def test_the_source_fits_the_manifest(engine: Engine) -> None:
    source, manifest = engine.source, engine.manifest
    assert source.theta.shape == source.fisher.shape == (manifest.parameters.size,)
    assert source.stats.shape == (manifest.statistics.size,)
    assert source.class_prior.sum() == pytest.approx(1.0, abs=1e-4)
    assert (source.fisher >= 0).all()
    assert len(source.canary_inputs) == len(source.canary_labels) > 0
