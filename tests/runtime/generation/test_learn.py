"""Lessons over a real socket: a session learns as one transaction, within its budget, or is as it was."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.layout import Float
from acclimate.runtime.client import (
    AsyncClient,
    Budget,
    Client,
    ClientError,
    EventKind,
    ExportedSession,
    LearnProgress,
    LearnVerdict,
)
from tests.polling import until
from tests.runtime.generation.writers import CORPUS, MODEL, PROMPT, engine, writing
from tests.runtime.rpc.loopback import MODEL as NUMERIC
from tests.runtime.rpc.loopback import Loopback

TEXTS = [CORPUS[at : at + 90] for at in range(0, 600, 45)]
PLENTY = Budget(1000.0, 1e9)
FAST = {"lr": 0.02, "threshold": 0.0, "scale": 1.0, "epochs": 6}
SLOW = {"epochs": 1000, "threshold": 0.0}


class Slow:
    """The small model, whose gradients wait for `go`, but the first `free`; `begun` counts those asked for."""

    def __init__(self, free: int = 0) -> None:
        self._engine, self._free = engine(), free
        self.go = threading.Event()
        self.begun = 0
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def vjp(self, rows: TokenRows, theta: Float, cotangents: TokenScores) -> tuple[TokenScores, Float]:
        self.begun += 1
        if self.broken:
            raise RuntimeError("the engine cannot")
        if self.begun > self._free:
            self.go.wait(60)
        return self._engine.vjp(rows, theta, cotangents)


def bits(exported: ExportedSession) -> list[bytes]:
    return [tensor.values.tobytes() for tensor in exported.parameters]


def test_a_session_learns_texts_and_nobody_else_does(client: Client) -> None:
    with client.watch(MODEL) as events:
        learner = client.create_session(MODEL, "learner", recipe_parameters=FAST)
        other = client.create_session(MODEL, "other")
        base, before = client.score(MODEL, TEXTS[:3]), bits(other.export())
        lesson = learner.learn(texts=TEXTS)
        progress = list(lesson)
        outcome = lesson.outcome
        assert outcome is not None
        assert (outcome.verdict, outcome.reason, outcome.version) == (LearnVerdict.COMMITTED, "", 1)
        assert outcome.held_out_perplexity_after < 0.9 * outcome.held_out_perplexity_before
        assert 0 < outcome.cost_ms <= outcome.elapsed_ms
        assert progress[-1].step == outcome.steps > 0
        assert [p.tokens for p in progress] == sorted(p.tokens for p in progress)
        assert any(p.held_out_perplexity for p in progress)
        learnt = learner.score(TEXTS[:3])
        assert learnt.version == 1
        assert all(new.perplexity < old.perplexity for new, old in zip(learnt.scored, base.scored, strict=True))
        assert client.score(MODEL, TEXTS[:3]) == base
        assert other.score(TEXTS[:3]) == base
        assert bits(other.export()) == before
        view = learner.get()
        assert (view.state, view.version, view.updates) == ("adapted", 1, 1)
        assert view.adaptation_ms == pytest.approx(outcome.cost_ms, abs=1e-2)
        assert view.theta_distance == pytest.approx(outcome.theta_distance)
        assert view.theta_distance > 0
        heard = [next(events) for _ in range(3)]
        assert [event.kind for event in heard] == [EventKind.CREATED, EventKind.CREATED, EventKind.APPLIED]
        assert (heard[2].version_before, heard[2].version_after, heard[2].samples) == (0, 1, len(TEXTS))
        learner.delete()
        other.delete()


def test_pairs_and_demonstrations(client: Client) -> None:
    pairs = [(f"{n} is ", "odd." if n % 2 else "even.") for n in range(12)]
    with client.create_session(MODEL, "pairs", recipe="supervised") as session:
        chosen = {"lr": 0.02, "epochs": 8}
        outcome = session.learn(pairs=pairs, recipe_parameters=chosen).wait()
        assert outcome.verdict is LearnVerdict.COMMITTED
        assert outcome.held_out_perplexity_after < outcome.held_out_perplexity_before
        again = session.learn(demonstrations=pairs[:6], recipe="ttt", recipe_parameters={"lr": 0.01}).wait()
        assert again.verdict in (LearnVerdict.COMMITTED, LearnVerdict.ROLLED_BACK)
        assert session.get().version == 1 + (again.verdict is LearnVerdict.COMMITTED)


def test_a_guard_rolls_a_lesson_back_bit_for_bit(client: Client) -> None:
    with client.create_session(MODEL, "guarded") as session, session.watch() as events:
        session.learn(texts=TEXTS, recipe_parameters=FAST).wait()
        before, view = bits(session.export()), session.get()
        outcome = session.learn(texts=TEXTS, recipe_parameters=FAST | {"lr": 1.0, "warmup": 0.0}).wait()
        assert outcome.verdict is LearnVerdict.ROLLED_BACK
        assert outcome.reason in ("trust_region", "canary", "not_better", "nonfinite")
        assert (outcome.version, bits(session.export())) == (view.version, before)
        assert session.get().rollbacks == 1
        assert [next(events).kind for _ in range(2)] == [EventKind.APPLIED, EventKind.ROLLED_BACK]
        assert session.learn(texts=TEXTS, recipe="source").wait().verdict is LearnVerdict.SKIPPED


def test_what_is_learnt_until_the_budget_ends_is_judged_and_committed(client: Client) -> None:
    with client.create_session(MODEL, "bounded", recipe_parameters=FAST) as session:
        whole = session.learn(texts=TEXTS).wait()
        session.reset()
        outcome = session.learn(texts=TEXTS, max_tokens=whole.tokens // 2).wait()
        assert (outcome.stopped, outcome.verdict) == ("tokens", LearnVerdict.COMMITTED)
        assert 0 < outcome.tokens <= whole.tokens // 2
        assert 0 < outcome.steps < whole.steps
        nothing = session.learn(texts=TEXTS, max_tokens=3).wait()
        assert (nothing.verdict, nothing.reason) == (LearnVerdict.SKIPPED, "budget")
        assert session.get().version == outcome.version == 3
        short = session.learn(texts=TEXTS, recipe_parameters=FAST | {"epochs": 1000}, max_ms=150.0).wait()
        assert short.stopped in ("milliseconds", "patience")
        assert short.cost_ms < 5_000


def test_the_sessions_budget_pays_and_an_empty_one_says_when_to_come_back(running: Loopback) -> None:
    with (
        Client(running.target, attempts=1) as client,
        client.create_session(MODEL, "poor", recipe_parameters=FAST, budget=Budget(0.0, 400.0)) as session,
    ):
        outcome = session.learn(texts=TEXTS, recipe_parameters=FAST | SLOW, max_ms=100.0).wait()
        view = session.get()
        assert view.budget_available_ms == pytest.approx(400 - outcome.cost_ms, abs=1e-3)
        session.update(budget=Budget(0.5, 0.5))
        with pytest.raises(ClientError) as caught:
            session.learn(texts=TEXTS).wait()
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXHAUSTED")
        assert session.get().version == view.version


def test_a_client_that_leaves_ends_its_lesson_without_a_commit() -> None:
    # The canaries' gradient, and the first step's.
    slow = Slow(free=2)
    with writing(slow) as running, Client(running.target) as client:
        session = client.create_session(MODEL, "left", budget=PLENTY, recipe_parameters=SLOW)
        before = bits(session.export())
        figures = running.service.generating.snapshot
        with session.learn(texts=TEXTS) as lesson:
            assert next(lesson).step == 1
        with pytest.raises(ClientError) as caught:
            session.learn(texts=TEXTS, timeout_seconds=0.3).wait()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        slow.go.set()
        until(lambda: figures()[0].lessons.get("cancelled") == 1, "the lesson to be given up")
        until(lambda: (figures()[0].learning, figures()[0].lessons_waiting) == (0, 0), "nobody to learn")
        view = session.get()
        assert (view.version, view.state, bits(session.export())) == (0, "pristine", before)
        assert view.adaptation_ms > 0


@pytest.mark.parametrize("change", ["reset", "pause", "restore", "delete"])
def test_what_happens_to_a_session_meanwhile_ends_its_lesson(change: str) -> None:
    slow = Slow()
    with writing(slow) as running, Client(running.target) as client, ThreadPoolExecutor(1) as pool:
        session = client.create_session(MODEL, "changed", budget=PLENTY)
        session.snapshot("kept")
        lesson = pool.submit(session.learn(texts=TEXTS, recipe_parameters=SLOW).wait)
        until(lambda: slow.begun, "the lesson to begin")
        getattr(session, change)(*(["kept"] if change == "restore" else []))
        slow.go.set()
        outcome = lesson.result(60)
        assert (outcome.verdict, outcome.reason) == (LearnVerdict.SKIPPED, "stale")
        if change != "delete":
            assert session.get().updates == 0


def test_a_text_keeps_the_parameters_it_began_with_while_a_lesson_commits(client: Client) -> None:
    drawn = {"max_tokens": 300, "temperature": 1.0, "seed": 11}
    with client.create_session(MODEL, "both", recipe_parameters=FAST) as session:
        expected = session.generate(PROMPT, **drawn).read()
        text = session.generate(PROMPT, **drawn)
        next(text)
        assert session.learn(texts=TEXTS).wait().version == 1
        assert (text.read(), text.version) == (expected, 0)
        after = session.generate(PROMPT, **drawn)
        assert after.read() != expected
        assert after.version == 1


def test_sessions_learn_together_what_each_learns_alone() -> None:
    shown = {f"s{n}": [text[n:] for text in TEXTS] for n in range(4)}

    def learnt(together: int) -> tuple[dict[str, list[bytes]], int]:
        slow = Slow()
        with writing(slow, generation={"learn_together": together}) as running, Client(running.target) as client:
            for name in shown:
                client.create_session(MODEL, name, budget=PLENTY, recipe_parameters=FAST)
            figures = running.service.generating.snapshot

            def known(count: int) -> bool:
                return figures()[0].lessons_waiting + figures()[0].learning == count

            with ThreadPoolExecutor(len(shown)) as pool:
                lessons = []
                for place, (name, texts) in enumerate(shown.items()):
                    lessons.append(pool.submit(client.session(MODEL, name).learn(texts=texts).wait))
                    until(partial(known, place + 1), "the lesson to wait")
                slow.go.set()
                assert {lesson.result(60).verdict for lesson in lessons} == {LearnVerdict.COMMITTED}
            return {name: bits(client.export_session(MODEL, name)) for name in shown}, slow.begun

    alone, calls = learnt(1)
    batched, fewer = learnt(4)
    assert fewer < calls
    for name in shown:
        for one, other in zip(alone[name], batched[name], strict=True):
            np.testing.assert_allclose(np.frombuffer(one, np.float32), np.frombuffer(other, np.float32), atol=2e-5)


def test_too_many_lessons_are_refused_with_a_time_to_come_back() -> None:
    slow, limits = Slow(), {"learn_queue": 1}
    with writing(slow, generation=limits) as running, Client(running.target, attempts=1) as client:
        figures = running.service.generating.snapshot

        def known(count: int) -> bool:
            return (figures()[0].learning, figures()[0].lessons_waiting) == (1, count - 1)

        sessions = [client.create_session(MODEL, f"q{n}", budget=PLENTY) for n in range(3)]
        with ThreadPoolExecutor(2) as pool:
            lessons = []
            for place in range(2):
                lessons.append(pool.submit(sessions[place].learn(texts=TEXTS).wait))
                until(partial(known, place + 1), "it to wait")
            with pytest.raises(ClientError) as caught:
                sessions[2].learn(texts=TEXTS).wait()
            assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
            assert caught.value.retry_after_seconds
            slow.go.set()
            for lesson in lessons:
                lesson.result(60)


def test_an_engine_that_fails_costs_the_lesson_and_changes_nothing() -> None:
    slow = Slow()
    slow.go.set()
    with writing(slow) as running, Client(running.target) as client:
        session = client.create_session(MODEL, "failed")
        session.learn(texts=TEXTS).wait()
        slow.broken = True
        with capture_logs() as logged, pytest.raises(ClientError) as caught:
            session.learn(texts=TEXTS).wait()
        assert caught.value.code == "INTERNAL"
        assert "lessons failed" in [entry["event"] for entry in logged]
        slow.broken = False
        assert session.learn(texts=TEXTS).wait()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"texts": ["x"]}, "MATERIAL_INVALID"),
        ({"texts": ["a text", ""]}, "MATERIAL_INVALID"),
        ({"pairs": [("", "x")], "recipe": "supervised"}, "MATERIAL_INVALID"),
        ({"pairs": [("x", "")], "recipe": "supervised"}, "MATERIAL_INVALID"),
        ({"pairs": [("x", "y" * 600)], "recipe": "supervised"}, "TEXT_TOO_LONG"),
        ({"texts": ["a text"], "recipe": "ttt"}, "MATERIAL_INVALID"),
        ({"texts": ["a text"], "recipe": "tent"}, "RECIPE_INVALID"),
        ({"texts": ["a text"], "recipe_parameters": {"lr": -1.0}}, "RECIPE_INVALID"),
        ({"texts": ["a text"], "recipe_parameters": {"speed": 1.0}}, "RECIPE_INVALID"),
        ({"texts": ["a text"], "max_tokens": -1}, "BUDGET_INVALID"),
        ({"texts": ["a text"], "max_ms": float("nan")}, "BUDGET_INVALID"),
        ({"texts": ["a text"], "etag": 'W/"no"'}, "ETAG_MISMATCH"),
    ],
)
def test_what_cannot_be_learnt_is_refused(client: Client, given: dict[str, Any], reason: str) -> None:
    with client.create_session(MODEL, "strict") as session:
        with pytest.raises(ClientError) as caught:
            session.learn(**given).wait()
        assert caught.value.code == ("ABORTED" if reason == "ETAG_MISMATCH" else "INVALID_ARGUMENT")
        assert caught.value.reason == reason
        assert session.get().version == 0


def test_sessions_that_do_not_learn_say_so(client: Client) -> None:
    with client.create_session(MODEL, "still") as session:
        session.pause()
        with pytest.raises(ClientError) as caught:
            session.learn(texts=TEXTS).wait()
        assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "SESSION_PAUSED")
    for model, session_id, reason in ((MODEL, "nobody", "SESSION_NOT_FOUND"), (NUMERIC, "a", "MODEL_ANSWERS_ARRAYS")):
        with pytest.raises(ClientError, match=reason):
            client.learn(model, session_id, texts=TEXTS).wait()
    for material in ({}, {"texts": "one"}, {"texts": TEXTS, "pairs": [("a", "b")]}):
        with pytest.raises(ClientError, match="MATERIAL_INVALID"):
            client.learn(MODEL, "x", **material)


def test_the_asyncio_client_learns_the_same(running: Loopback, client: Client) -> None:
    async def scenario() -> None:
        async with AsyncClient(running.target) as aio:
            session = await aio.create_session(MODEL, "aio", recipe_parameters=FAST)
            lesson = session.learn(texts=TEXTS)
            seen = [progress async for progress in lesson]
            assert isinstance(seen[0], LearnProgress)
            assert (await lesson.wait()).verdict is LearnVerdict.COMMITTED
            assert (await session.score(["a text"])).version == 1

    asyncio.run(scenario())
    twin = client.create_session(MODEL, "sync", recipe_parameters=FAST)
    twin.learn(texts=TEXTS).wait()
    assert bits(twin.export()) == bits(client.export_session(MODEL, "aio"))


def test_a_draining_daemon_commits_nothing_of_a_lesson_that_does_not_end() -> None:
    slow = Slow()
    with writing(slow) as running, Client(running.target, reconnect=False) as client, ThreadPoolExecutor(2) as pool:
        names = ("one", "two")
        for name in names:
            client.create_session(
                MODEL, name, budget=PLENTY, recipe_parameters=SLOW | {"lr": 1e-3 if name == "one" else 1e-4}
            )
        lessons = [pool.submit(client.learn(MODEL, name, texts=TEXTS).wait) for name in names]
        figures = running.service.generating.snapshot
        until(lambda: (figures()[0].learning, figures()[0].lessons_waiting) == (1, 1), "both lessons")
        draining = asyncio.run_coroutine_threadsafe(running.service.drain(0.2), running.loop)
        for lesson in lessons:
            with pytest.raises(ClientError) as caught:
                lesson.result(60)
            assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "DRAINING")
        slow.go.set()
        draining.result(60)
