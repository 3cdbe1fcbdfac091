"""The products, the pass and the choice of tokens that generation has for a few rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.language import token_rows
from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.engines.torch_lm import decoder, generating, kernels, weights
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
from acclimate.runtime.engines.torch_lm.generating import Given, Remembering
from acclimate.runtime.engines.torch_lm.llama import Base
from acclimate.runtime.engines.torch_lm.sampling import LIKELY, Chooser, chosen, likely
from acclimate.runtime.engines.torch_lm.weights import MAKERS, Vocabulary
from tests.runtime.engines.test_lm_decoder import PROMPTS, finished, said
from tests.runtime.engines.tiny import VOCABULARY, engine_of, thetas, torch

ROWS = [1, 2, 3, 5, 8, 16, 17, 33, 64]


def matrix(out: int = 192, inputs: int = 1536) -> torch.Tensor:
    return 0.05 * torch.randn(out, inputs, generator=torch.Generator().manual_seed(0))


def rows_of(count: int, width: int = 1536) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("precision", list(MAKERS))
def test_a_row_gives_the_same_in_any_company(precision: str) -> None:
    weight = MAKERS[precision](matrix())
    x = rows_of(ROWS[-1]).to(torch.float32 if precision == "fp32" else torch.bfloat16)
    alone = torch.cat([weight.few(x[row : row + 1]) for row in range(len(x))])
    for count in ROWS:
        assert torch.equal(weight.few(x[:count]), alone[:count])


@pytest.mark.parametrize("precision", list(MAKERS))
def test_few_rows_are_multiplied_by_the_dense_matrix(precision: str) -> None:
    weight = MAKERS[precision](matrix())
    x = rows_of(8).to(weight.dense().dtype)
    expected = x.double() @ weight.dense().double().T
    assert (weight.few(x).double() - expected).norm() < 0.006 * expected.norm()


def test_without_their_kernels_products_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_nf4_works", lambda: False)
    monkeypatch.setattr(kernels, "_bytes_work", lambda: False)
    weight = MAKERS["nf4"](matrix())
    x = rows_of(5)
    expected = x.to(torch.bfloat16) @ weight.dense().T
    assert torch.equal(weight.few(x.to(torch.bfloat16)), expected)
    held = matrix().to(torch.bfloat16)
    head = Vocabulary(held, rounded=True)
    assert head.bytes == held.nbytes
    assert torch.equal(head.few(x), (x.to(torch.bfloat16) @ held.T).float())


def test_kernels_that_multiply_wrong_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.Bytes.times
    for wrong in (lambda self, x: right(self, x) * 1.01, None):
        kernels._bytes_work.cache_clear()
        monkeypatch.setattr(kernels.Bytes, "times", wrong)
        assert not kernels._bytes_work()
    kernels._bytes_work.cache_clear()
    right_nf4 = kernels.Nf4Rows.times
    kernels._nf4_works.cache_clear()
    monkeypatch.setattr(kernels.Nf4Rows, "times", lambda self, x: right_nf4(self, x) * 1.05)
    assert not kernels._nf4_works()
    kernels._nf4_works.cache_clear()


@pytest.mark.skipif(not kernels._nf4_works(), reason="bitsandbytes has no kernel for this processor")
def test_the_kernel_of_another_version_is_asked_in_public(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = MAKERS["nf4"](matrix()), rows_of(4).to(torch.bfloat16)
    expected = weight.few(x)
    kernels._nf4_call.cache_clear()
    monkeypatch.setattr(kernels, "NF4_VERSIONS", ("0.0.",))
    assert kernels._nf4_call() is None
    assert torch.equal(weight.few(x), expected)
    kernels._nf4_call.cache_clear()


def test_a_matrix_that_does_not_fit_the_kernel() -> None:
    weight = MAKERS["nf4"](matrix(40, 128))
    x = rows_of(3, 128).to(torch.bfloat16)
    assert torch.equal(weight.few(x), x @ weight.dense().T)


@pytest.mark.skipif(not kernels._bytes_work(), reason="eight bits are not multiplied exactly here")
def test_the_head_in_eight_bits() -> None:
    """As near as its rounded weights let it be, a channel of what it reads far out, and the same in any company."""
    held = matrix(320, 576).to(torch.bfloat16)
    head = Vocabulary(held, rounded=True)
    x = rows_of(16, 576)
    x[:, 7] *= 60
    exact = x @ held.float().T
    unit = held.float().abs().amax(1, keepdim=True) / 127
    rounded = x @ (held / unit).round().mul(unit).T
    got = head.few(x)
    assert (got - rounded).abs().max() < 3e-4 * x.abs().max()
    assert (got - exact).norm() < 0.02 * exact.norm()
    for count in ROWS[:6]:
        assert torch.equal(head.few(x[:count]), got[:count])
    assert not torch.equal(got, Vocabulary(held, rounded=False).few(x))
    assert head.bytes > held.nbytes + held.numel()


@pytest.mark.parametrize("words", [LIKELY * 64, 49152, 1000, 20])
def test_likely_tokens_are_the_largest(words: int) -> None:
    logits = torch.randn(3, words, generator=torch.Generator().manual_seed(2))
    found = likely(logits)
    assert torch.equal(found.sort(1).values, logits.topk(min(LIKELY, words)).indices.sort(1).values)


def test_figures_of_a_token_are_those_of_its_distribution() -> None:
    logits = 4 * torch.randn(3, 4096, generator=torch.Generator().manual_seed(3))
    logs = torch.log_softmax(logits.double(), 1)
    choosers = [Chooser(Sampling(1)), Chooser(Sampling(1, temperature=4.0, seed=1)), Chooser(Sampling(1))]
    found = chosen(logits.clone(), torch.zeros(3, 8), torch.zeros(4096, 8), choosers)
    for row, (token, logprob, entropy) in enumerate(found):
        assert logprob == pytest.approx(float(logs[row, token]), abs=1e-5)
        assert entropy == pytest.approx(-float((logs[row].exp() * logs[row]).sum()), abs=1e-4)
    greedy = logits.argmax(1).tolist()
    assert [found[0][0], found[2][0]] == [greedy[0], greedy[2]]
    assert found[1][0] != greedy[1]


def test_the_exact_logit_decides_a_near_tie() -> None:
    hidden, held = torch.ones(1, 8), torch.zeros(128, 8, dtype=torch.bfloat16)
    held[5], held[90] = 1.0, 1.0078125
    logits = torch.zeros(1, 128)
    logits[0, 5], logits[0, 90] = 8.5, 8.0
    ((token, _, _),) = chosen(logits, hidden, held, [Chooser(Sampling(1))])
    assert token == 90


def steps(engine: TorchLanguageEngine, prompts: list[np.ndarray], theta: np.ndarray) -> list[list[int]]:
    """Which slots speak at each step until all have begun."""
    texts = engine.decoder(len(prompts))
    for prompt in prompts:
        texts.admit(prompt, theta, Sampling(40))
    heard: list[list[int]] = []
    while len({slot for slots in heard for slot in slots}) < len(prompts):
        heard.append([token.slot for token in texts.step()])
    return heard


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What passes are given from now on."""
    passes: list[Given] = []

    def read(base: Base, given: Given, remember: Remembering) -> torch.Tensor:
        passes.append(given)
        return generating.read(base, given, remember)

    monkeypatch.setattr(decoder, "read", read)
    return passes


