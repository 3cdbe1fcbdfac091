"""Candidates in trees score as they do alone; and which of several texts is the answer."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.adapters.language import token_rows
from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.language.choosing import Question, candidate_logprobs
from acclimate.runtime.language.jobs import LearningBudget
from acclimate.runtime.language.rollouts import Drawn, draw, last_word
from acclimate.runtime.language.sampling import best_of_n, first_finish, sample, self_consistency
from tests.runtime.language.lessons import Clock, engine

ENGINE = engine()
LABELS = tuple(ENGINE.tokenizer.encode(label) for label in ("red", "green", "blue"))


def ids(text: str) -> np.ndarray:
    return ENGINE.tokenizer.encode(text)


@pytest.mark.parametrize("context", ["", "Roses are red. Grass is green. "])
@pytest.mark.parametrize("at_once", [64, 4096])
def test_candidates_score_as_they_do_alone(context: str, at_once: int) -> None:
    random = np.random.default_rng(0)
    theta = ENGINE.source.theta + random.normal(0, 0.1, (2, ENGINE.source.theta.size)).astype(np.float32)
    prompts = ["The sky is ", "Blood is ", "It was "]
    questions = [Question(ids(p), LABELS, ids(context), n % 2) for n, p in enumerate(prompts)]
    found = candidate_logprobs(ENGINE, questions, theta, at_once)
    for number, prompt in enumerate(prompts):
        start = ids(context + prompt)
        rows = token_rows([np.concatenate([start, label]) for label in LABELS], [number % 2] * 3)
        expected = ENGINE.score(rows, theta).logprob[:, len(start) :].sum(axis=1)
        np.testing.assert_allclose(found[number], expected, rtol=1e-4)


def test_questions_that_cannot_be_asked_are_refused() -> None:
    theta = ENGINE.source.theta[np.newaxis]
    nothing = ids("")
    with pytest.raises(InvalidArgument, match=r"questions\[0\]: give candidates"):
        candidate_logprobs(ENGINE, [Question(ids("a"), (), nothing)], theta)
    with pytest.raises(InvalidArgument, match=r"questions\[1\]: the prompt is empty"):
        candidate_logprobs(ENGINE, [Question(ids("a"), LABELS, nothing), Question(nothing, LABELS, nothing)], theta)
    with pytest.raises(InvalidArgument, match=r"questions\[0\]: .* shorten it"):
        candidate_logprobs(ENGINE, [Question(ids("a" * 600), LABELS, nothing)], theta)


def text(said: str, logprob: float = -1.0, finish: str = "eos") -> Drawn:
    return Drawn(ids(said), said, logprob, finish)


def test_the_answer_of_most_texts_is_chosen() -> None:
    texts = [text("It is 4.", -9), text("So it is 5", -1), text("4", -3), text("It makes 4.0", -7)]
    chosen = self_consistency(texts)
    assert last_word(chosen.text.text) == "4.0"
    assert chosen.worth == pytest.approx(0.75)
    assert chosen.text is texts[3], "the likeliest a token of those that agree"
    assert last_word("Paris it is, Paris.") == "paris"
    assert last_word("...") is None


def test_the_best_is_the_likeliest_or_the_verifier_s() -> None:
    texts = [text("aa", -4), text("bbbb", -4), text("c", -3)]
    assert best_of_n(texts).text is texts[1]
    assert best_of_n(texts, "?", lambda _, said: float(said == "c")).text is texts[2]
    with pytest.raises(ValueError, match="there is none"):
        best_of_n([])


def test_the_first_that_ends_is_the_answer() -> None:
    texts = [text("cut", finish="length"), text("ended"), text("later")]
    assert first_finish(texts).text is texts[1]
    assert first_finish(texts[:1]).text is texts[0]


def test_samples_differ_and_repeat() -> None:
    how = Sampling(6, temperature=1.0, seed=5)
    drawn = sample(ENGINE, ids("the "), ENGINE.source.theta, how, 4, Clock())
    assert len({one.text for one in drawn}) > 1
    again = sample(ENGINE, ids("the "), ENGINE.source.theta, how, 4, Clock())
    assert [one.text for one in drawn] == [one.text for one in again]
    lone = draw(ENGINE, [(ids("the "), ENGINE.source.theta, how)])[0]
    assert lone.text == drawn[0].text
    assert lone.logprob == pytest.approx(drawn[0].logprob, rel=1e-5)


def test_samples_end_with_their_budget() -> None:
    how = Sampling(50, temperature=1.0)
    drawn = sample(ENGINE, ids("the "), ENGINE.source.theta, how, 4, Clock(), budget=LearningBudget(tokens=42))
    assert sum(len(one.ids) for one in drawn) == 40
    assert {one.finish for one in drawn} == {""}
    hasty = LearningBudget(milliseconds=5.0)
    drawn = sample(ENGINE, ids("the "), ENGINE.source.theta, how, 2, Clock(tick=0.001), budget=hasty)
    assert 0 < sum(len(one.ids) for one in drawn) <= 10


def test_enough_texts_end_the_others() -> None:
    drawn = sample(ENGINE, ids("the "), ENGINE.source.theta, Sampling(9, 1.0, stop=("e",)), 8, Clock(), enough=1)
    assert drawn[0].finish in ("stop", "length")
    assert first_finish(drawn).text.finish == drawn[0].finish
    assert any(not one.finish for one in drawn)


def test_a_budget_is_split_between_learning_and_sampling() -> None:
    whole = LearningBudget(1001, 500.0)
    assert whole.part(0.75) == LearningBudget(750, 375.0)
    assert whole.less(700, 375.5) == LearningBudget(301, 124.5)
    assert whole.less(2000, 600.0) == LearningBudget(0, 0.0)
    assert LearningBudget().part(0.5).less(10, 10.0) == LearningBudget()
