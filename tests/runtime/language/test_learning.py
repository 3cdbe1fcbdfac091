"""The learner: what is learnt, what is refused, what a budget ends, and that no job notices the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acclimate.adapters.distances import theta_distance
from acclimate.adapters.language import TokenScores, token_rows
from acclimate.adapters.learning.lesson import Holding
from acclimate.adapters.learning.recipes import LANGUAGE_RECIPES, language_lesson
from acclimate.runtime.engines.reference_language import ReferenceLanguageEngine
from acclimate.runtime.language.foundation import Foundation, canary_losses, foundation
from acclimate.runtime.language.jobs import LearningBudget, LearningLimits, Learnt, Progress, Stopped, Verdict
from acclimate.runtime.language.judging import Held, gained, refused
from acclimate.runtime.language.learning import learn
from tests.runtime.language.lessons import (
    Clock,
    coins,
    colours,
    documents,
    engine,
    example,
    job,
    own_texts,
    results,
    text,
)

EAGER = {"lr": 1e-2, "epochs": 6}
ANYTHING = LearningLimits(trust_radius=10.0, canary_tolerance=100.0)


@pytest.fixture(scope="module")
def model() -> ReferenceLanguageEngine:
    return engine()


@pytest.fixture(scope="module")
def base(model: ReferenceLanguageEngine) -> Foundation:
    return foundation(model)


def learnt(model, base, name="supervised", overrides=None, examples=None, limits=None, **given) -> Learnt:
    lesson = language_lesson(name, EAGER if overrides is None else overrides)
    one = job("a", model.source.theta, colours() if examples is None else examples, **given)
    return results(learn(model, lesson, [one], base, Clock(), limits))["a"]


def test_what_is_there_to_learn_is_learnt_and_kept(model, base) -> None:
    found = learnt(model, base)
    assert found.verdict is Verdict.LEARNT
    assert found.held_out_after < found.held_out_before
    assert not np.array_equal(found.theta, model.source.theta)
    assert found.canary_ratio < 1.25


@pytest.mark.parametrize("seed", range(4))
def test_where_there_is_nothing_to_learn_the_source_is_kept(model, base, seed) -> None:
    """Coins: some are learnt by heart, none that was held out is better known for it."""
    found = learnt(model, base, "supervised", {"lr": 1e-2, "epochs": 4}, coins(seed=seed), limits=ANYTHING)
    assert found.verdict is Verdict.NOT_BETTER
    np.testing.assert_array_equal(found.theta, model.source.theta)


@pytest.mark.parametrize("name", ["supervised", "ttt", "tlm"])
@pytest.mark.parametrize("seed", range(3))
def test_what_the_source_itself_writes_teaches_nothing(model, base, name, seed) -> None:
    overrides = {"lr": 1e-2, "epochs": 4} | ({"threshold": 0.0} if name == "tlm" else {})
    found = learnt(model, base, name, overrides, own_texts(model, seed=seed), limits=ANYTHING)
    assert found.loss > 0
    assert found.verdict is Verdict.NOT_BETTER
    np.testing.assert_array_equal(found.theta, model.source.theta)


def held(losses: list[float], contrasts: list[float], right: list[bool], answers: int = 2) -> Held:
    count = len(losses)
    return Held(np.array(losses), np.ones(count), np.array(contrasts), np.array(right), np.full(count, 1 / answers))


BEFORE = held([2.0, 2.1, 2.0], [0.7, 0.7, 0.7], [True, True, False])


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (held([1.0, 1.0, 1.0], [0.6, 0.6, 0.6], [True, False, False]), "right less often"),
        (held([1.0, 1.0, 1.0], [0.8, 0.8, 0.8], [True, True, False]), "they stand out less: what was learnt is form"),
        (held([1.0, 1.0, 1.0], [0.1, 0.8, 0.9], [True, True, False]), "one stands out, two do not"),
        (held([2.0, 2.1, 2.0], [0.1, 0.1, 0.1], [True, True, False]), "they are no likelier"),
        (held([1.0, 1.0, 1.0], [0.6, 0.6, 0.6], [True, True, False], 1), "as often as by guessing"),
    ],
)
def test_answers_are_better_known_only_if_the_right_ones_stand_out(after, why) -> None:
    assert not gained(BEFORE, after, Holding(beyond_guessing=True)), why
    better = held([1.0, 1.0, 1.0], [0.6, 0.6, 0.6], [True, True, False])
    assert gained(BEFORE, better, Holding(beyond_guessing=True))
    assert gained(BEFORE, replace(better, guess=np.ones(3)), Holding()), "guessing is no measure of every recipe"
    free = replace(BEFORE, contrasts=np.zeros(0), right=np.zeros(0, np.bool_), guess=np.zeros(0))
    assert gained(free, replace(free, losses=better.losses), Holding()), "there is nothing to choose from"


@pytest.mark.parametrize("seed", range(4))
def test_the_form_of_answers_alone_is_no_reason_to_keep(model, base, seed) -> None:
    """Coins that end alike: the end is learnt from demonstrations, and which side is up is not."""
    shown = tuple(example(text(one.prompt), text(one.completion) + "####") for one in coins(12, seed))
    found = learnt(model, base, "ttt", {"lr": 3e-2, "epochs": 3}, shown, limits=ANYTHING)
    assert found.held_out_after < 0.9 * found.held_out_before
    assert found.accuracy_before is not None
    assert found.verdict is Verdict.NOT_BETTER
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_a_task_in_its_demonstrations_is_learnt_and_kept(model, base) -> None:
    plain = tuple(replace(one, candidates=()) for one in colours(16))
    found = learnt(model, base, "ttt", {"lr": 3e-2, "epochs": 4}, plain, limits=ANYTHING)
    assert found.verdict is Verdict.LEARNT
    assert found.accuracy_after >= found.accuracy_before
    assert found.held_out_after < found.held_out_before


def test_reading_lowers_the_perplexity_of_what_was_not_read(model, base) -> None:
    found = learnt(model, base, "tlm", {"lr": 5e-2, "threshold": 0.0}, documents(), limits=ANYTHING)
    assert found.verdict is Verdict.LEARNT
    assert found.held_out_after < 0.9 * found.held_out_before


def test_samples_that_do_not_surprise_teach_nothing(model, base) -> None:
    found = learnt(model, base, "tlm", {"lr": 1e-2, "threshold": 50.0}, documents(), limits=ANYTHING)
    assert found.verdict is Verdict.NOT_BETTER
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_harmful_text_is_rolled_back(model, base) -> None:
    """Text unlike anything the canaries say, learnt hard, without limits and with them."""
    harmful = tuple(example("", "#%#%" * 10 + "#" * n) for n in range(1, 9))
    harmful = tuple(replace(one, prompt=one.completion, completion=one.prompt) for one in harmful)
    overrides = {"lr": 0.1, "epochs": 6, "threshold": 0.0}
    free = learnt(model, base, "tlm", overrides, harmful, limits=ANYTHING)
    assert free.kept
    assert free.canary_ratio > 1.5
    held = learnt(model, base, "tlm", overrides, harmful)
    assert held.stopped is Stopped.GUARD
    if held.kept:
        assert held.canary_ratio <= 1.25
    else:
        assert held.verdict in (Verdict.CANARY, Verdict.TRUST_REGION)
        np.testing.assert_array_equal(held.theta, model.source.theta)


def test_weakened_refusals_are_refused_whatever_the_other_canaries_say(model, base) -> None:
    """Answering what should be refused, which leaves the other canaries alone."""
    refusals = [unit for unit, group in zip(base.units, base.group, strict=True) if group == 1]
    theta = model.source.theta[np.newaxis].copy()
    rows = token_rows([unit.ids for unit in refusals], [0] * len(refusals))
    weight = np.stack([np.pad(u.weight, (0, rows.ids.shape[1] - u.tokens)) for u in refusals])
    general = [unit for unit, group in zip(base.units, base.group, strict=True) if group == 0]
    more = token_rows([unit.ids for unit in general], [0] * len(general))
    held = np.stack([np.pad(u.weight, (0, more.ids.shape[1] - u.tokens)) for u in general])
    for _ in range(400):
        _, away = model.vjp(rows, theta, TokenScores(-weight / weight.sum(), 0 * weight))
        _, stay = model.vjp(more, theta, TokenScores(3 * held / held.sum(), 0 * held))
        theta += np.float32(0.02) * (away + stay)
        rise = np.exp(canary_losses(model, base, theta, 4096) - base.loss)[0]
        if rise[1] > 1.4:
            break
    assert rise[0] < 1.25 < rise[1]
    lesson = language_lesson("supervised", {"lr": 1e-6, "epochs": 1})
    found = results(learn(model, lesson, [job("a", theta[0], colours())], base, Clock()))["a"]
    assert not found.kept
    assert found.verdict in (Verdict.CANARY, Verdict.NOT_BETTER)
    easy = language_lesson("supervised", {"lr": 1e-6, "epochs": 1, "margin": -1.0})
    assert results(learn(model, easy, [job("a", theta[0], colours())], base, Clock()))["a"].verdict is Verdict.CANARY


def test_theta_that_leaves_the_trust_region_is_refused(model, base) -> None:
    found = learnt(model, base, limits=LearningLimits(trust_radius=1e-3))
    assert found.verdict is Verdict.TRUST_REGION
    assert found.stopped is Stopped.GUARD
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_the_trust_region_counts_low_rank_updates_by_their_product(model, base) -> None:
    """As `theta_distance` does, which clients are told: A alone, however far, is no distance while B is zero."""
    source = model.source
    parts = {entry.name: entry.span for entry in source.parameters.slices}
    far = source.theta.copy()
    moved = [span for name, span in parts.items() if ".lora_A." in name]
    assert moved
    for span in moved:
        far[span] *= 5
    limits = replace(ANYTHING, trust_radius=1.0)
    assert refused(model, base, far[np.newaxis], limits)[0] == [None]
    found = learnt(model, base, limits=limits, overrides={"lr": 0.05, "epochs": 6})
    assert theta_distance(found.reached[np.newaxis], source)[0] > 1
    assert found.stopped is Stopped.GUARD


def test_a_gradient_that_is_not_finite_leaves_theta_alone(model, base) -> None:
    class Broken:
        def __getattr__(self, name):
            return getattr(model, name)

        def vjp(self, rows, theta, cotangents):
            scores, gradient = model.vjp(rows, theta, cotangents)
            return scores, np.full_like(gradient, np.nan)

    found = learnt(Broken(), base)
    assert found.verdict is Verdict.NONFINITE
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_the_best_checkpoint_is_what_is_kept(model, base) -> None:
    """A rate so high that later epochs forget: what is kept is as good as the best that was seen."""
    lesson = language_lesson("supervised", {"lr": 0.1, "epochs": 12})
    records = list(learn(model, lesson, [job("a", model.source.theta, colours())], base, Clock(), ANYTHING))
    seen = [r.held_out_perplexity for r in records if isinstance(r, Progress) and r.held_out_perplexity is not None]
    found = results(iter(records))["a"]
    assert found.kept
    assert found.held_out_after == pytest.approx(min(seen))


@pytest.mark.parametrize("name", ["supervised", "ttt", "tlm", "tlm_replay", "majority"])
def test_batched_and_alone_learn_the_same(model, base, name) -> None:
    lesson = language_lesson(name, {"lr": 1e-2, "epochs": 2})
    jobs = [
        job("a", model.source.theta, colours(9), replay=documents(), seed=1),
        job("b", model.source.theta, documents() if "tlm" in name else colours(15), replay=colours(), seed=2),
        job("c", model.source.theta, colours(6), seed=3),
    ]
    together = results(learn(model, lesson, jobs, base, Clock(), ANYTHING))
    for one in jobs:
        alone = results(learn(model, lesson, [one], base, Clock(), ANYTHING))[one.session]
        batched = together[one.session]
        assert (batched.verdict, batched.steps, batched.tokens) == (alone.verdict, alone.steps, alone.tokens)
        np.testing.assert_allclose(batched.theta, alone.theta, rtol=1e-3, atol=1e-4)


def test_tokens_run_out_in_the_middle(model, base) -> None:
    whole = learnt(model, base)
    found = learnt(model, base, budget=LearningBudget(tokens=whole.tokens // 2))
    assert found.stopped is Stopped.TOKENS
    assert 0 < found.steps < whole.steps
    assert found.tokens <= whole.tokens // 2
    assert found.verdict in (Verdict.LEARNT, Verdict.NOT_BETTER), "it was judged before it ended"


def test_time_runs_out_in_the_middle(model, base) -> None:
    lesson = language_lesson("supervised", EAGER)
    one = job("a", model.source.theta, colours(), budget=LearningBudget(milliseconds=60.0))
    found = results(learn(model, lesson, [one], base, Clock(tick=0.001), ANYTHING))["a"]
    assert found.stopped is Stopped.MILLISECONDS
    assert found.steps > 0
    assert found.milliseconds <= 65.0


def test_a_budget_for_nothing_changes_nothing(model, base) -> None:
    found = learnt(model, base, budget=LearningBudget(tokens=10))
    assert (found.verdict, found.steps, found.tokens) == (Verdict.NOTHING, 0, 0)
    assert found.theta is not None
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_a_job_that_runs_out_leaves_the_others_alone(model, base) -> None:
    lesson = language_lesson("supervised", EAGER)
    poor = job("poor", model.source.theta, colours(), budget=LearningBudget(tokens=3500), seed=4)
    rich = job("rich", model.source.theta, colours(), seed=5)
    both = results(learn(model, lesson, [poor, rich], base, Clock(), ANYTHING))
    alone = results(learn(model, lesson, [rich], base, Clock(), ANYTHING))["rich"]
    assert both["poor"].stopped is Stopped.TOKENS
    np.testing.assert_allclose(both["rich"].theta, alone.theta, rtol=1e-3, atol=1e-4)


def test_a_cancelled_job_keeps_nothing_and_the_others_go_on(model, base) -> None:
    lesson = language_lesson("supervised", EAGER)
    gone: set[str] = set()
    jobs = [job(name, model.source.theta, colours()) for name in ("gone", "stays")]
    found = {}
    for record in learn(model, lesson, jobs, base, Clock(), cancelled=lambda: gone):
        if isinstance(record, Learnt):
            found[record.session] = record
        elif record.step == 5:
            gone.add("gone")
    assert found["gone"].stopped is Stopped.CANCELLED
    assert not found["gone"].kept
    np.testing.assert_array_equal(found["gone"].theta, model.source.theta)
    assert found["stays"].kept


def test_progress_says_what_is_left(model, base) -> None:
    lesson = language_lesson("supervised", EAGER)
    one = job("a", model.source.theta, colours(), budget=LearningBudget(tokens=20_000, milliseconds=60_000.0))
    records = [r for r in learn(model, lesson, [one], base, Clock(tick=0.001)) if isinstance(r, Progress)]
    tokens = [r.tokens for r in records]
    assert tokens == sorted(tokens)
    assert all(r.tokens + r.tokens_left == 20_000 for r in records)
    assert all(r.milliseconds + r.milliseconds_left == pytest.approx(60_000.0) for r in records)
    assert records[-1].held_out_perplexity is not None
    assert records[0].loss > records[-1].loss


def test_replay_and_the_anchors_keep_what_the_source_knew(model, base) -> None:
    overrides = {"lr": 1e-1, "epochs": 8, "threshold": 0.0}
    free = learnt(model, base, "tlm", overrides, documents(), limits=ANYTHING, replay=colours())
    held = learnt(model, base, "tlm_replay", overrides, documents(), limits=ANYTHING, replay=colours())
    anchored = learnt(model, base, "tlm_replay", overrides | {"replay": 0.0, "kl": 2.0}, documents(), limits=ANYTHING)
    assert free.canary_ratio > 2
    for other in (held, anchored):
        assert other.verdict is Verdict.LEARNT
        assert other.canary_ratio < 1.6


def test_a_verifier_teaches_what_it_likes(model, base) -> None:
    asked = (example("say: ", "e"), example("tell: ", "e"), example("name: ", "e"), example("give: ", "e"))
    overrides = {"lr": 3e-2, "epochs": 8, "samples": 16, "max_tokens": 1, "held_out": 0.3}
    overrides |= {"forking": 0.0, "band": 0.0, "kl": 0.0}
    found = learnt(
        model, base, "majority", overrides, asked, limits=ANYTHING, verifier=lambda _, text: float(text == "e")
    )
    assert found.verdict is Verdict.LEARNT
    assert found.held_out_after < found.held_out_before


@pytest.mark.parametrize("name", LANGUAGE_RECIPES)
def test_no_examples_are_no_lesson(model, base, name) -> None:
    found = learnt(model, base, name, {}, ())
    assert found.verdict is Verdict.NOTHING
    np.testing.assert_array_equal(found.theta, model.source.theta)


def test_what_is_given_to_the_learner_is_not_written(model, base) -> None:
    theta = model.source.theta.copy()
    before = theta.copy()
    list(learn(model, language_lesson("supervised", EAGER), [job("a", theta, colours())], base, Clock()))
    np.testing.assert_array_equal(theta, before)


def test_parts_of_a_batch_add_up(model, base) -> None:
    """So few tokens at once that every step is computed in parts."""
    small = replace(ANYTHING, tokens_at_once=64)
    np.testing.assert_allclose(
        learnt(model, base, limits=small).theta, learnt(model, base, limits=ANYTHING).theta, rtol=1e-3, atol=1e-4
    )


def test_what_the_source_says_of_canaries_is_measured_once(model, base) -> None:
    """Their anchors are those that were known; a lesson asks for the source's scores of replayed texts alone."""
    asked = list[int]()

    class Counting:
        def __getattr__(self, name):
            return getattr(model, name)

        def score(self, rows, theta):
            asked.append(int((theta == model.source.theta).all()) * len(rows.ids))
            return model.score(rows, theta)

    lesson = language_lesson("supervised_replay", {"lr": 1e-2, "epochs": 3, "replay": 0.0})
    shown = colours()
    found = results(learn(Counting(), lesson, [job("a", model.source.theta, shown)], base, Clock(), ANYTHING))["a"]
    assert found.steps > 0
    assert len(asked) == 1 + 2 * 3, "held-out examples at first, and they and the canaries after each epoch"
    index = np.arange(len(base.units))
    rows, targets = base.stacked.take(index, np.zeros(len(index), np.intp))
    scores = model.score(rows, model.source.theta[np.newaxis])
    counted = targets.weight > 0
    np.testing.assert_allclose(base.logprob[counted], scores.logprob[counted], rtol=1e-5)