def test_short_prompts_are_read_together(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(tiny_path)
    monkeypatch.setattr(decoder, "STRETCH", 12)
    passes = watched(monkeypatch)
    prompts = [np.arange(2, 2 + length) for length in (4, 4, 5, 3)]
    assert steps(engine, prompts, engine.source.theta) == [[0, 1, 2], [0, 1, 2, 3]]
    # Three prompts, then a token for each of them, then the last prompt.
    assert [len(given.ids) for given in passes] == [13, 3, 3]


@pytest.mark.parametrize("short", [4, 64])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4", "int8", "int4"])
def test_prompts_of_any_length_are_read_as_if_alone(
    tiny_path: Path, precision: str, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, sessions that have learnt beside those that have not."""
    monkeypatch.setattr(decoder, "STRETCH", 16)
    for kind in (weights.Dense, weights.Nf4, weights.Int8, weights.Int4):
        monkeypatch.setattr(kind, "short", short)
    engine = engine_of(tiny_path, precision=precision)
    rows = thetas(engine, len(PROMPTS))
    rows[::2] = engine.source.theta
    alone = [said(engine, prompt, theta, Sampling(9)) for prompt, theta in zip(PROMPTS, rows, strict=True)]
    texts = engine.decoder(len(PROMPTS))
    slots = [texts.admit(prompt, theta, Sampling(9)) for prompt, theta in zip(PROMPTS, rows, strict=True)]
    heard = finished(texts, len(PROMPTS))
    for slot, expected in zip(slots, alone, strict=True):
        assert [(token.token, token.logprob) for token in heard[slot]] == [
            (token.token, token.logprob) for token in expected
        ]


@pytest.mark.parametrize(
    ("precision", "limit"), [("fp32", 1e-3), ("bf16", 0.1), ("nf4", 0.1), ("int8", 0.1), ("int4", 0.1)]
)
def test_a_text_is_scored_as_it_was_said(tiny_path: Path, precision: str, limit: float) -> None:
    engine = engine_of(tiny_path, precision=precision)
    theta, prompt = thetas(engine, 1)[0], PROMPTS[4] % VOCABULARY
    text = said(engine, prompt, theta, Sampling(20))
    whole = np.concatenate([prompt, [token.token for token in text]])
    scored = engine.score(token_rows([whole], [0]), theta[None])
    mine, entropy = ([getattr(token, name) for token in text] for name in ("logprob", "entropy"))
    np.testing.assert_allclose(mine, scored.logprob[0, len(prompt) : len(whole)], atol=limit)
    np.testing.assert_allclose(entropy, scored.entropy[0, len(prompt) : len(whole)], atol=limit)


def test_what_has_learnt_nothing_costs_no_updates(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(tiny_path)
    passes = watched(monkeypatch)
    said(engine, PROMPTS[0], engine.source.theta, Sampling(3))
    assert [len(given.adapted) for given in passes] == [0, 0, 0]
    said(engine, PROMPTS[0], thetas(engine, 1)[0], Sampling(3))
    assert [len(given.adapted) for given in passes[3:]] == [1, 1, 1]
