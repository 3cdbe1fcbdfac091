"""What is sent again, what is not, and what is not even sent: against servers that refuse, and the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.client.channel import (
    GENERATION_SERVICE,
    IDEMPOTENT,
    OIP_SERVICE,
    SERVER_SERVICE,
    SESSION_SERVICE,
    options,
)
from acclimate.runtime.errors import Unavailable
from acclimate.runtime.rpc.status import refusal
from acclimate.v1 import generation_service_pb2, server_service_pb2, session_service_pb2
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, config, samples, serving

Replies = dict[str, Callable[[bytes], bytes]]


@dataclass
class Refusing(grpc.GenericRpcHandler):
    """A real gRPC server's only handler: refuses each method `times` times, then answers."""

    code: grpc.StatusCode
    pushback: str | None
    times: int
    seen: list[str] = field(default_factory=list)
    known: tuple[str, ...] | None = None
    draining: bool = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method.rpartition("/")[2]
        if self.known is not None and method not in self.known:
            return None

        def serve(request: bytes, context: grpc.ServicerContext) -> bytes:
            if method in ANSWERED_AT_ONCE:
                return ANSWERS[method]
            self.seen.append(method)
            if self.seen.count(method) <= self.times:
                if self.pushback is not None:
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback),))
                if self.draining:
                    context.set_trailing_metadata(refusal(Unavailable("DRAINING", "draining")).trailers)
                context.abort(self.code, "not now")
            return ANSWERS[method]

        return grpc.unary_unary_rpc_method_handler(serve)


SPEC = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
ANSWERED_AT_ONCE = ("ModelMetadata", "ServerLive")
ANSWERS = {
    "ServerLive": oip.ServerLiveResponse(live=True).SerializeToString(),
    "ModelMetadata": oip.ModelMetadataResponse(name="m", inputs=[SPEC], outputs=[SPEC]).SerializeToString(),
    "ModelInfer": oip.ModelInferResponse(
        outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 2]}], raw_output_contents=[np.zeros(2, "<f4").tobytes()]
    ).SerializeToString(),
    "GetServerInfo": server_service_pb2.GetServerInfoResponse(version="1").SerializeToString(),
    "DeleteSession": session_service_pb2.DeleteSessionResponse().SerializeToString(),
}


@contextmanager
def refusing(code: grpc.StatusCode, pushback: str | None = None, times: int = 2) -> Iterator[tuple[str, Refusing]]:
    handler = Refusing(code, pushback, times)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        server.stop(None).wait()


ARRAY = np.zeros((1, 2), np.float32)
EXHAUSTED, UNAVAILABLE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


def test_an_overloaded_server_is_asked_again_when_it_says() -> None:
    with refusing(EXHAUSTED, "20") as (target, handler), Client(target) as client:
        assert client.predict("m", ARRAY).logits.shape == (1, 2)
        assert handler.seen == ["ModelInfer"] * 3


def test_the_server_s_delay_is_kept_and_not_the_client_s_own() -> None:
    with refusing(EXHAUSTED, "600000") as (target, handler), Client(target) as client:
        with pytest.raises(ClientError) as caught:
            client.predict("m", ARRAY, timeout_seconds=1.0)
        assert caught.value.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        assert handler.seen == ["ModelInfer"], "the client's own delays would have led to three more within a second"


def test_what_will_not_pass_is_not_asked_again() -> None:
    with refusing(EXHAUSTED, "-1") as (target, handler), Client(target) as client:
        with pytest.raises(ClientError) as caught:
            client.predict("m", ARRAY)
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert handler.seen == ["ModelInfer"]


def test_unavailable_is_retried_only_where_a_second_execution_does_no_harm() -> None:
    with refusing(UNAVAILABLE) as (target, handler), Client(target) as client:
        assert client.server_info().version == "1"
        assert handler.seen == ["GetServerInfo"] * 3
        for call in (lambda: client.predict("m", ARRAY), lambda: client.delete_session("m", "s")):
            handler.seen.clear()
            with pytest.raises(ClientError, match="not now"):
                call()
            assert len(handler.seen) == 1


