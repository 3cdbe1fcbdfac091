"""Scores and gradients: against transformers and PEFT, against differences, and alone against in company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.runtime.engines.torch_lm.packing import parts, taken
from acclimate.runtime.errors import InvalidArgument
from tests.runtime.engines.tiny import (
    CONTEXT,
    cotangents,
    engine_of,
    make_model,
    peft_model,
    peft_scores,
    relative,
    some_rows,
    thetas,
)

# Rows of one session need not stand together.
GROUP = [0, 1, 0, 2, 1, 0]
FAMILIES = {
    "qwen2": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": False},
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}


def compared(path: Path, engine, rows: TokenRows, theta: np.ndarray) -> None:
    """Scores and gradients are those of torch through PEFT, session by session."""
    weights = cotangents(rows)
    scored, gradient = engine.vjp(rows, theta, weights)
    for session in range(len(theta)):
        model = peft_model(path, engine, theta[session])
        total: Any = 0.0
        for row in np.flatnonzero(rows.group == session):
            length = rows.lengths[row]
            logprob, entropy = peft_scores(model, rows.ids[row, :length])
            np.testing.assert_allclose(scored.logprob[row, 1:length], logprob.detach(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(scored.entropy[row, 1:length], entropy.detach(), rtol=1e-4, atol=1e-4)
            for values, of in ((logprob, weights.logprob), (entropy, weights.entropy)):
                total = total + (values * values.new_tensor(of[row, 1:length])).sum()
        total.backward()
        expected = {
            name.removeprefix("base_model.model.").replace(".default.weight", ".weight"): parameter.grad.numpy()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        assert relative(gradient[session], engine.manifest.parameters.pack(expected)) < 1e-4


def test_scores_and_gradients_are_those_of_peft(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    compared(tiny_path, engine, some_rows(GROUP), thetas(engine, 3))


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("o_proj",), ("k_proj", "up_proj", "down_proj")])
def test_some_projections_are_updated(tiny_path: Path, targets: tuple[str, ...]) -> None:
    engine = engine_of(tiny_path, targets=targets)
    assert {update.name.rpartition(".")[2] for update in engine.manifest.lora} == set(targets)
    compared(tiny_path, engine, some_rows(GROUP[:3]), thetas(engine, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_relatives_of_llama(family: str, tmp_path: Path) -> None:
    path = make_model(tmp_path / family, family, **FAMILIES[family])
    engine = engine_of(path)
    compared(path, engine, some_rows(GROUP[:3], longest=60), thetas(engine, 2))


def test_the_source_changes_nothing(tiny_path: Path) -> None:
    engine, rows = engine_of(tiny_path), some_rows([0, 0])
    logprob, _ = peft_scores(peft_model(tiny_path, engine, engine.source.theta), rows.ids[0, : rows.lengths[0]])
    plain = engine.score(rows, engine.source.theta[None]).logprob[0, 1 : rows.lengths[0]]
    np.testing.assert_allclose(plain, logprob.detach(), rtol=1e-4, atol=1e-4)
    blank = engine.source.theta.copy()
    blank[engine.manifest.parameters.columns("lora.A")] = 0
    np.testing.assert_array_equal(engine.score(rows, blank[None]).logprob[0, 1 : rows.lengths[0]], plain)


def test_gradients_are_differences(tiny_path: Path) -> None:
    engine, rows = engine_of(tiny_path), some_rows([0, 1])
    theta, weights = thetas(engine, 2), cotangents(rows)
    _, gradient = engine.vjp(rows, theta, weights)

    def value(at: np.ndarray) -> float:
        scored = engine.score(rows, at)
        total = scored.logprob.astype(float) * weights.logprob + scored.entropy.astype(float) * weights.entropy
        return float(total.sum())

    for seed in range(3):
        way = np.random.default_rng(seed).standard_normal(theta.shape).astype(np.float32)
        way /= np.linalg.norm(way)
        step = 1e-2
        difference = (value(theta + step * way) - value(theta - step * way)) / (2 * step)
        assert difference == pytest.approx(float((gradient * way).sum()), rel=0.02, abs=0.02)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("bf16", 1e-3), ("nf4", 1e-3), ("int8", 1e-3)])
def test_alone_and_in_company_agree(tiny_path: Path, precision: str, limit: float) -> None:
    engine, rows = engine_of(tiny_path, precision=precision), some_rows(GROUP, seed=3)
    theta, weights = thetas(engine, 3), cotangents(rows)
    together, gradient = engine.vjp(rows, theta, weights)
    for session in range(3):
        part = np.flatnonzero(rows.group == session)
        mine = replace(taken(rows, part), group=np.zeros(len(part), np.intp))
        width = mine.ids.shape[1]
        mine_weights = TokenScores(weights.logprob[part, :width], weights.entropy[part, :width])
        alone, mine_gradient = engine.vjp(mine, theta[session : session + 1], mine_weights)
        assert relative(gradient[session], mine_gradient[0]) < limit
        assert relative(together.logprob[part, :width], alone.logprob) < limit


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.03), ("int8", 0.05), ("int4", 0.6), ("nf4", 0.6)])
def test_precisions_are_near_the_model(tiny_path: Path, precision: str, limit: float) -> None:
    rows = some_rows([0, 0, 0, 0])
    exact, rough = (engine_of(tiny_path, precision=chosen) for chosen in ("fp32", precision))
    expected, got = (engine.score(rows, engine.source.theta[None]).logprob for engine in (exact, rough))
    assert 0 < relative(got, expected) < limit
    assert rough.base_bytes < exact.base_bytes


def test_only_what_is_wanted_is_scored(tiny_path: Path) -> None:
    engine, rows = engine_of(tiny_path), some_rows(GROUP)
    theta, weights = thetas(engine, 3), cotangents(rows)
    wanted = np.random.default_rng(0).random(rows.ids.shape) < 0.3
    wanted[2] = False
    some, full = engine.score(replace(rows, scored=wanted), theta), engine.score(rows, theta)
    np.testing.assert_allclose(some.logprob, np.where(wanted, full.logprob, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(some.entropy, np.where(wanted, full.entropy, 0), rtol=1e-4, atol=1e-5)
    masked = TokenScores(weights.logprob * wanted, weights.entropy * wanted)
    _, expected = engine.vjp(rows, theta, masked)
    _, gradient = engine.vjp(replace(rows, scored=wanted), theta, weights)
    assert relative(gradient, expected) < 1e-5


def test_nothing_to_score(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    rows = TokenRows(np.full((2, 1), 5), np.array([1, 1]), np.zeros(2, np.intp))
    scored, gradient = engine.vjp(rows, thetas(engine, 2), cotangents(rows))
    assert not scored.logprob.any()
    assert not scored.entropy.any()
    assert gradient.shape == (2, engine.manifest.parameters.size)
    assert not gradient.any()


def test_many_tokens_go_in_parts(tiny_path: Path) -> None:
    rows = some_rows(GROUP, seed=5)
    assert len(parts(rows, 24)) > 2
    assert sorted(np.concatenate(parts(rows, 24)).tolist()) == list(range(len(GROUP)))
    whole, split = engine_of(tiny_path), engine_of(tiny_path, step_tokens=24)
    theta, weights = thetas(whole, 3), cotangents(rows)
    (one, one_back), (other, other_back) = (engine.vjp(rows, theta, weights) for engine in (whole, split))
    np.testing.assert_allclose(other.logprob, one.logprob, rtol=1e-4, atol=1e-5)
    assert relative(other_back, one_back) < 1e-5


def test_what_is_passed_in_is_never_written(tiny_path: Path) -> None:
    engine, rows = engine_of(tiny_path), some_rows(GROUP)
    theta, weights = thetas(engine, 3), cotangents(rows)
    arrays = [rows.ids, rows.lengths, rows.group, theta, weights.logprob, weights.entropy]
    before = [array.tobytes() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    engine.vjp(rows, theta, weights)
    assert [array.tobytes() for array in arrays] == before


def test_calls_from_several_threads(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)

    def job(seed: int) -> bytes:
        rows = some_rows([0, 1], seed)
        return engine.vjp(rows, thetas(engine, 2, seed), cotangents(rows, seed))[1].tobytes()

    alone = [job(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(job, range(6))) == alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.full((2, 4), 999)}, "ids lie outside 0 to 319"),
        ({"lengths": np.array([5, 2])}, "lengths go to 5; ids have 4 columns"),
        ({"group": np.array([0, 3])}, "group names rows of theta outside 0 to 0"),
        (
            {"ids": np.full((2, 99), 3), "lengths": np.array([99, 2])},
            f"a row has 99 tokens; the context holds {CONTEXT}",
        ),
    ],
)
def test_rows_that_cannot_be(tiny_path: Path, change: dict, message: str) -> None:
    engine = engine_of(tiny_path)
    rows = replace(TokenRows(np.full((2, 4), 3), np.array([4, 4]), np.zeros(2, np.intp)), **change)
    with pytest.raises(InvalidArgument, match=message):
        engine.score(rows, engine.source.theta[None])


def test_a_theta_of_another_model(tiny_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="theta has shape"):
        engine_of(tiny_path).score(some_rows([0]), np.zeros((1, 7), np.float32))
