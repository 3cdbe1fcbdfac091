"""The gate in front of every rpc: tenants' requests a second, streams that are paced, daemons without tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.config import Config
from acclimate.runtime.rpc import gate
from acclimate.runtime.rpc.stats import RpcStats
from acclimate.runtime.security import access, setup, tokens
from acclimate.runtime.security.caller import NOBODY, Role, current
from acclimate.v1 import server_service_pb2, server_service_pb2_grpc
from tests.runtime.rpc.loopback import Loopback, config, serving

HEALTH = "/grpc.health.v1.Health/Check"


def settings(tmp_path: Path | None = None, **quotas: Any) -> tuple[Config, dict[str, str]]:
    """A configuration with these quotas and, given a folder, tokens of two tenants."""
    given, chosen = {}, config().model_dump() | {"quotas": quotas}
    if tmp_path is not None:
        made = {name: tokens.create("tenant", name, "", time.time(), None) for name in ("a", "b")}
        tokens.write(tmp_path / "t.json", {entry.id: entry for _, entry in made.values()})
        chosen["security"]["tokens"] = str(tmp_path / "t.json")
        given = {name: token for name, (token, _) in made.items()}
    return Config(**chosen), given


def info(channel: grpc.Channel, *metadata: tuple[str, str]) -> Any:
    stub = server_service_pb2_grpc.ServerServiceStub(channel)
    return stub.GetServerInfo(server_service_pb2.GetServerInfoRequest(), timeout=30, metadata=metadata)


def test_over_its_rate_a_tenant_is_told_when_to_come_back_and_others_are_served(tmp_path: Path) -> None:
    chosen, given = settings(tmp_path, requests_per_s=0.01, burst_seconds=100.0)
    with serving(chosen) as up, up.channel() as channel:
        mine, theirs = (("authorization", f"Bearer {given[name]}") for name in ("a", "b"))
        info(channel, mine)
        with pytest.raises(grpc.RpcError) as caught:
            info(channel, mine)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "quotas.requests_per_s" in caught.value.details()
        trailers: Any = caught.value.trailing_metadata()
        pushback = int(dict(trailers)["grpc-retry-pushback-ms"])
        assert 0 < pushback <= 100_000
        kinds = (error_details_pb2.ErrorInfo, error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo)
        details = rpc_status.from_call(caught.value).details
        assert [detail.Is(kind.DESCRIPTOR) for detail, kind in zip(details, kinds, strict=True)] == [True] * 3
        failure = error_details_pb2.QuotaFailure()
        details[1].Unpack(failure)
        assert failure.violations[0].subject == "requests"
        info(channel, theirs)
        for _ in range(5):
            channel.unary_unary(HEALTH)(b"", timeout=30, metadata=(mine,))
        assert up.rpc.stats.counts()["ServerService/GetServerInfo", "RESOURCE_EXHAUSTED"] == 1


def test_messages_of_a_stream_wait_until_there_is_one_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = ManualClock(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async def sent() -> AsyncIterator[int]:
        for number in range(8):
            yield number

    async def scenario() -> list[int]:
        paced = gate.Gate(setup.guard(chosen, clock), RpcStats(()))._paced(
            sent(), SimpleNamespace(invocation_metadata=tuple)
        )
        return [message async for message in paced]

    chosen, _ = settings(requests_per_s=4.0, burst_seconds=0.5)
    monkeypatch.setattr(gate, "asyncio", SimpleNamespace(sleep=sleep))
    assert asyncio.run(scenario()) == list(range(8))
    assert slept == [0.25] * 6, "two were saved up, the others came one by one"


def test_a_paced_stream_is_answered_whole() -> None:
    chosen, _ = settings(requests_per_s=100.0, burst_seconds=0.01)
    with serving(chosen) as up, up.channel() as channel:
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        replies = list(stub.ServerReflectionInfo(iter([question] * 8), timeout=30))
        assert len(replies) == 8


def test_a_daemon_without_tokens_takes_everyone_and_has_no_tenants() -> None:
    with serving() as up, up.channel() as channel:
        assert info(channel).pid > 0
        assert info(channel, ("authorization", "Basic of-some-proxy")).pid > 0
        with pytest.raises(grpc.RpcError) as caught:
            info(channel, ("acclimate-tenant", "a"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "security.tokens" in caught.value.details()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65])
def test_a_tenant_that_is_no_name_is_an_invalid_argument(tmp_path: Path, name: str) -> None:
    chosen, given = settings(tmp_path)
    with serving(chosen) as up, up.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        info(channel, ("authorization", f"Bearer {given['a']}"), ("acclimate-tenant", name))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_refusals_are_counted_by_rpc_and_an_unknown_rpc_is_none(tmp_path: Path) -> None:
    chosen, _ = settings(tmp_path)
    with serving(chosen) as up, up.channel() as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                info(channel)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            channel.unary_unary("/acclimate.v1.ServerService/Obliterate")(b"", timeout=30)
        counts = up.rpc.stats.counts()
    assert counts["ServerService/GetServerInfo", "UNAUTHENTICATED"] == 2
    assert not [method for method, _ in counts if "Obliterate" in method]


def test_outside_of_an_rpc_there_is_nobody(loopback: Loopback) -> None:
    async def who() -> str:
        return current().tenant

    assert loopback.run(who()) == current().tenant == NOBODY


def test_an_rpc_without_a_row_is_for_administrators() -> None:
    assert [access.allowed("/x.Y/Z", role) for role in (Role.ADMIN, Role.TENANT, Role.OPERATOR)] == [True, False, False]
    assert not access.OPEN & set(access.RPCS)
