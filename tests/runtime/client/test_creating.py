"""Many sessions opened over one stream, by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from acclimate.runtime.client import AsyncClient, Client, ClientError, CreateSession
from tests.runtime.rpc.loopback import MODEL, Loopback

BOTH = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])


def created(target: str, blocking: bool, wanted: Iterable[CreateSession], **chosen: Any) -> list[str]:
    """Ids of the sessions made, by either client."""

    async def main() -> list[str]:
        async with AsyncClient(target) as client:

            async def source() -> AsyncIterator[CreateSession]:
                for one in wanted:
                    yield one

            return [session.id async for session in client.create_sessions(source(), **chosen)]

    if not blocking:
        return asyncio.run(main())
    with Client(target) as client:
        return [session.id for session in client.create_sessions(wanted, **chosen)]


@BOTH
def test_handles_come_in_the_order_of_what_was_wanted(loopback: Loopback, blocking: bool) -> None:
    names = [f"{blocking}-{n}" for n in range(200)]
    wanted = [CreateSession(MODEL, name, recipe="tent", labels={"n": name}) for name in names]
    assert created(loopback.target, blocking, wanted, in_flight=16) == names
    with Client(loopback.target) as client:
        view = client.session(MODEL, names[7]).get()
        assert (view.recipe, view.labels) == ("tent", {"n": names[7]})
    unnamed = created(loopback.target, blocking, [CreateSession(MODEL)] * 3)
    assert len(set(unnamed)) == 3


@BOTH
def test_a_refusal_ends_the_stream_at_its_place_or_is_told(loopback: Loopback, blocking: bool) -> None:
    first, second = f"first-{blocking}", f"second-{blocking}"
    wanted = [CreateSession(MODEL, name) for name in (first, first, second)]
    told: list[tuple[int, str]] = []

    def refused(place: int, error: ClientError) -> None:
        told.append((place, error.reason))

    assert created(loopback.target, blocking, wanted, refused=refused) == [first, second]
    assert told == [(1, "SESSION_EXISTS")]
    with pytest.raises(ClientError, match="exists") as caught:
        created(loopback.target, blocking, wanted)
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "SESSION_EXISTS")
    assert caught.value.resource == f"models/{MODEL}/sessions/{first}"
    with pytest.raises(ValueError, match="in_flight is 0"):
        created(loopback.target, blocking, wanted, in_flight=0)


def test_what_is_wanted_is_taken_as_there_is_room(loopback: Loopback) -> None:
    taken: list[int] = []

    def wanted() -> Iterator[CreateSession]:
        for n in range(100):
            taken.append(n)
            yield CreateSession(MODEL, f"lazy-{n}")

    with Client(loopback.target) as client:
        sessions = client.create_sessions(wanted(), in_flight=4)
        next(sessions)
        assert len(taken) <= 5
        sessions.close()  # type: ignore[attr-defined]
        assert len(taken) <= 5