def test_what_a_draining_daemon_turned_away_is_sent_again_until_the_deadline() -> None:
    with refusing(UNAVAILABLE, times=6) as (target, handler), Client(target) as client:
        handler.draining = True
        assert client.predict("m", ARRAY).logits.shape == (1, 2)
        assert handler.seen == ["ModelInfer"] * 7
        handler.seen.clear()
        handler.times = 10**6
        with pytest.raises(ClientError) as caught:
            client.predict("m", ARRAY, timeout_seconds=0.3)
        assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "DRAINING")
    with refusing(UNAVAILABLE) as (target, handler), Client(target, reconnect=False) as client:
        handler.draining = True
        with pytest.raises(ClientError):
            client.predict("m", ARRAY)
        assert handler.seen == ["ModelInfer"]


def test_a_call_that_a_stopping_daemon_cut_off_is_unavailable() -> None:
    with refusing(grpc.StatusCode.CANCELLED) as (target, handler), Client(target) as client:
        with pytest.raises(ClientError, match="the daemon stopped while the call was under way") as caught:
            client.predict("m", ARRAY)
        assert caught.value.code == "UNAVAILABLE"
        assert handler.seen == ["ModelInfer"], "it may have been executed"


def test_calls_of_a_client_that_was_closed_say_so() -> None:
    with refusing(UNAVAILABLE, times=0) as (target, _):
        client = Client(target)
        client.close()
        with pytest.raises((ClientError, ValueError), match="closed"):
            client.server_info()


def test_retries_can_be_switched_off_and_are_bounded() -> None:
    with refusing(UNAVAILABLE, times=9) as (target, handler):
        for attempts in (1, 2, 4):
            handler.seen.clear()
            with Client(target, attempts=attempts) as client, pytest.raises(ClientError):
                client.server_info()
            assert len(handler.seen) == attempts


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="attempts is 6; gRPC takes 1"):
        Client(attempts=6)
    with pytest.raises(ValueError, match="keepalive_seconds is 0"):
        Client(keepalive_seconds=0)
    chosen = dict(options(2**20, 15.0, 4))
    assert (chosen["grpc.keepalive_time_ms"], chosen["grpc.keepalive_permit_without_calls"]) == (15_000, 0)
    assert "grpc.keepalive_time_ms" not in dict(options(2**20, None, 4))


def test_every_idempotent_rpc_exists() -> None:
    files = {
        OIP_SERVICE: oip,
        SESSION_SERVICE: session_service_pb2,
        SERVER_SERVICE: server_service_pb2,
        GENERATION_SERVICE: generation_service_pb2,
    }
    for service, methods in IDEMPOTENT.items():
        descriptor = files[service].DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
        assert set(methods) <= {method.name for method in descriptor.methods}


def test_a_message_the_daemon_would_refuse_is_not_sent() -> None:
    with serving(config(max_message_bytes=2**17)) as running, Client(running.target) as client:
        assert client.predict(MODEL, samples(4)).logits.shape[0] == 4
        with pytest.raises(ClientError, match=r"at most 131072 can be sent; send fewer samples") as caught:
            client.predict(MODEL, samples(10_000))
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
        assert caught.value.metadata["limit"] == "131072"
        counts = running.rpc.stats.counts()
        assert sum(n for (rpc, _), n in counts.items() if rpc == "GRPCInferenceService/ModelInfer") == 1


def test_a_client_s_own_limit_comes_first() -> None:
    with (
        serving() as running,
        Client(running.target, max_message_bytes=2**17) as client,
        pytest.raises(ClientError, match="at most 131072"),
    ):
        client.predict(MODEL, samples(10_000))


def test_a_server_without_our_services_takes_what_the_client_allows() -> None:
    with refusing(UNAVAILABLE, times=0) as (target, handler), Client(target) as client:
        handler.known = ("ModelInfer", "ModelMetadata")
        assert client.predict("m", np.zeros((20_000, 2), np.float32)).logits.shape == (1, 2)
        assert handler.seen == ["ModelInfer"]


def test_the_daemon_tells_clients_not_to_ask_again_for_what_will_not_pass() -> None:
    settings = config()
    settings = settings.model_copy(update={"sessions": settings.sessions.model_copy(update={"max_sessions": 1})})
    with serving(settings) as small, Client(small.target) as client:
        client.create_session(MODEL)
        with pytest.raises(ClientError, match="max_sessions"):
            client.create_session(MODEL)
        counted = "SessionService/CreateSession", "RESOURCE_EXHAUSTED"
        until(lambda: counted in small.rpc.stats.counts(), "the refusal to be counted")
        assert small.rpc.stats.counts()[counted] == 1
