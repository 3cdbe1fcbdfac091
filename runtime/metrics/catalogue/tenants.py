"""The tenants that the configuration names under `tenants`; others have no series, for their number is not ours."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ProcessMetric
from acclimate.runtime.security.stats import Quota

ROWS = (
    ProcessMetric(
        "tenant_sessions", "gauge", "Sessions of each configured tenant, in memory and in the store.",
        lambda s: {tenant.name: tenant.sessions for tenant in s.service.tenants}, ("tenant",),
    ),
    ProcessMetric(
        "tenant_state_bytes", "gauge", "State of its sessions, snapshots included, in memory and in the store, as its "
        "quota counts it.", lambda s: {tenant.name: tenant.state_bytes for tenant in s.service.tenants}, ("tenant",),
    ),
    ProcessMetric(
        "tenant_requests_total", "counter", "Requests of each configured tenant, refused ones among them; of streams, "
        "their messages.", lambda s: {tenant.name: tenant.requests for tenant in s.service.tenants}, ("tenant",),
    ),
    ProcessMetric(
        "tenant_refusals_total", "counter", "Times that each configured tenant asked for more than its quota; of "
        "adaptation, steps not taken.",
        lambda s: [
            ((tenant.name, quota.value), tenant.refused.get(quota.value, 0))
            for tenant in s.service.tenants
            for quota in Quota
        ],
        ("tenant", "quota"),
    ),
    ProcessMetric(
        "tenant_adaptation_seconds_total", "counter", "Time spent on adapting the sessions of each configured tenant.",
        lambda s: {tenant.name: tenant.adaptation_seconds for tenant in s.service.tenants}, ("tenant",),
    ),
)  # fmt: skip
