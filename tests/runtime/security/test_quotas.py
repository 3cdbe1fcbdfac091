"""What a tenant may use, in the books and over a real service: sessions, bytes, requests, adaptation."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.config import Config, ConfigError, load
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.security.caller import Caller, Role, enter
from acclimate.runtime.security.quotas import Quotas, Share
from acclimate.runtime.security.stats import SecurityStats
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.session import Account
from tests.polling import until_async
from tests.runtime.serving import PLENTY_FOR_ALL, drifted, opened, predict, serving, session_of


def quotas(clock: ManualClock, **share: Any) -> Quotas:
    return Quotas(lambda _: Share(**share), clock, SecurityStats())


def enter_session(books: Quotas, tenant: str, state_bytes: int) -> None:
    books.check(tenant, state_bytes)
    books.entered(tenant, state_bytes)


def test_sessions_and_bytes_are_counted_and_given_back() -> None:
    books = quotas(ManualClock(), sessions=2, state_bytes=100)
    enter_session(books, "a", 60)
    with pytest.raises(ResourceExhausted, match=r"60 state bytes are in use and 50 more.*quota of 100") as caught:
        enter_session(books, "a", 50)
    assert caught.value.metadata["quota"] == "state_bytes"
    assert caught.value.retry_after_seconds is None, "waiting does not help"
    enter_session(books, "a", 40)
    with pytest.raises(ResourceExhausted, match=r"quotas\.sessions"):
        enter_session(books, "a", 0)
    enter_session(books, "b", 100)
    books.left("a", 60)
    enter_session(books, "a", 60)
    assert books.stats.quota_refusals() == {"sessions": 1, "state_bytes": 1, "requests": 0, "adaptation": 0}


def test_requests_come_by_the_second_and_are_saved_up() -> None:
    clock = ManualClock()
    books = quotas(clock, requests_per_s=2.0, burst_seconds=2.0)
    for _ in range(4):
        books.admit("a")
    with pytest.raises(ResourceExhausted, match="2 requests a second") as caught:
        books.admit("a")
    assert caught.value.retry_after_seconds == 0.5
    books.admit("b")
    assert books.delay("a") == 0.5
    clock.advance(0.5)
    books.admit("a")
    assert books.delay("a") == 0.5
    clock.advance(1e6)
    assert [books.delay("a") > 0 for _ in range(5)] == [False] * 4 + [True]


def test_the_log_names_the_tenant_once_a_minute() -> None:
    clock = ManualClock()
    books = quotas(clock, sessions=1)

    def refuse(tenant: str) -> None:
        with pytest.raises(ResourceExhausted):
            enter_session(books, tenant, 0)

    for tenant in ("a", "b"):
        enter_session(books, tenant, 0)
    with capture_logs() as logged:
        for tenant in ("a", "a", "b"):
            refuse(tenant)
        clock.advance(60.0)
        refuse("a")
    assert [(line["tenant"], line["quota"]) for line in logged] == [(name, "sessions") for name in ("a", "b", "a")]


def test_a_clock_that_jumps_back_grants_nothing() -> None:
    clock = ManualClock(100.0)
    books = quotas(clock, requests_per_s=1.0, burst_seconds=1.0)
    books.admit("a")
    clock.now = 50.0
    assert books.delay("a") == 1.0
    clock.now = 51.0
    books.admit("a")


def test_adaptation_is_shared_and_a_debt_is_paid_back() -> None:
    clock = ManualClock()
    books = quotas(clock, adaptation_ms_per_s=10.0, burst_seconds=1.0)
    assert books.may_adapt("a", 10.0)
    assert books.may_adapt("a", 1000.0), "a step dearer than the bucket runs when it is full"
    books.adapted("a", 30.0)
    assert not books.may_adapt("a", 1.0)
    assert books.may_adapt("b", 1.0)
    clock.advance(2.0)
    assert not books.may_adapt("a", 1.0)
    clock.advance(0.1)
    assert books.may_adapt("a", 1.0)
    assert books.stats.quota_refusals()["adaptation"] == 2


def test_no_quota_is_no_limit() -> None:
    books = quotas(ManualClock())
    for _ in range(1000):
        enter_session(books, "a", 10**9)
        books.admit("a")
        books.adapted("a", 1e9)
    assert books.may_adapt("a", 1e9)


def act_as(tenant: str) -> None:
    enter(Caller(tenant, Role.TENANT))


def settings(**sections: Any) -> Config:
    return Config(scheduler={"mode": "background"}, budget=PLENTY_FOR_ALL, **sections)


def test_a_tenant_at_its_quota_leaves_others_theirs() -> None:
    async def scenario() -> None:
        chosen = settings(quotas={"sessions": 1}, tenants={"big": {"sessions": 2}})
        async with serving(chosen) as service:
            for tenant, allowed in (("a", 1), ("b", 1), ("big", 2)):
                act_as(tenant)
                for n in range(allowed):
                    await opened(service, f"s{n}", "tent")
                with pytest.raises(ResourceExhausted, match=r"quotas\.sessions"):
                    await opened(service, "more", "tent")
                with pytest.raises(ResourceExhausted):
                    await predict(service, drifted(0), "more", sequence_start=True)
            act_as("a")
            await service.delete_session("reference", "s0")
            await opened(service, "again", "tent")

    asyncio.run(scenario())


def test_state_bytes_are_those_of_the_banks_rows() -> None:
    async def scenario() -> None:
        async with serving(settings()) as service:
            row = (await opened(service, "s", "tent")).state_bytes
        async with serving(settings(quotas={"state_bytes": 2 * row + row // 2})) as service:
            await opened(service, "s0", "tent")
            await opened(service, "s1", "tent")
            with pytest.raises(ResourceExhausted, match=r"quotas\.state_bytes"):
                await opened(service, "s2", "tent")
            assert service.snapshot().models[0].sessions_created == 2

    asyncio.run(scenario())


def test_a_tenants_sessions_share_its_adaptation_and_others_adapt_on() -> None:
    async def learn(service: Service, tenant: str, session: str) -> None:
        act_as(tenant)
        for n in range(16):
            await predict(service, drifted(n), session)

    async def scenario() -> None:
        chosen = settings(tenants={"poor": {"adaptation_ms_per_s": 1e-6, "burst_seconds": 0.0}})
        async with serving(chosen) as service:
            for tenant in ("poor", "rich"):
                act_as(tenant)
                for session in ("one", "two"):
                    await opened(service, session, "tent", batch_rows=16)
            for tenant in ("poor", "rich"):
                for session in ("one", "two"):
                    await learn(service, tenant, session)
            # A bucket of one millisecond is full at first: the first step empties it for both of the poor one's.
            for tenant in ("poor", "rich"):
                act_as(tenant)
                both = [session_of(service, name).account for name in ("one", "two")]
                await until_async(partial(all_stepped, both), "a step of both")
                updates, skipped = sum(a.updates for a in both), sum(a.skipped["budget"] for a in both)
                assert (updates, skipped) in ({(0, 2), (1, 1)} if tenant == "poor" else {(2, 0)})

    asyncio.run(scenario())


def all_stepped(accounts: list[Account]) -> bool:
    return all(account.updates + account.skipped.total() for account in accounts)


def test_quotas_of_one_tenant_are_a_table_of_the_file(tmp_path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[quotas]\nsessions = 5\n[tenants.cameras]\nsessions = 50\n", encoding="utf-8")
    assert load(file).tenants["cameras"].sessions == 50
    file.write_text("[tenants.cameras]\nsesions = 50\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tenants\.cameras\.sesions"):
        load(file)
