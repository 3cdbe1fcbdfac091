"""Source statistics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from acclimate.export.backward.vjp import vjp_graph
from acclimate.export.passes.sites import Adaptable
from acclimate.export.statistics import balanced, confidence_figures, fisher, softmax
from acclimate.export.trace import Preprocessed
from tests.export.nets import PREPROCESSING, pictures, tiny_net


def test_fisher_is_the_mean_squared_gradient_of_a_batch(tiny: Adaptable) -> None:
    """EATA's definition, computed by torch: train-mode norms, cross-entropy with the model's own answers."""
    inputs = pictures(150)
    model = tiny_net()
    wrapped = Preprocessed(model, PREPROCESSING).double()
    model.train()
    squares = []
    for start in (0, 64):
        logits = wrapped(torch.from_numpy(inputs[start : start + 64]))
        model.zero_grad()
        functional.cross_entropy(logits, logits.argmax(1)).backward()
        named = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        squares.append(tiny.parameters.pack({e.name: named[e.name] for e in tiny.parameters.slices}) ** 2)
    np.testing.assert_allclose(fisher(tiny, vjp_graph(tiny), inputs), np.mean(squares, 0), rtol=2e-3, atol=1e-9)


def test_fisher_of_few_samples_uses_them_all(tiny: Adaptable) -> None:
    assert fisher(tiny, vjp_graph(tiny), pictures(20)).max() > 0


def test_threshold_leaves_the_accuracy_s_share_above_it() -> None:
    generator = np.random.default_rng(0)
    probabilities = softmax(2 * generator.standard_normal((1000, 5)).astype(np.float32))
    labels = generator.integers(0, 5, 1000)
    labels[:600] = probabilities[:600].argmax(1)
    figures = confidence_figures(probabilities, labels)
    assert figures.labelled
    assert figures.accuracy == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert (probabilities.max(1) > figures.confidence_threshold).mean() == pytest.approx(figures.accuracy, abs=2e-3)
    assert figures.mean_entropy == pytest.approx(
        float(torch.distributions.Categorical(torch.from_numpy(probabilities)).entropy().mean())
    )


def test_without_labels_the_confidence_stands_in() -> None:
    probabilities = softmax(np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32))
    figures = confidence_figures(probabilities, None)
    assert not figures.labelled
    assert figures.accuracy == figures.mean_confidence


def test_certain_answers_have_no_entropy() -> None:
    figures = confidence_figures(np.eye(4)[[0, 1, 2, 3]], np.arange(4))
    assert (figures.accuracy, figures.mean_entropy) == (1.0, 0.0)


def test_canaries_take_the_classes_in_turn() -> None:
    answers = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    np.testing.assert_array_equal(balanced(answers, 5), [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(balanced(answers, 100), np.arange(8))
