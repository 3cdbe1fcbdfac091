"""Texts: what transformers would say, the same alone and in company, and how they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.engines.language import Emitted, Sampling
from acclimate.runtime.engines.torch_lm import cache, decoder
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted
from tests.runtime.engines.tiny import CONTEXT, VOCABULARY, engine_of, peft_model, peft_scores, thetas

PROMPTS = [np.random.default_rng(seed).integers(2, VOCABULARY, 3 + 5 * seed) for seed in range(6)]


def said(engine: TorchLanguageEngine, prompt: np.ndarray, theta: np.ndarray, sampling: Sampling) -> list[Emitted]:
    """A text alone."""
    alone = engine.decoder(1)
    alone.admit(prompt, theta, sampling)
    return finished(alone, 1)[0]


def finished(texts, slots: int) -> dict[int, list[Emitted]]:
    """All that is emitted until every text has finished, by slot."""
    heard: dict[int, list[Emitted]] = {}
    while texts.free < slots:
        for token in texts.step():
            heard.setdefault(token.slot, []).append(token)
    return heard


def test_greedy_texts_are_those_of_transformers(tiny_path: Path) -> None:
    torch = pytest.importorskip("torch")
    engine = engine_of(tiny_path)
    for seed, prompt in enumerate(PROMPTS[:3]):
        theta = thetas(engine, 1, seed)[0]
        mine = said(engine, prompt, theta, Sampling(12))
        model = peft_model(tiny_path, engine, theta)
        whole = model.generate(
            input_ids=torch.from_numpy(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
        )[0].numpy()
        assert [token.token for token in mine] == whole[len(prompt) :].tolist()
        logprob, entropy = peft_scores(model, whole)
        for token, expected, spread in zip(mine, logprob[len(prompt) - 1 :], entropy[len(prompt) - 1 :], strict=True):
            assert token.logprob == pytest.approx(float(expected.detach()), abs=1e-3)
            assert token.entropy == pytest.approx(float(spread.detach()), abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4", "int8", "int4"])
def test_a_text_is_the_same_alone_and_in_company(
    tiny_path: Path, precision: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other adapters, ragged prompts read in stretches, and texts that come and go at any time."""
    monkeypatch.setattr(decoder, "STRETCH", 8)
    engine = engine_of(tiny_path, precision=precision)
    rows = thetas(engine, len(PROMPTS))
    samplings = [Sampling(6 + 7 * number, temperature, 0.9, seed=number) for number in range(len(PROMPTS))]
    alone = [said(engine, *job) for job in zip(PROMPTS, rows, samplings, strict=True)]
    company = engine.decoder(4)
    waiting, slots, heard = list(range(len(PROMPTS))), {}, {number: [] for number in range(len(PROMPTS))}
    while waiting or company.free < 4:
        if waiting and company.free:
            number = waiting.pop(0)
            slots[company.admit(PROMPTS[number], rows[number], samplings[number])] = number
        for token in company.step():
            heard[slots[token.slot]].append(token)
    for number, tokens in heard.items():
        assert [token.token for token in tokens] == [token.token for token in alone[number]]
        assert [token.text for token in tokens] == [token.text for token in alone[number]]
        assert [token.finish for token in tokens] == [token.finish for token in alone[number]]


