"""A request that is sent twice under one id is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from acclimate.runtime.errors import InvalidArgument, NotFound
from acclimate.runtime.rpc.replays import MAX_ID, Replays
from acclimate.v1 import session_service_pb2 as pb
from acclimate.v1 import session_service_pb2_grpc
from tests.runtime.rpc.loopback import MODEL, Loopback, samples

PARENT = f"models/{MODEL}"


@pytest.fixture
def stub(loopback: Loopback) -> Iterator[Any]:
    with loopback.channel() as channel:
        yield session_service_pb2_grpc.SessionServiceStub(channel)


def test_a_session_is_created_once(stub: Any) -> None:
    request = pb.CreateSessionRequest(parent=PARENT, request_id="create-1")
    first, second = stub.CreateSession(request), stub.CreateSession(request)
    assert first == second
    assert first.session.name != stub.CreateSession(pb.CreateSessionRequest(parent=PARENT)).session.name
    with pytest.raises(grpc.RpcError, match="came with another request before") as caught:
        stub.CreateSession(pb.CreateSessionRequest(parent=PARENT, recipe="norm", request_id="create-1"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_forks_and_snapshots_are_made_once(stub: Any) -> None:
    name = stub.CreateSession(pb.CreateSessionRequest(parent=PARENT, session_id="twice")).session.name
    fork = pb.ForkSessionRequest(name=name, request_id="same")
    assert stub.ForkSession(fork) == stub.ForkSession(fork)
    snapshot = pb.SnapshotSessionRequest(name=name, request_id="same")
    assert stub.SnapshotSession(snapshot) == stub.SnapshotSession(snapshot)
    assert len(stub.ListSnapshots(pb.ListSnapshotsRequest(parent=name)).snapshots) == 1
    other = pb.SnapshotSessionRequest(name=stub.ForkSession(fork).session.name, request_id="same")
    assert stub.SnapshotSession(other).snapshot.name.startswith(other.name), "ids are each resource's own"


def test_labels_are_counted_once_and_a_retry_is_told_so(stub: Any, loopback: Loopback) -> None:
    from acclimate.runtime.client import Client

    with Client(loopback.target) as client, client.create_session(MODEL, recipe="source") as session:
        answer = session.predict(samples(2))
        name = f"{PARENT}/sessions/{session.id}"
        labels = [{"request_id": answer.request_id, "row": row, "label": 0} for row in range(2)]
        request = pb.SendFeedbackRequest(name=name, labels=labels, request_id="labels")
        first, second = stub.SendFeedback(request), stub.SendFeedback(request)
        assert first == second
        assert (second.accepted, session.get().labelled) == (2, 2)


def test_what_was_refused_is_tried_again(stub: Any) -> None:
    fork = pb.ForkSessionRequest(name=f"{PARENT}/sessions/later", session_id="copy", request_id="early")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ForkSession(fork)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    stub.CreateSession(pb.CreateSessionRequest(parent=PARENT, session_id="later"))
    assert stub.ForkSession(fork).session.name.endswith("/copy")


def request(request_id: str, session_id: str = "s") -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(parent=PARENT, session_id=session_id, request_id=request_id)


def test_one_that_is_under_way_is_waited_for_and_taken_over_if_it_fails() -> None:
    async def scenario() -> None:
        replays, calls, go = Replays(), [], asyncio.Event()

        async def work(number: int, fails: bool) -> pb.CreateSessionResponse:
            calls.append(number)
            await go.wait()
            if fails:
                raise NotFound("MODEL_NOT_FOUND", "not there")
            return pb.CreateSessionResponse(session={"name": str(number)})

        first = asyncio.create_task(replays.once("", PARENT, request("a"), lambda: work(1, True)))
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(replays.once("", PARENT, request("a"), lambda n=n: work(n, False)))  # type: ignore[misc]
            for n in (2, 3)
        ]
        await asyncio.sleep(0)
        assert calls == [1]
        go.set()
        with pytest.raises(NotFound):
            await first
        assert {reply.session.name for reply in await asyncio.gather(*others)} == {"2"}
        assert calls == [1, 2]

    asyncio.run(scenario())


def test_a_caller_that_leaves_does_not_leave_the_id_taken() -> None:
    async def scenario() -> None:
        replays = Replays()

        async def forever() -> Any:
            await asyncio.Event().wait()

        async def work() -> Any:
            return pb.CreateSessionResponse()

        left = asyncio.create_task(replays.once("", PARENT, request("a"), forever))
        await asyncio.sleep(0)
        left.cancel()
        assert await replays.once("", PARENT, request("a"), work) == pb.CreateSessionResponse()

    asyncio.run(scenario())


def test_only_so_many_are_remembered_and_no_id_is_endless() -> None:
    async def scenario() -> None:
        replays, calls = Replays(capacity=3), []

        async def ask(request_id: str) -> Any:
            async def work() -> Any:
                calls.append(request_id)
                return pb.CreateSessionResponse()

            return await replays.once("", PARENT, request(request_id), work)

        for request_id in "abcdba":
            await ask(request_id)
        assert calls == list("abcda"), "b was remembered, a no more"
        with pytest.raises(InvalidArgument, match="has 129 characters"):
            await ask("x" * (MAX_ID + 1))

    asyncio.run(scenario())


def test_an_id_is_its_tenant_s_own() -> None:
    async def scenario() -> None:
        replays = Replays()

        async def work(name: str) -> Any:
            return pb.CreateSessionResponse(session={"name": name})

        for tenant in ("one", "two", "one"):
            reply = await replays.once(tenant, PARENT, request("a"), lambda t=tenant: work(t))  # type: ignore[misc]
            assert reply.session.name == tenant

    asyncio.run(scenario())
