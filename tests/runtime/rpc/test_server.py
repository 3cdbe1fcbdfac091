"""Health, reflection, watches, drain, defects and ports: what the server does besides carrying calls."""

from __future__ import annotations

import errno
import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.rpc.server import SERVICES, build_server
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.types import InferReply, InferRequest
from acclimate.v1 import server_service_pb2, server_service_pb2_grpc, session_service_pb2_grpc
from acclimate.v1 import session_service_pb2 as pb
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, config, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Broken:
    """The real service but for `infer`, which raises what it is given: a defect cannot be had otherwise."""

    def __init__(self, service: ServiceProtocol, error: Exception) -> None:
        self._service = service
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def infer(self, request: InferRequest) -> InferReply:
        raise self._error


@contextmanager
def refused(error: Exception) -> Iterator[tuple[Loopback, pytest.ExceptionInfo[grpc.RpcError]]]:
    """A server whose inference failed with `error`, and what the client was told."""

    def wrap(service: ServiceProtocol) -> ServiceProtocol:
        return cast(ServiceProtocol, Broken(service, error))

    with serving(wrap=wrap) as running, running.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            model_infer(channel)
        yield running, caught


def model_infer(channel: grpc.Channel) -> Any:
    rpc = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    return rpc(oip.ModelInferRequest(model_name=MODEL), timeout=30)


def test_reflection_lists_and_describes_every_service(loopback: Loopback) -> None:
    with loopback.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        pool = DescriptorPool(database)
        assert listed == {*SERVICES, "grpc.reflection.v1alpha.ServerReflection"}
        for name in listed:
            assert pool.FindServiceByName(name).methods
        request = pool.FindMessageTypeByName("inference.ModelInferRequest")
        assert request.fields_by_name["raw_input_contents"].number == 7


def test_health_of_daemon_services_and_models(loopback: Loopback) -> None:
    with loopback.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", MODEL, *SERVICES):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert reply.status == SERVING, name
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_model_that_goes_is_unknown_to_health_and_tells_who_watches() -> None:
    with serving() as running, running.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=MODEL), timeout=60)
        assert next(watch).status == SERVING
        running.run(running.service.repository.unload(MODEL))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service=MODEL), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=30).status == SERVING


def test_server_info(loopback: Loopback) -> None:
    with loopback.channel() as channel:
        stub = server_service_pb2_grpc.ServerServiceStub(channel)
        info = stub.GetServerInfo(server_service_pb2.GetServerInfoRequest(), timeout=30)
    assert info.rss_bytes > 2**20
    assert info.start_time.ToSeconds() > 1.7e9
    assert info.limits.max_message_bytes == 64 * 2**20
    assert info.limits.default_recipe in info.limits.recipes
    assert list(info.models) == [MODEL]


def test_drain_ends_health_and_session_watches_without_waiting_for_them() -> None:
    """Two watchers of one name, for the reference health servicer forgets the second when the first leaves."""
    replies: Queue[Any] = Queue()

    def collect(name: str, stream: Iterator[Any]) -> None:
        try:
            for reply in stream:
                replies.put((name, reply))
            replies.put((name, "end"))
        except grpc.RpcError as error:
            replies.put((name, error.code()))  # type: ignore[attr-defined]

    with serving() as running:
        channel = running.channel()
        health = health_pb2_grpc.HealthStub(channel)
        leaves = health.Watch(health_pb2.HealthCheckRequest(service=""))
        stays = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(leaves).status == next(stays).status == SERVING
        leaves.cancel()
        sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        watch = sessions.WatchSessions(pb.WatchSessionsRequest(name="models/-"))
        watch.initial_metadata()
        sessions.CreateSession(pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id="a"), timeout=30)
        streams = {"health": stays, "sessions": watch}
        threads = [Thread(target=collect, args=item) for item in streams.items()]
        for thread in threads:
            thread.start()
        name, event = replies.get(timeout=30)
        assert (name, event.event.name) == ("sessions", f"models/{MODEL}/sessions/a")
    for thread in threads:
        thread.join(30)
    left = [replies.get(timeout=30) for _ in range(replies.qsize())]
    assert [reply for name, reply in left if name == "sessions"] == ["end"]
    health_replies = [reply for name, reply in left if name == "health"]
    assert health_replies[0].status == NOT_SERVING
    assert health_replies[-1] == "end"
    channel.close()


def test_nothing_is_asked_of_sessions_once_they_are_being_stored() -> None:
    with serving(config()) as running, running.channel() as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        name = stub.CreateSession(pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id="early")).session.name
        running.loop.call_soon_threadsafe(running.rpc.drain)
        for rpc, request in (
            (stub.CreateSession, pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id="late")),
            (stub.CreateSession, pb.CreateSessionRequest(parent=f"models/{MODEL}")),
            (stub.PauseSession, pb.PauseSessionRequest(name=name)),
            (stub.GetSession, pb.GetSessionRequest(name=f"models/{MODEL}/sessions/elsewhere")),
        ):
            with pytest.raises(grpc.RpcError, match="draining") as caught:
                rpc(request, timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "code"),
    [("models/nowhere", "NOT_FOUND"), (f"models/{MODEL}/sessions/none", "NOT_FOUND"), ("all", "INVALID_ARGUMENT")],
)
def test_a_watch_of_nothing_is_refused(loopback: Loopback, name: str, code: str) -> None:
    with loopback.channel() as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.WatchSessions(pb.WatchSessionsRequest(name=name), timeout=30))
        assert caught.value.code().name == code


def test_a_defect_is_internal_and_hides_its_details(json_logs: io.StringIO) -> None:
    hidden = "theta of tenant 7"
    failed = ("GRPCInferenceService/ModelInfer", "INTERNAL")
    with refused(ValueError(hidden)) as (running, caught):
        until(lambda: running.rpc.stats.counts().get(failed) == 1, "the count")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert info.reason == "INTERNAL"
    told = f"{caught.value.details()} {caught.value.trailing_metadata()}"
    assert hidden not in told
    assert info.metadata["correlation_id"] in told
    logged = [json.loads(line) for line in json_logs.getvalue().splitlines()]
    record = next(line for line in logged if line["level"] == "error")
    assert record["correlation_id"] == info.metadata["correlation_id"]
    assert hidden in record["exception"]


def test_a_full_queue_says_when_to_come_back() -> None:
    with refused(ResourceExhausted("QUEUE_FULL", "the queue is full", retry_after_seconds=0.25)) as (_, caught):
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(cast(Any, caught.value.trailing_metadata()))
        assert trailers["grpc-retry-pushback-ms"] == "250"
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(caught.value).details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 250


def test_a_taken_port_is_named(loopback: Loopback) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def build() -> None:
            build_server(loopback.service, config(grpc_port=port))

        with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught:
            loopback.run(build())
    assert caught.value.errno == errno.EADDRINUSE


def test_two_servers_never_share_a_port(loopback: Loopback) -> None:
    async def build() -> None:
        build_server(loopback.service, config(grpc_port=loopback.rpc.port))

    with pytest.raises(OSError, match="choose another with --grpc-port"):
        loopback.run(build())