def test_a_prompt_read_in_stretches_is_read_whole(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(tiny_path)
    prompt, theta = PROMPTS[5], thetas(engine, 1)[0]
    whole = said(engine, prompt, theta, Sampling(10))
    monkeypatch.setattr(decoder, "STRETCH", 5)
    monkeypatch.setattr(cache, "FIRST", 16)
    texts = engine.decoder(1)
    texts.admit(prompt, theta, Sampling(10))
    assert [texts.step() for _ in range(-(-len(prompt) // 5) - 1)] == [[]] * (-(-len(prompt) // 5) - 1)
    assert [token.token for token in finished(texts, 1)[0]] == [token.token for token in whole]


def test_seeds_and_the_nucleus(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    theta, prompt = engine.source.theta, PROMPTS[1]

    def tokens(**chosen) -> list[int]:
        return [token.token for token in said(engine, prompt, theta, Sampling(20, **chosen))]

    assert tokens(temperature=1.5, seed=1) == tokens(temperature=1.5, seed=1)
    assert tokens(temperature=1.5, seed=1) != tokens(temperature=1.5, seed=2)
    assert tokens(temperature=1.5, top_p=1e-6, seed=3) == tokens()


def test_draws_follow_the_distribution() -> None:
    torch = pytest.importorskip("torch")
    from acclimate.runtime.engines.torch_lm.sampling import Chooser

    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    shares = torch.softmax(logits / 0.7, 0).numpy()
    for top_p, kept in ((1.0, 4), (0.8, 2)):
        chooser = Chooser(Sampling(1, temperature=0.7, top_p=top_p, seed=5))
        drawn = np.bincount([chooser.draw(logits) for _ in range(4000)], minlength=4) / 4000
        expected = np.where(np.arange(4) < kept, shares, 0)
        np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("chosen", [{"temperature": 5e-324}, {"temperature": 1.0, "top_p": 5e-324}])
def test_what_is_smallest_is_greedy(tiny_path: Path, chosen: dict[str, float]) -> None:
    """Divided by such a temperature logits are infinite, and such a share of everything is nothing."""
    engine = engine_of(tiny_path)
    greedy, drawn = (
        [token.token for token in said(engine, PROMPTS[1], engine.source.theta, Sampling(20, **sampling))]
        for sampling in ({}, chosen)
    )
    assert drawn == greedy


def test_a_text_ends_with_the_models_own_token(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    prompt, theta = PROMPTS[0], engine.source.theta
    tokens = [token.token for token in said(engine, prompt, theta, Sampling(12))]
    ending = engine_of(tiny_path)
    ending._model = decoder.Model(**{**fields_of(ending._model), "ends": frozenset({tokens[4]})})
    heard = said(ending, prompt, theta, Sampling(12))
    assert heard[-1].finish == "eos"
    assert heard[-1].token == tokens[4]
    assert len(heard) == tokens.index(tokens[4]) + 1


def fields_of(model: decoder.Model) -> dict:
    return {name: getattr(model, name) for name in model.__slots__}


def test_texts_end_for_length_and_for_room(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    theta = engine.source.theta
    short = said(engine, PROMPTS[0], theta, Sampling(3))
    assert [token.finish for token in short] == ["", "", "length"]
    prompt = np.full(CONTEXT - 2, 7)
    full = said(engine, prompt, theta, Sampling(50))
    assert [token.finish for token in full] == ["", "context"]


def test_a_stop_string_ends_a_text_before_it(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    theta = engine.source.theta
    whole = "".join(token.text for token in said(engine, PROMPTS[2], theta, Sampling(40)))
    stop = whole[6:10]
    assert len(stop) == 4
    heard = said(engine, PROMPTS[2], theta, Sampling(40, stop=("never said", stop)))
    assert "".join(token.text for token in heard) == whole[: whole.index(stop)]
    assert heard[-1].finish == "stop"


def test_slots_are_given_back(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    theta, texts = engine.source.theta, engine.decoder(2)
    first = texts.admit(PROMPTS[0], theta, Sampling(5))
    texts.admit(PROMPTS[1], theta, Sampling(5))
    assert texts.free == 0
    with pytest.raises(ResourceExhausted, match="all 2 slots"):
        texts.admit(PROMPTS[2], theta, Sampling(5))
    texts.step()
    texts.release(first)
    texts.release(first)
    assert texts.free == 1
    assert {token.slot for token in texts.step()} == {1 - first}
    finished(texts, 2)
    assert texts.step() == []


@pytest.mark.parametrize("reading", [False, True])
def test_texts_given_up_leave_the_others_alone(tiny_path: Path, reading: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "STRETCH", 4)
    engine = engine_of(tiny_path)
    rows, texts = thetas(engine, 4), engine.decoder(4)
    slots = [texts.admit(PROMPTS[number + 1], rows[number], Sampling(8)) for number in range(4)]
    for _ in range(2 if reading else 12):
        texts.step()
    texts.release(slots[1])
    heard = finished(texts, 4)
    for number in (2, 3):
        expected = [token.token for token in said(engine, PROMPTS[number + 1], rows[number], Sampling(8))]
        assert expected[-3:] == [token.token for token in heard[slots[number]]][-3:]


def test_a_text_keeps_the_theta_it_was_admitted_with(tiny_path: Path) -> None:
    engine = engine_of(tiny_path)
    theta = thetas(engine, 1)[0]
    expected = [token.token for token in said(engine, PROMPTS[3], theta, Sampling(10))]
    texts = engine.decoder(1)
    texts.admit(PROMPTS[3], theta, Sampling(10))
    theta += 1
    assert [token.token for token in finished(texts, 1)[0]] == expected


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        ([], Sampling(5), "prompt has no tokens"),
        ([5] * CONTEXT, Sampling(5), f"prompt has {CONTEXT} tokens; send fewer than the context's {CONTEXT}"),
        ([VOCABULARY], Sampling(5), "prompt has ids outside 0 to 319"),
        ([5], Sampling(0), "max_tokens is 0"),
        ([5], Sampling(5, temperature=-1.0), "temperature is -1.0"),
        ([5], Sampling(5, temperature=float("nan")), "temperature is nan"),
        ([5], Sampling(5, top_p=0.0), "top_p is 0.0"),
        ([5], Sampling(5, seed=-1), "seed is -1"),
    ],
)
def test_what_cannot_be_admitted(tiny_path: Path, prompt: list[int], sampling: Sampling, message: str) -> None:
    engine = engine_of(tiny_path)
    texts = engine.decoder(1)
    with pytest.raises(InvalidArgument, match=message):
        texts.admit(np.array(prompt, np.int64), engine.source.theta, sampling)
    assert texts.free == 1
    with pytest.raises(InvalidArgument, match="theta has shape"):
        texts.admit(PROMPTS[0], np.zeros(3, np.float32), Sampling(5))
