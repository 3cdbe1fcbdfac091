"""Figures of the tenants that the configuration names, and of no others."""

from __future__ import annotations

import pytest

from acclimate.runtime.clock import SystemClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.metrics.collector import registry
from acclimate.runtime.security import setup
from acclimate.runtime.security.caller import Caller, Role, enter
from acclimate.runtime.security.stats import SecurityStats
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession
from acclimate.runtime.wiring import build_service
from tests.looped import looped
from tests.runtime.serving import MODEL, config, drifted, predict

TENANTS = {"acme": {"sessions": 2}, "quiet": {}}


def figures(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """Samples of a metric by their labels' values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry(service.snapshot).collect()
        for sample in family.samples
        if sample.name == f"acclimate_tenant_{name}"
    }


@looped
async def test_each_configured_tenant_has_its_figures_and_others_have_none() -> None:
    settings = config(tenants=TENANTS)
    quotas = setup.quotas(settings, SystemClock(), SecurityStats())
    service = build_service(settings, {MODEL: reference_engine()}, quotas=quotas)
    service.start()
    for tenant in ("acme", "stranger"):
        enter(Caller(tenant, Role.TENANT))
        for name in ("a", "b"):
            await service.create_session(CreateSession(MODEL, name, "tent", {"batch_rows": 4}))
        quotas.admit(tenant)
        await predict(service, drifted(0, 4), "a")
    enter(Caller("acme", Role.TENANT))
    with pytest.raises(ResourceExhausted):
        await service.create_session(CreateSession(MODEL, "c"))
    assert figures(service, "sessions") == {("acme",): 2.0, ("quiet",): 0.0}
    assert figures(service, "state_bytes")["acme",] > 0
    assert figures(service, "requests_total") == {("acme",): 1.0, ("quiet",): 0.0}
    assert figures(service, "refusals_total")["acme", "sessions"] == 1.0
    assert figures(service, "refusals_total")["quiet", "sessions"] == 0.0
    assert figures(service, "adaptation_seconds_total")["acme",] > 0
    await service.delete_session(MODEL, "a")
    assert figures(service, "sessions")["acme",] == 1.0
    await service.drain(5.0)


@looped
async def test_where_no_tenant_is_configured_there_is_no_series() -> None:
    service = build_service(config(), {MODEL: reference_engine()})
    service.start()
    enter(Caller("somebody", Role.TENANT))
    await service.create_session(CreateSession(MODEL, "a"))
    assert figures(service, "sessions") == figures(service, "refusals_total") == {}
    await service.drain(5.0)
