"""What every engine of language models promises, as `runtime/engines/language.py` has it; an engine is a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.language import TokenRows, TokenScores, token_rows
from acclimate.runtime.engines.language import LanguageEngine, Sampling
from acclimate.runtime.engines.reference_language import reference_language
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted


def torch_engine(folder: Path) -> LanguageEngine:
    pytest.importorskip("torch", reason="the torch engine needs acclimate[llm]")
    from tests.runtime.engines.tiny import engine_of, make_model

    return engine_of(make_model(folder / "tiny"))


ENGINES: dict[str, Callable[[Path], LanguageEngine]] = {
    "reference": lambda _: reference_language("the quick brown fox jumps over the lazy dog. " * 4),
    "torch": torch_engine,
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageEngine:
    return ENGINES[request.param](tmp_path_factory.mktemp("engine"))


def rows_of(engine: LanguageEngine) -> TokenRows:
    ids = engine.tokenizer.encode("The quick brown fox jumps over the lazy dog")
    return token_rows([ids, ids[2:9], ids[:5]], [0, 1, 0])


def moved(engine: LanguageEngine, count: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((count, engine.manifest.parameters.size))
    return (engine.source.theta + 0.05 * noise).astype(np.float32)


def test_the_manifest_describes_theta(engine: LanguageEngine) -> None:
    manifest, source = engine.manifest, engine.source
    assert manifest.task == "text-generation"
    assert manifest.statistics.size == source.stats.size == 0
    assert source.theta.shape == (manifest.parameters.size,)
    assert {entry.kind for entry in manifest.parameters.slices} == {"lora.A", "lora.B"}
    assert [name for update in manifest.lora for name in (update.a, update.b)] == [
        entry.name for entry in manifest.parameters.slices
    ]
    assert engine.flops_per_token > 0
    assert engine.context > 1


def test_scores_are_zero_where_there_is_nothing_to_score(engine: LanguageEngine) -> None:
    rows = rows_of(engine)
    scored = engine.score(rows, moved(engine, 2))
    there = np.arange(rows.ids.shape[1]) < rows.lengths[:, None]
    there[:, 0] = False
    assert (scored.logprob[there] < 0).all()
    assert (scored.entropy[there] > 0).all()
    assert not scored.logprob[~there].any()
    assert not scored.entropy[~there].any()


def test_a_gradient_goes_uphill_and_to_its_own_session(engine: LanguageEngine) -> None:
    rows, theta = rows_of(engine), moved(engine, 3)
    ones, zeros = np.ones(rows.ids.shape, np.float32), np.zeros(rows.ids.shape, np.float32)
    scored, gradient = engine.vjp(rows, theta, TokenScores(ones, zeros))
    plain = engine.score(rows, theta)
    np.testing.assert_allclose(scored.logprob, plain.logprob, rtol=1e-3, atol=1e-3)
    assert not gradient[2].any()
    size = np.linalg.norm(gradient)
    better = engine.score(rows, theta + (1e-2 / size) * gradient)
    gained = float(better.logprob.sum() - plain.logprob.sum())
    assert gained == pytest.approx(1e-2 * size, rel=0.1)
    _, only = engine.vjp(rows, theta, TokenScores(ones * (rows.group == 1)[:, None], zeros))
    assert not only[0].any()
    np.testing.assert_allclose(only[1], gradient[1], rtol=1e-3, atol=1e-4 * np.abs(gradient[1]).max())


def test_a_text_is_what_the_scores_say_is_likeliest(engine: LanguageEngine) -> None:
    theta, prompt = moved(engine, 1)[0], engine.tokenizer.encode("The quick")
    decoder = engine.decoder(2)
    slot = decoder.admit(prompt, theta, Sampling(4))
    said = []
    while decoder.free < 2:
        said += decoder.step()
    assert {token.slot for token in said} == {slot}
    whole = np.concatenate([prompt, [token.token for token in said]])
    scored = engine.score(token_rows([whole], [0]), theta[None])
    np.testing.assert_allclose(
        [token.logprob for token in said], scored.logprob[0, len(prompt) :], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(
        [token.entropy for token in said], scored.entropy[0, len(prompt) :], rtol=1e-3, atol=1e-3
    )


def test_slots_are_counted(engine: LanguageEngine) -> None:
    decoder, prompt = engine.decoder(1), engine.tokenizer.encode("dog")
    slot = decoder.admit(prompt, engine.source.theta, Sampling(4))
    with pytest.raises(ResourceExhausted):
        decoder.admit(prompt, engine.source.theta, Sampling(4))
    decoder.release(slot)
    decoder.release(slot)
    assert decoder.free == 1
    with pytest.raises(InvalidArgument):
        decoder.admit(prompt[:0], engine.source.theta, Sampling(4))
    assert decoder.free == 1
