"""What every language engine promises of rows and trees of tokens, and of texts; the table is beside this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from acclimate.adapters.language import TokenRows, TokenScores, token_rows
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Emitted, LanguageEngine, Message, Sampling
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted
from tests.contracts.test_language_engines import ENGINES

TEXTS = ["the fox jumps", "a dog", "lazy brown dogs", "quick!"]


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageEngine]:
    built = ENGINES[request.param](tmp_path_factory.mktemp("engine"))
    yield built
    built.close()


def thetas(engine: LanguageEngine, sessions: int, seed: int = 0) -> Float:
    drawn = np.random.default_rng(seed).normal(0, 0.05, (sessions, engine.source.parameters.size))
    result: Float = (engine.source.theta + drawn).astype(np.float32)
    return result


def rows_of(engine: LanguageEngine, group: list[int]) -> TokenRows:
    return token_rows([engine.tokenizer.encode(text) for text in TEXTS], group)


def test_the_layout_describes_theta(engine: LanguageEngine) -> None:
    manifest, source = engine.manifest, engine.source
    assert manifest.task == "text-generation"
    assert source.theta.shape == (manifest.parameters.size,)
    assert source.stats.size == manifest.statistics.size == 0
    assert not source.theta[manifest.parameters.columns("lora.B")].any()
    assert source.theta[manifest.parameters.columns("lora.A")].any()
    names = {entry.name for entry in manifest.parameters.slices}
    assert {name for lora in manifest.lora for name in (lora.a, lora.b)} == names


def test_scores_are_log_probabilities_and_zero_where_there_is_nothing(engine: LanguageEngine) -> None:
    rows = rows_of(engine, [0, 0, 1, 1])
    scores = engine.score(rows, thetas(engine, 2))
    scored = np.arange(rows.ids.shape[1])[np.newaxis] < rows.lengths[:, np.newaxis]
    scored[:, 0] = False
    assert (scores.logprob[scored] < 0).all()
    assert (scores.entropy[scored] > 0).all()
    assert not scores.logprob[~scored].any()
    assert not scores.entropy[~scored].any()


def test_the_gradient_is_that_of_finite_differences(engine: LanguageEngine) -> None:
    rows, theta, random = rows_of(engine, [0, 1, 1, 0]), thetas(engine, 2), np.random.default_rng(1)
    cotangents = TokenScores(*(random.normal(size=rows.ids.shape).astype(np.float32) for _ in range(2)))
    scores, gradient = engine.vjp(rows, theta, cotangents)

    def value(at: Float) -> float:
        found = engine.score(rows, at)
        return float((found.logprob * cotangents.logprob + found.entropy * cotangents.entropy).sum(dtype=np.float64))

    np.testing.assert_allclose(scores.logprob, engine.score(rows, theta).logprob, rtol=1e-5, atol=1e-5)
    seen = []
    _, pulled = engine.vjp(rows, theta, lambda found: seen.append(found) or cotangents)
    np.testing.assert_array_equal(pulled, gradient)
    np.testing.assert_array_equal(seen[0].logprob, scores.logprob)
    for _ in range(8):
        direction = random.normal(size=theta.shape).astype(np.float32)
        step = np.float32(1e-2 / np.linalg.norm(direction))
        slope = (value(theta + step * direction) - value(theta - step * direction)) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum(dtype=np.float64)), rel=5e-2, abs=2e-2)


def test_batched_equals_alone(engine: LanguageEngine) -> None:
    rows, theta = rows_of(engine, [0, 1, 2, 1]), thetas(engine, 3)
    ones = TokenScores(np.ones(rows.ids.shape, np.float32), np.zeros(rows.ids.shape, np.float32))
    together, gradient = engine.vjp(rows, theta, ones)
    for session in range(3):
        own = np.flatnonzero(rows.group == session)
        alone = TokenRows(rows.ids[own], rows.lengths[own], np.zeros(len(own), np.intp))
        scores, mine = engine.vjp(
            alone,
            theta[session : session + 1],
            TokenScores(*(np.ones_like(x[own]) * k for x, k in ((ones.logprob, 1), (ones.entropy, 0)))),
        )
        np.testing.assert_allclose(scores.logprob, together.logprob[own], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine[0], gradient[session], rtol=1e-3, atol=1e-4)


def test_a_tree_scores_as_its_branches_do_alone(engine: LanguageEngine) -> None:
    trunk, left, right = (engine.tokenizer.encode(text) for text in ("the lazy ", "dog", "fox"))
    ids = np.concatenate([trunk, left, right])[np.newaxis]
    width = len(trunk) + len(left) + len(right)
    parent = np.arange(-1, width - 1)[np.newaxis]
    parent[0, len(trunk) + len(left)] = len(trunk) - 1
    tree = TokenRows(ids, np.array([width]), np.zeros(1, np.intp), parent=parent)
    theta = thetas(engine, 1)
    ones = TokenScores(np.ones(ids.shape, np.float32), np.full_like(ids, 0.5, np.float32))
    found, gradient = engine.vjp(tree, theta, ones)
    alone = token_rows([np.concatenate([trunk, left]), np.concatenate([trunk, right])], [0, 0])
    scores = engine.score(alone, theta)
    n = len(trunk)
    np.testing.assert_allclose(found.logprob[0, : n + len(left)], scores.logprob[0, : n + len(left)], atol=1e-4)
    np.testing.assert_allclose(found.logprob[0, n + len(left) :], scores.logprob[1, n : n + len(right)], atol=1e-4)
    once = np.ones(alone.ids.shape, np.float32)
    once[1, :n] = 0
    once *= np.arange(alone.ids.shape[1]) < alone.lengths[:, np.newaxis]
    expected = engine.vjp(alone, theta, TokenScores(once, once * np.float32(0.5)))[1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def written(engine: LanguageEngine, sampling: Sampling, theta: Float, prompt: str = "the ") -> list[Emitted]:
    decoder = engine.decoder(2)
    decoder.admit(engine.tokenizer.encode(prompt), theta, sampling)
    emitted: list[Emitted] = []
    while not emitted or not emitted[-1].finish:
        emitted += decoder.step()
    assert decoder.free == 2
    return emitted


def test_greedy_text_is_what_the_scores_say(engine: LanguageEngine) -> None:
    theta = thetas(engine, 1)
    emitted = written(engine, Sampling(max_tokens=5), theta[0])
    assert emitted[-1].finish == "length"
    prompt = engine.tokenizer.encode("the ")
    row = token_rows([np.concatenate([prompt, [token.token for token in emitted]])], [0])
    scores = engine.score(row, theta)
    np.testing.assert_allclose([t.logprob for t in emitted], scores.logprob[0, len(prompt) :], atol=1e-4)
    np.testing.assert_allclose([t.entropy for t in emitted], scores.entropy[0, len(prompt) :], atol=1e-4)


def test_seeds_repeat_and_sessions_keep_apart(engine: LanguageEngine) -> None:
    theta = thetas(engine, 2)
    drawn = Sampling(max_tokens=12, temperature=1.0, top_p=0.95, seed=3)
    alone = [written(engine, drawn, row) for row in theta]
    assert alone[0] == written(engine, drawn, theta[0])
    assert [t.token for t in alone[0]] != [t.token for t in written(engine, replace(drawn, seed=4), theta[0])]
    decoder = engine.decoder(2)
    slots = [decoder.admit(engine.tokenizer.encode("the "), row, drawn) for row in theta]
    together: dict[int, list[int]] = {slot: [] for slot in slots}
    while decoder.free < 2:
        for token in decoder.step():
            together[token.slot].append(token.token)
    assert [together[slot] for slot in slots] == [[t.token for t in text] for text in alone]


def test_a_stop_string_ends_the_text_and_is_not_told(engine: LanguageEngine) -> None:
    theta = thetas(engine, 1)[0]
    drawn = Sampling(max_tokens=40, temperature=1.0, seed=1)
    text = "".join(token.text for token in written(engine, drawn, theta))
    stop = text[4:6]
    stopped = written(engine, replace(drawn, stop=(stop,)), theta)
    assert "".join(token.text for token in stopped) == text[: text.index(stop)]
    assert stopped[-1].finish == "stop"


def test_what_cannot_be_admitted_is_refused(engine: LanguageEngine) -> None:
    decoder, theta = engine.decoder(1), engine.source.theta
    with pytest.raises(InvalidArgument, match="prompt"):
        decoder.admit(np.zeros(0, np.int64), theta, Sampling(1))
    with pytest.raises(InvalidArgument, match="prompt"):
        decoder.admit(np.zeros(engine.context, np.int64), theta, Sampling(1))
    slot = decoder.admit(engine.tokenizer.encode("the"), theta, Sampling(1))
    with pytest.raises(ResourceExhausted, match="slots"):
        decoder.admit(engine.tokenizer.encode("the"), theta, Sampling(1))
    decoder.release(slot)
    decoder.release(slot)
    assert decoder.free == 1
    assert decoder.step() == []


def test_a_conversation_ends_where_the_assistant_begins(engine: LanguageEngine) -> None:
    tokenizer = engine.tokenizer
    ids = tokenizer.chat([Message("user", "hello")])
    assert "hello" in tokenizer.decode(ids)
    assert tokenizer.decode(tokenizer.encode("häßlich ✓")) == "häßlich ✓"
