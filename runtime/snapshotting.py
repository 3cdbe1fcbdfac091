"""The service's figures at one moment, gathered from its parts; safe on any thread."""

from __future__ import annotations

from dataclasses import replace

from acclimate.runtime.figures import ServiceSnapshot
from acclimate.runtime.parts import Parts
from acclimate.runtime.sessions import shelving


def snapshot_of(parts: Parts, ready: bool, draining: bool, started_at: float) -> ServiceSnapshot:
    """Figures for metrics, of a service in this state."""
    return ServiceSnapshot(
        ready=ready,
        draining=draining,
        started_at=started_at,
        queue_depth=len(parts.predictor),
        watchers=len(parts.hub),
        admission=parts.predictor.admission.snapshot(),
        store=shelving.figures(parts.residency),
        models=tuple(parts.account.snapshot(engine, parts.table) for engine in parts.served()),
        loads=dict(parts.repository.loads),
        unloads=dict(parts.repository.unloads),
        tenants=tuple(
            replace(tenant, adaptation_seconds=parts.account.adaptation_ms.get(tenant.name, 0.0) / 1e3)
            for tenant in parts.table.tenants()
        ),
    )
