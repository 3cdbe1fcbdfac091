"""Sessions of language models outlive memory and the process, and are as they were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.engines.reference_language import reference_language
from acclimate.runtime.errors import FailedPrecondition, NotFound, ResourceExhausted
from acclimate.runtime.generation.types import (
    Drawing,
    GenerateRequest,
    LearnOutcome,
    LearnRequest,
    LearnVerdict,
    Material,
    MaterialKind,
)
from acclimate.runtime.security.caller import Caller, Role, enter
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession
from acclimate.runtime.wiring import build_service
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.generation.test_learn import FAST, TEXTS
from tests.runtime.generation.writers import CORPUS, MODEL, PROMPT, config, engine
from tests.runtime.shaky import database

DRAWN = Drawing(60, 1.0, seed=3)


@asynccontextmanager
async def stored(folder: Path, language: Any = None, **sections: Any) -> AsyncIterator[Service]:
    settings = config(**sections)
    service = build_service(settings, {}, store=database(folder), languages={MODEL: language or engine()})
    service.start()
    try:
        yield service
    finally:
        await service.drain(30.0)


async def learn(service: Service, session: str) -> LearnOutcome:
    request = LearnRequest(MODEL, session, Material(MaterialKind.TEXTS, tuple(TEXTS)))
    updates = [update async for update in service.generating.learn(request)]
    assert isinstance(updates[-1], LearnOutcome)
    return updates[-1]


async def written(service: Service, session: str | None) -> str:
    replies = [reply async for reply in service.generating.generate(GenerateRequest(MODEL, session, PROMPT, DRAWN))]
    return "".join(reply.token.text for reply in replies if reply.token is not None)


def theta(exported: Any) -> list[bytes]:
    return [tensor.values.tobytes() for tensor in exported.parameters]


@looped
async def test_a_session_outlives_its_process_bit_for_bit(tmp_path: Path) -> None:
    async with stored(tmp_path) as service:
        await service.create_session(CreateSession(MODEL, "kept", "tlm", FAST))
        assert (await learn(service, "kept")).verdict is LearnVerdict.COMMITTED
        await service.lifecycle.take_snapshot(MODEL, "kept", "first")
        before, text = await service.export_session(MODEL, "kept"), await written(service, "kept")
        view = await service.get_session(MODEL, "kept")
    async with stored(tmp_path) as service:
        assert await written(service, "kept") == text
        after = await service.export_session(MODEL, "kept")
        assert (after.version, theta(after)) == (before.version, theta(before))
        seen = await service.get_session(MODEL, "kept")
        assert (seen.updates, seen.recipe_parameters) == (view.updates, view.recipe_parameters)
        assert (await learn(service, "kept")).steps > 0
        restored = await service.lifecycle.restore(MODEL, "kept", "first")
        assert theta(await service.export_session(MODEL, "kept")) == theta(before)
        assert restored.version > before.version


@looped
async def test_sessions_make_room_for_each_other_and_return(tmp_path: Path) -> None:
    async with stored(tmp_path, sessions={"max_sessions": 2}) as service:
        texts = {}
        for name in ("a", "b", "c"):
            await service.create_session(CreateSession(MODEL, name, "tlm", FAST))
            await learn(service, name)
            texts[name] = await written(service, name)
        for name in ("a", "b", "c", "a"):
            assert await written(service, name) == texts[name]
        assert service.snapshot().store.returns >= 2


@looped
async def test_a_session_that_learns_does_not_leave(tmp_path: Path) -> None:
    async with stored(tmp_path, sessions={"max_sessions": 1}) as service:
        await service.create_session(CreateSession(MODEL, "learner", "tlm", FAST | {"epochs": 60}))
        request = LearnRequest(MODEL, "learner", Material(MaterialKind.TEXTS, tuple(TEXTS)))
        updates = service.generating.learn(request)
        await anext(updates)
        with pytest.raises(ResourceExhausted, match="all of them are in use"):
            await service.create_session(CreateSession(MODEL, "other"))
        await updates.aclose()
        await until_async(lambda: not service.generating.snapshot()[0].learning, "the lesson to be given up")
        assert (await service.create_session(CreateSession(MODEL, "other"))).version == 0


@looped
async def test_another_models_record_is_not_taken(tmp_path: Path) -> None:
    async with stored(tmp_path) as service:
        await service.create_session(CreateSession(MODEL, "theirs", "tlm", FAST))
        await learn(service, "theirs")
    other = reference_language(CORPUS, width=12, name=MODEL)
    async with stored(tmp_path, other) as service:
        with pytest.raises(FailedPrecondition, match="was learnt on bundle"):
            await written(service, "theirs")


@looped
async def test_tenants_have_sessions_of_their_own(tmp_path: Path) -> None:
    async with stored(tmp_path, quotas={"sessions": 1}) as service:
        enter(Caller("alice", Role.TENANT))
        await service.create_session(CreateSession(MODEL, "same", "tlm", FAST))
        with pytest.raises(ResourceExhausted, match="quota"):
            await service.create_session(CreateSession(MODEL, "second"))
        await learn(service, "same")
        text = await written(service, "same")
        enter(Caller("mallory", Role.TENANT))
        with pytest.raises(NotFound, match="does not exist"):
            await written(service, "same")
        with pytest.raises(NotFound, match="does not exist"):
            await learn(service, "same")
        await service.create_session(CreateSession(MODEL, "same"))
        assert await written(service, "same") == await written(service, None) != text
