"""Recipes that replay: earlier examples come back in a session's later lessons, within a bound, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acclimate.adapters.learning.units import Example
from acclimate.runtime.client import Budget, Client, LearnVerdict, Session, learn_first
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession
from tests.looped import looped
from tests.runtime.generation.test_language_stored import learn, stored
from tests.runtime.generation.test_learn import FAST, TEXTS
from tests.runtime.generation.test_learn_first import LONG, WHOLE
from tests.runtime.generation.writers import MODEL, writing
from tests.runtime.rpc.loopback import Loopback

ANYTHING = {"trust_radius": 100.0, "canary_tolerance": 1000.0}
REPLAY = FAST | {"replay": 1.0, "kl": 0.0, "pull": 0.0}
OTHERS = [f"SPHINX OF BLACK QUARTZ, JUDGE MY VOW {n}! " * 2 for n in range(10)]


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with writing(generation=ANYTHING) as up:
        yield up


def remembered(running: Loopback, name: str) -> tuple[Example, ...]:
    """The examples that a session remembers."""
    assert isinstance(running.service, Service)
    session = running.service._parts.table.find(MODEL, name)
    assert session is not None
    return session.earlier


def kept(running: Loopback, name: str) -> tuple[int, int]:
    """How many they are, and their tokens."""
    examples = remembered(running, name)
    return len(examples), sum(len(one.prompt) + len(one.completion) for one in examples)


def taught(session: Session, texts: list[str], **given: Any) -> int:
    """Let it learn; how many examples of earlier lessons it was given."""
    outcome = session.learn(texts=texts, **given).wait()
    assert outcome.verdict is LearnVerdict.COMMITTED
    return outcome.replayed


def test_what_was_learnt_first_comes_back_and_is_better_known_for_it() -> None:
    """The second lesson ends all answers in another way than the first."""
    first, second = ([(f"{name}{n} is ", end * 6) for n in range(12)] for name, end in (("a", "e"), ("z", "Q")))
    chosen, known = {"lr": 0.02, "epochs": 6, "replay": 1.0, "kl": 0.0, "pull": 0.0}, {}
    for tokens in (0, 4096):
        with writing(generation=ANYTHING | {"replay_tokens": tokens}) as running, Client(running.target) as client:
            session = client.create_session(
                MODEL, "two", recipe="supervised_replay", recipe_parameters=chosen, budget=Budget(1000.0, 1e9)
            )
            assert session.learn(pairs=first).wait().replayed == 0
            outcome = session.learn(pairs=second).wait()
            assert (outcome.verdict, outcome.replayed) == (LearnVerdict.COMMITTED, len(first) if tokens else 0)
            assert kept(running, "two")[0] == (len(first + second) if tokens else 0)
            known[tokens] = session.score(["e" * 6], context=first[0][0]).scored[0].logprob
    assert known[4096] > known[0] + 1


def test_no_more_is_kept_than_may_be_and_some_of_each_lesson() -> None:
    with writing(generation=ANYTHING | {"replay_tokens": 700}) as up, Client(up.target) as client:
        session = client.create_session(MODEL, "bounded", recipe="tlm_replay", recipe_parameters=REPLAY)
        before = session.get().state_bytes
        taught(session, TEXTS)
        count, tokens = kept(up, "bounded")
        assert 0 < count < len(TEXTS)
        assert tokens <= 700
        assert session.get().state_bytes == before + 8 * tokens
        assert taught(session, OTHERS) == count
        texts = [bytes(one.prompt.astype("u1")).decode() for one in remembered(up, "bounded")]
        assert any(text in TEXTS for text in texts)
        assert any(text in OTHERS for text in texts)
        assert kept(up, "bounded")[1] <= 700


def test_only_who_replays_remembers(running: Loopback, client: Client) -> None:
    with client.create_session(MODEL, "plain", recipe_parameters=FAST) as session:
        taught(session, TEXTS)
        assert kept(running, "plain") == (0, 0)
        taught(session, TEXTS, recipe="tlm_replay", recipe_parameters=REPLAY)
        assert kept(running, "plain")[0] == len(TEXTS)
        assert taught(session, TEXTS) == 0, "its own recipe replays nothing"


def test_what_is_not_committed_is_not_remembered(running: Loopback, client: Client) -> None:
    with client.create_session(MODEL, "undone", recipe="tlm_replay", recipe_parameters=REPLAY) as session:
        wild = session.learn(texts=TEXTS, recipe_parameters={"lr": 1.0, "warmup": 0.0}).wait()
        assert wild.verdict is LearnVerdict.ROLLED_BACK
        text = session.generate(LONG, max_tokens=2, budget=WHOLE, learn=learn_first(0.9, texts=TEXTS, discard=True))
        text.read()
        assert text.lesson is not None
        assert text.lesson.verdict is LearnVerdict.USED
        assert kept(running, "undone") == (0, 0)


def test_examples_go_with_what_was_learnt_from_them(running: Loopback, client: Client) -> None:
    with client.create_session(MODEL, "gone", recipe="tlm_replay", recipe_parameters=REPLAY) as session:
        taught(session, TEXTS)
        session.snapshot("first")
        fork = session.fork("fork")
        assert kept(running, "fork") == (0, 0)
        fork.delete()
        session.restore("first")
        assert kept(running, "gone") == (0, 0)
        taught(session, TEXTS)
        session.reset()
        assert kept(running, "gone") == (0, 0)
        taught(session, TEXTS)
        session.delete()
        again = client.create_session(MODEL, "gone", recipe="tlm_replay", recipe_parameters=REPLAY)
        assert taught(again, TEXTS) == 0


def test_a_recipe_of_demonstrations_replays_no_texts(client: Client) -> None:
    shown = [(f"{n} is ", "odd." if n % 2 else "even.") for n in range(12)]
    with client.create_session(MODEL, "mixed", recipe="supervised_replay") as session:
        chosen = {"lr": 0.02, "epochs": 8}
        assert session.learn(texts=TEXTS, recipe="tlm_replay", recipe_parameters=REPLAY).wait().replayed == 0
        outcome = session.learn(pairs=shown, recipe_parameters=chosen).wait()
        assert (outcome.verdict, outcome.replayed) == (LearnVerdict.COMMITTED, len(TEXTS))
        ttt = session.learn(demonstrations=shown, recipe="ttt_replay", recipe_parameters={"orders": 2}).wait()
        assert ttt.replayed == len(shown)


@pytest.mark.parametrize("parked", [0, 2**20])
@looped
async def test_sessions_that_left_memory_find_them_while_there_is_room(tmp_path: Path, parked: int) -> None:
    sections: dict[str, Any] = {"sessions": {"max_sessions": 1}, "store": {"parked_bytes": parked}}
    sections["generation"] = ANYTHING
    async with stored(tmp_path, **sections) as service:
        await service.create_session(CreateSession(MODEL, "away", "tlm_replay", REPLAY))
        await learn(service, "away")
        await service.create_session(CreateSession(MODEL, "other", "tlm", FAST))
        assert service._parts.table.find(MODEL, "away") is None
        assert (await learn(service, "away")).replayed == (len(TEXTS) if parked else 0)
    async with stored(tmp_path, **sections) as service:
        assert (await learn(service, "away")).replayed == 0, "no store keeps them"
