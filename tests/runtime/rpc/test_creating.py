"""`CreateSessions`: many sessions over one stream, each message answered in its turn and for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from acclimate.runtime.rpc.creating import UNDER_WAY, Creations
from acclimate.runtime.types import CreateSession, SessionView
from acclimate.v1 import session_pb2
from acclimate.v1 import session_service_pb2 as pb
from tests.polling import until, until_async
from tests.runtime.rpc.loopback import MODEL, Loopback, config, serving

RPC = "/acclimate.v1.SessionService/CreateSessions"
PARENT = f"models/{MODEL}"


def stream(loopback: Loopback, messages: Iterator[bytes]) -> Iterator[pb.CreateSessionsResponse]:
    """The answers as they come."""
    with loopback.channel() as channel:
        rpc = channel.stream_stream(RPC, response_deserializer=pb.CreateSessionsResponse.FromString)
        yield from rpc(messages, timeout=60)


def of(session_id: str = "", tag: str = "", **more: Any) -> bytes:
    chosen = {"session_id": session_id} if session_id else {}
    return pb.CreateSessionsRequest(session={"parent": PARENT, **chosen, **more}, tag=tag).SerializeToString()


def reason(answer: pb.CreateSessionsResponse) -> str:
    """Of the refusal, read as what it is on the wire."""
    status = status_pb2.Status.FromString(answer.refusal.SerializeToString())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (answer.refusal.code, answer.refusal.message)
    return info.reason


def test_sessions_are_opened_in_order_and_a_refusal_is_its_message_s_own(loopback: Loopback) -> None:
    messages = [
        of("many-0", "a", labels={"site": "hall 3"}),
        of("many-0", "b"),
        b"\xff\xff",
        of("no/name", "d"),
        of("many-1", "e", recipe="no-such-recipe"),
        of("many-1", "f", recipe="x" * 600),
        of("many-1", "g", recipe="tent"),
        of(tag="h"),
    ]
    answers = list(stream(loopback, iter(messages)))
    assert [answer.tag for answer in answers] == ["a", "b", "", "d", "e", "f", "g", "h"]
    made = {answer.tag: answer.session for answer in answers if answer.WhichOneof("result") == "session"}
    assert list(made) == ["a", "g", "h"]
    assert made["a"].name == f"{PARENT}/sessions/many-0"
    assert dict(made["a"].labels) == {"site": "hall 3"}
    assert made["g"].recipe == "tent"
    assert {answer.tag: (answer.refusal.code, reason(answer)) for answer in answers if answer.tag not in made} == {
        "b": (grpc.StatusCode.ALREADY_EXISTS.value[0], "SESSION_EXISTS"),
        "": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "MESSAGE_MALFORMED"),
        "d": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "SESSION_ID_INVALID"),
        "e": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "RECIPE_INVALID"),
        "f": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "LIMIT_EXCEEDED"),
    }
    with loopback.channel() as channel:
        get = channel.unary_unary(
            "/acclimate.v1.SessionService/GetSession", response_deserializer=pb.GetSessionResponse.FromString
        )
        for session in made.values():
            again: session_pb2.Session = get(pb.GetSessionRequest(name=session.name).SerializeToString()).session
            assert (again.name, again.etag) == (session.name, session.etag)


def test_a_request_id_opens_one_session_on_streams_and_calls_alike(loopback: Loopback) -> None:
    first, second = stream(loopback, iter([of(request_id="once"), of(request_id="once", tag="2")]))
    assert first.session == second.session
    with loopback.channel() as channel:
        create = channel.unary_unary(
            "/acclimate.v1.SessionService/CreateSession", response_deserializer=pb.CreateSessionResponse.FromString
        )
        request = pb.CreateSessionRequest(parent=PARENT, request_id="once")
        assert create(request.SerializeToString()).session == first.session
    reused = next(stream(loopback, iter([of("other", request_id="once")])))
    assert reason(reused) == "REQUEST_ID_REUSED"


def test_full_is_told_message_by_message() -> None:
    settings = config().model_copy(update={"sessions": config().sessions.model_copy(update={"max_sessions": 3})})
    with serving(settings) as up:
        answers = list(stream(up, (of(f"s-{n}") for n in range(5))))
        assert [answer.WhichOneof("result") for answer in answers] == ["session"] * 3 + ["refusal"] * 2
        assert {reason(answer) for answer in answers[3:]} == {"SESSIONS_FULL"}


class Holding:
    """The real service; sessions whose id begins with `held` are opened once they are let go, or never."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.begun: list[str] = []
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create_session(self, request: CreateSession) -> SessionView:
        name = request.session_id or ""
        self.begun.append(name)
        if name == "broken":
            raise ZeroDivisionError
        if name.startswith("held"):
            await until_async(self.go.is_set, "the test to let sessions go")
        view: SessionView = await self._inner.create_session(request)
        return view


