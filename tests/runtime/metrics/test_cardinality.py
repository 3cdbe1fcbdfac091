"""The number of series does not follow the number of sessions."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
from prometheus_client import CollectorRegistry

from acclimate.adapters.accuracy import Telemetry
from acclimate.runtime.metrics.catalogue import SESSION
from acclimate.runtime.metrics.collector import registry
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession
from tests.runtime.serving import MODEL, config, serving

SESSIONS, TOP = 10_000, 5
SIGNALS = 5
# Three rankings; of each session its level of every signal, and one series of every other metric.
MOST = 3 * TOP * (SIGNALS + len(SESSION) - 1)


def series(metrics: CollectorRegistry) -> Counter[str]:
    return Counter(sample.name for family in metrics.collect() for sample in family.samples)


def named(metrics: CollectorRegistry) -> set[str]:
    return {s.labels["session"] for family in metrics.collect() for s in family.samples if "session" in s.labels}


def trouble(service: Service, seed: int) -> None:
    """Give every session a different drift, accuracy and number of roll-backs."""
    generator, census = np.random.default_rng(seed), service._parts.account.census
    levels = generator.uniform(0, 1, (SESSIONS, SIGNALS + 1))
    for session, own in zip(service._parts.table, levels.tolist(), strict=True):
        session.drift, session.telemetry = tuple(own[1:]), Telemetry(above=own[0], weight=1.0)
        session.account.samples, session.account.rollbacks["canary"] = 1, int(generator.integers(0, 1000))
        census.changed(session.key)


def test_ten_thousand_sessions_that_all_drift() -> None:
    async def scenario() -> None:
        settings = config(sessions={"max_sessions": SESSIONS}, metrics={"top_sessions": TOP})
        async with serving(settings) as service:
            metrics = registry(service.snapshot)
            before = series(metrics)
            for number in range(SESSIONS):
                service._parts.table.open(CreateSession(MODEL, f"s{number}", "tent"))
            trouble(service, 0)
            after = series(metrics)
            added = after - before
            assert set(added) == {f"acclimate_{row.name}" for row in SESSION}
            assert TOP * (SIGNALS + len(SESSION) - 1) <= added.total() <= MOST
            assert TOP <= len(named(metrics)) <= 3 * TOP
            assert named(metrics) == named(metrics)
            trouble(service, 1)
            assert (series(metrics) - before).total() <= MOST
            for session in service._parts.table:
                service._parts.table.close(session)
                service._parts.account.census.changed(session.key)
            assert series(metrics) == before

    asyncio.run(scenario())


def test_none_is_named_where_that_is_chosen() -> None:
    async def scenario() -> None:
        async with serving(config(metrics={"top_sessions": 0})) as service:
            await service.create_session(CreateSession(MODEL, "secret", "tent"))
            (session,) = service._parts.table
            session.drift = (1.0,) * SIGNALS
            assert named(registry(service.snapshot)) == set()

    asyncio.run(scenario())
