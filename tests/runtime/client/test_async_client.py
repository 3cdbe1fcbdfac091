"""The asyncio client does what the blocking one does."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest

from acclimate.runtime.client import AsyncClient, AsyncSession, Client, ClientError, EventKind, Session
from tests.runtime.rpc.loopback import MODEL, Loopback, config, engine, samples, serving


@pytest.mark.parametrize(("blocking", "awaited"), [(Client, AsyncClient), (Session, AsyncSession)])
def test_both_clients_have_the_same_calls(blocking: type, awaited: type) -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        public = inspect.getmembers(kind, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
        return {name: list(inspect.signature(call).parameters) for name, call in public if name[0] != "_"}

    assert calls(blocking) == calls(awaited)


def test_many_sessions_at_once(loopback: Loopback) -> None:
    async def camera(client: AsyncClient, name: str) -> int:
        session = await client.create_session(MODEL, name, recipe="source")
        for step in range(5):
            answer = await session.predict(samples(2, step))
            np.testing.assert_allclose(answer.logits, engine().frozen(samples(2, step)), rtol=1e-5, atol=1e-6)
        await session.feedback(answer.request_id, int(answer.labels[0]))
        view = await session.get()
        assert (view.labelled, view.labelled_correct) == (1, 1)
        await session.reset()
        await session.delete()
        return view.samples

    async def main() -> list[int]:
        async with AsyncClient.connect(loopback.target) as client:
            await client.wait_until_ready()
            assert (await client.server_info()).models == tuple(model.name for model in await client.models())
            counts = await asyncio.gather(*(camera(client, f"async-{n}") for n in range(8)))
            assert not [v async for v in client.list_sessions(MODEL) if v.session_id.startswith("async-")]
            with pytest.raises(ClientError, match="does not exist") as caught:
                await client.get_session(MODEL, "async-0")
            assert caught.value.reason == "SESSION_NOT_FOUND"
            return counts

    assert asyncio.run(main()) == [10] * 8


def test_a_watch_stands_when_it_is_returned_and_ends_on_drain() -> None:
    async def main(target: str, running: Loopback) -> list[EventKind]:
        async with AsyncClient(target) as client:
            watch = await client.watch(resume_seconds=0)
            await client.create_session(MODEL, "a")
            await client.delete_session(MODEL, "a")
            kinds = [(await anext(watch)).kind, (await anext(watch)).kind]
            async with await client.watch(MODEL) as closed:
                await closed.close()
                assert [event async for event in closed] == []
            draining = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(running.service.drain(5.0), running.loop))
            assert [event async for event in watch] == []
            await draining
            return kinds

    with serving(config()) as running:
        assert asyncio.run(main(running.target, running)) == [EventKind.CREATED, EventKind.DELETED]