def held(run: Callable[[Loopback, Holding], None]) -> None:
    made: list[Holding] = []

    def wrap(service: Any) -> Any:
        made.append(Holding(service))
        return made[0]

    with serving(wrap=wrap) as up:
        run(up, made[0])


def test_no_more_than_a_few_messages_are_under_way() -> None:
    async def scenario() -> None:
        taken, go = [], asyncio.Event()

        async def messages() -> AsyncIterator[bytes]:
            for n in range(100):
                taken.append(n)
                yield of(f"s-{n}")

        async def create(request: pb.CreateSessionRequest) -> pb.CreateSessionResponse:
            await go.wait()
            return pb.CreateSessionResponse(session={"name": request.session_id})

        answers = Creations().serve(messages(), create)
        first = asyncio.ensure_future(anext(answers))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(taken) == UNDER_WAY
        go.set()
        assert [(await first).session.name, *[a.session.name async for a in answers]] == [f"s-{n}" for n in range(100)]

    asyncio.run(scenario())


def test_a_stream_that_is_left_gives_up_what_is_under_way() -> None:
    async def scenario() -> None:
        ended: list[str] = []

        async def messages() -> AsyncIterator[bytes]:
            for name in ("a", "b", "c"):
                yield of(name)
            await asyncio.Event().wait()

        async def create(request: pb.CreateSessionRequest) -> pb.CreateSessionResponse:
            try:
                if request.session_id != "a":
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append(request.session_id)
                raise
            return pb.CreateSessionResponse()

        answers = Creations().serve(messages(), create)
        await anext(answers)
        await asyncio.sleep(0)
        await answers.aclose()
        assert sorted(ended) == ["b", "c"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_a_defect_is_one_message_s_and_tells_nothing() -> None:
    def run(up: Loopback, service: Holding) -> None:
        broken, good = stream(up, iter([of("broken", "x"), of("good")]))
        assert (broken.tag, broken.refusal.code, reason(broken)) == ("x", grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
        assert "ZeroDivision" not in broken.refusal.message
        assert good.session.name.endswith("/good")

    held(run)


def test_a_drain_answers_what_was_read_and_ends_the_stream() -> None:
    def run(up: Loopback, service: Holding) -> None:
        sent = threading.Semaphore(0)

        def messages() -> Iterator[bytes]:
            yield of("held-0")
            sent.acquire()

        answers = stream(up, messages())
        seen: list[pb.CreateSessionsResponse] = []
        ended: list[grpc.RpcError] = []

        def read() -> None:
            try:
                seen.extend(answers)
            except grpc.RpcError as error:
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: bool(service.begun), "the first to be begun")
        up.loop.call_soon_threadsafe(up.rpc.drain)
        service.go.set()
        reader.join()
        sent.release()
        assert [error.code() for error in ended] == [grpc.StatusCode.UNAVAILABLE]  # type: ignore[attr-defined]
        with up.channel() as channel, pytest.raises(grpc.RpcError, match="draining"):
            next(channel.stream_stream(RPC)(iter([of("late")]), timeout=60))
        assert [view.session_id for view in up.run(up.service.list_sessions(None, 0, "")).sessions] == ["held-0"]

    held(run)
