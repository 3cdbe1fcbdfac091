"""The learning pass by hand: against torch's own gradients, and in each of the forms that its parts take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="language models need torch; pip install 'acclimate[llm]'")

from acclimate.adapters.language import TokenRows, TokenScores, token_rows  # noqa: E402
from acclimate.runtime.engines.torch_lm import attending, packing, scoring  # noqa: E402
from acclimate.runtime.engines.torch_lm.arena import Arena  # noqa: E402
from acclimate.runtime.engines.torch_lm.packing import pack  # noqa: E402
from acclimate.runtime.engines.torch_lm.weights import Dense  # noqa: E402
from tests.runtime.engines.tiny import VOCABULARY, cotangents, engine_of, relative, some_rows, thetas  # noqa: E402

CPU = torch.device("cpu")


def trees(count: int, width: int = 23) -> TokenRows:
    """Random trees, a session each."""
    random = np.random.default_rng(7)
    parent = np.tile(np.arange(-1, width - 1), (count, 1))
    parent[:, 5:] = random.integers(3, np.arange(5, width), (count, width - 5))
    ids = random.integers(2, VOCABULARY, (count, width))
    return TokenRows(ids, np.full(count, width), np.arange(count), parent=parent)


def even_rows(length: int) -> TokenRows:
    """Four rows of one length, of two sessions."""
    random = np.random.default_rng(8)
    return token_rows([random.integers(2, VOCABULARY, length) for _ in range(4)], [0, 1, 1, 0])


@pytest.mark.parametrize("rows", [some_rows([0, 1, 0, 2]), trees(3)], ids=["texts", "trees"])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_wide_lines_are_like_narrow_ones(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, rows: TokenRows, precision: str, limit: float
) -> None:
    engine = engine_of(tiny_path, precision=precision)
    theta, weights = thetas(engine, 3), cotangents(rows)
    narrow, expected = engine.vjp(rows, theta, weights)
    monkeypatch.setattr(attending, "NARROW", 8)
    wide, gradient = engine.vjp(rows, theta, weights)
    assert relative(wide.logprob, narrow.logprob) < limit
    assert relative(gradient, expected) < limit
    np.testing.assert_array_equal(engine.score(rows, theta).logprob, wide.logprob)


@pytest.mark.parametrize("length", [16, 32, 80])
def test_filled_rows_are_like_others(tiny_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    engine, rows = engine_of(tiny_path), even_rows(length)
    assert len(pack(rows, CPU).ids) == 4 * length
    assert pack(rows, CPU).rows.into is None
    assert pack(rows, CPU).sessions.into is None
    filled, gradient = engine.vjp(rows, thetas(engine, 2), cotangents(rows))
    monkeypatch.setattr(packing, "FILLING", -1.0)
    assert len(pack(rows, CPU).ids) == 4 * (length - 1)
    found, expected = engine.vjp(rows, thetas(engine, 2), cotangents(rows))
    assert relative(filled.logprob, found.logprob) < 1e-5
    assert relative(gradient, expected) < 1e-5


def test_filled_trees_are_like_others(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rows = engine_of(tiny_path), trees(2, 32)
    assert pack(rows, CPU).rows.into is None
    filled, gradient = engine.vjp(rows, thetas(engine, 2), cotangents(rows))
    monkeypatch.setattr(packing, "FILLING", -1.0)
    found, expected = engine.vjp(rows, thetas(engine, 2), cotangents(rows))
    assert relative(filled.logprob, found.logprob) < 1e-5
    assert relative(gradient, expected) < 1e-5


@pytest.mark.parametrize("rows", [even_rows(9), some_rows([0, 0, 1])], ids=["much filling", "uneven"])
def test_rows_that_are_not_filled(rows: TokenRows) -> None:
    assert len(pack(rows, CPU).ids) == int((rows.lengths - 1).sum())


def head_of(sharpness: float) -> tuple[Any, Any, Any]:
    """What a head reads, its matrix, and targets; the sharper, the likelier the first targets are."""
    torch.manual_seed(0)
    hidden, matrix = torch.randn(11, 24), torch.randn(VOCABULARY, 24)
    targets = torch.randint(0, VOCABULARY, (11,))
    hidden[:4] += sharpness * matrix[targets[:4]]
    return hidden, matrix, targets


@pytest.mark.parametrize("sharpness", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("block", [VOCABULARY, 48, 1])
def test_the_head_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int, sharpness: float) -> None:
    monkeypatch.setattr(scoring, "BLOCK", {"cpu": block})
    monkeypatch.setattr(scoring, "AT_ONCE", 5)
    hidden, matrix, targets = head_of(sharpness)
    exact = hidden.double().requires_grad_()
    logs = (exact @ matrix.double().T).log_softmax(-1)
    logprob, entropy = logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1)
    given = torch.randn(2, 11)
    given[:, 6:8] = 0
    expected = [torch.autograd.grad(of.sum(), exact, retain_graph=True)[0] for of in (logprob, entropy)]
    scored = scoring.scores(Arena(CPU), hidden, Dense(matrix), targets, logprob=True, entropy=True)
    torch.testing.assert_close(scored.logprob, logprob.detach().float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scored.entropy, entropy.detach().float(), rtol=1e-4, atol=1e-5)
    assert scored.of_logprob is not None
    assert scored.of_entropy is not None
    torch.testing.assert_close(scored.of_logprob, expected[0].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored.of_entropy, expected[1].float(), rtol=1e-4, atol=1e-4)
    found, gradient = scoring.pulled(Arena(CPU), hidden, Dense(matrix), targets, (given[0], given[1]))
    torch.testing.assert_close(found.logprob, scored.logprob)
    whole = given[0, :, None] * expected[0] + given[1, :, None] * expected[1]
    torch.testing.assert_close(gradient, whole.float(), rtol=1e-4, atol=1e-4)


def test_a_likely_target_has_a_gradient_in_bfloat16() -> None:
    hidden, matrix, targets = head_of(0.4)
    rounded, read = matrix.bfloat16(), hidden.bfloat16().float()
    exact = read.double().requires_grad_()
    logs = (exact @ rounded.double().T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad(logs.sum(), exact)
    scored = scoring.scores(Arena(CPU), read, Dense(rounded), targets, logprob=True)
    assert scored.of_logprob is not None
    assert scored.logprob[:4].exp().max() > 0.99
    for row in range(len(read)):
        assert relative(scored.of_logprob[row].numpy(), expected[row].numpy()) < 0.02, row


def test_cotangents_that_depend_on_scores_are_like_others(tiny_path: Path) -> None:
    engine, rows = engine_of(tiny_path), some_rows([0, 1])
    theta, weights = thetas(engine, 2), cotangents(rows)
    for known in (weights, replace(weights, entropy=np.zeros_like(weights.entropy))):
        told: list[TokenScores] = []

        def later(scores: TokenScores, known: TokenScores = known, told: list[TokenScores] = told) -> TokenScores:
            told.append(scores)
            return known

        scored, gradient = engine.vjp(rows, theta, later)
        _, expected = engine.vjp(rows, theta, known)
        assert len(told) == 1
        np.testing.assert_array_equal(told[0].logprob, scored.logprob)
        assert relative(gradient, expected) < 1e-6
