"""What each tenant may use: sessions, bytes of their state, requests a second, milliseconds of adaptation a second.

A quota of 0 is none. Used on the event loop's thread only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.figures import TenantSnapshot
from acclimate.runtime.security.stats import Quota, SecurityStats
from acclimate.runtime.store.base import Usage

log = structlog.stdlib.get_logger("acclimate.security")

TELL_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Share:
    """Quotas of one tenant; `burst_seconds` is how long an idle tenant saves up what is granted by the second.

    `weight` is no quota: it is the tenant's part, relative to others', of what several want at a time.
    """

    sessions: int = 0
    state_bytes: int = 0
    requests_per_s: float = 0.0
    adaptation_ms_per_s: float = 0.0
    burst_seconds: float = 10.0
    weight: float = 1.0


@dataclass(slots=True)
class Bucket:
    """Tokens that come at `rate` a second up to `capacity`; begins full, and may be overdrawn."""

    rate: float
    capacity: float
    at: float
    tokens: float

    def available(self, now: float) -> float:
        """Tokens at `now`; a clock that jumps back adds nothing."""
        self.tokens = min(self.capacity, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now
        return self.tokens

    def wait(self, wanted: float, now: float) -> float:
        """Seconds until `wanted` tokens are there, 0 if they are; more than `capacity` are there when it is full."""
        return max(0.0, min(wanted, self.capacity) - self.available(now)) / self.rate


@dataclass(slots=True)
class _Usage:
    share: Share
    requests: Bucket | None
    adaptation: Bucket | None
    sessions: int = 0
    state_bytes: int = 0
    asked: int = 0
    refused: Counter[Quota] = field(default_factory=Counter)
    told_at: dict[Quota, float] = field(default_factory=dict)


@dataclass(slots=True)
class Quotas:
    """The books of every tenant that has asked for something.

    Args:
        share: the quotas of a tenant by its name.
        clock: the time.
        stats: counts refusals.
        named: tenants that the configuration names, the only ones with figures of their own.
    """

    share: Callable[[str], Share]
    clock: Clock
    stats: SecurityStats
    named: frozenset[str] = frozenset()
    _tenants: dict[str, _Usage] = field(default_factory=dict)

    def check(self, tenant: str, state_bytes: int, sessions: int = 1) -> None:
        """Whether the tenant may have so many sessions more (0: it has a larger one), that take `state_bytes`.

        Raises:
            ResourceExhausted: it would be one too many, or its state too large.
        """
        usage = self._usage(tenant)
        for quota, used, wanted, limit, key in (
            (Quota.SESSIONS, usage.sessions, sessions, usage.share.sessions, "sessions"),
            (Quota.STATE_BYTES, usage.state_bytes, state_bytes, usage.share.state_bytes, "state_bytes"),
        ):
            if limit and wanted and used + wanted > limit:
                raise self._refused(
                    tenant,
                    quota,
                    f"{used} {key.replace('_', ' ')} are in use and {wanted} more would exceed this tenant's quota of "
                    f"{limit} (quotas.{key}); delete sessions or snapshots that are done with",
                    limit,
                    used=used,
                    wanted=wanted,
                )

    def entered(self, tenant: str, state_bytes: int) -> None:
        """Count a session that is there from now on, whether `check` would have let it in or not."""
        usage = self._usage(tenant)
        usage.sessions += 1
        usage.state_bytes += state_bytes

    def resized(self, tenant: str, state_bytes: int) -> None:
        """Count so many bytes more, or fewer, of a session that is counted."""
        self._usage(tenant).state_bytes += state_bytes

    def left(self, tenant: str, state_bytes: int) -> None:
        """Count a session no more, and what it took."""
        usage = self._usage(tenant)
        usage.sessions -= 1
        usage.state_bytes -= state_bytes

    def recounted(self, usage: Mapping[str, Usage]) -> None:
        """What each tenant has; those that are not named have nothing."""
        for tenant in usage.keys() | self._tenants.keys():
            found, own = usage.get(tenant, Usage()), self._usage(tenant)
            own.sessions, own.state_bytes = found.sessions, found.state_bytes

    def admit(self, tenant: str) -> None:
        """Take one request from the tenant's bucket.

        Raises:
            ResourceExhausted: it is empty; the error says when it will not be.
        """
        usage = self._usage(tenant)
        usage.asked += 1
        wait = self._take(usage.requests)
        if wait:
            raise self._refused(
                tenant,
                Quota.REQUESTS,
                f"this tenant's quota of {usage.share.requests_per_s:g} requests a second (quotas.requests_per_s) is "
                f"used up; try again in {wait:.3f} s",
                usage.share.requests_per_s,
                retry_after_seconds=wait,
            )

    def weight(self, tenant: str) -> float:
        """The tenant's part, relative to others', of what several want at a time."""
        return self._usage(tenant).share.weight

    def delay(self, tenant: str) -> float:
        """Take one request, or say in how many seconds there will be one: for messages of a stream, which can wait."""
        usage = self._usage(tenant)
        wait = self._take(usage.requests)
        usage.asked += not wait
        return wait

    def figures(self) -> tuple[TenantSnapshot, ...]:
        """What each named tenant has and did, its adaptation apart; safe from any thread."""
        found = {name: self._tenants.get(name) for name in sorted(self.named)}
        return tuple(
            TenantSnapshot(name, 0, 0, 0, {}, 0.0)
            if usage is None
            else TenantSnapshot(
                name, usage.sessions, usage.state_bytes, usage.asked,
                {quota.value: count for quota, count in usage.refused.copy().items()}, 0.0,
            )
            for name, usage in found.items()
        )  # fmt: skip

    def may_adapt(self, tenant: str, milliseconds: float) -> bool:
        """Whether the tenant can pay for a step of this estimated cost."""
        bucket = self._usage(tenant).adaptation
        if bucket is None or not bucket.wait(milliseconds, self.clock.monotonic()):
            return True
        self._tell(tenant, Quota.ADAPTATION)
        return False

    def adaptation_left(self, tenant: str) -> tuple[float, float]:
        """Milliseconds of adaptation that the tenant has left, and is granted each second; infinite: no quota."""
        bucket = self._usage(tenant).adaptation
        return (math.inf, math.inf) if bucket is None else (bucket.available(self.clock.monotonic()), bucket.rate)

    def adapted(self, tenant: str, milliseconds: float) -> None:
        """Charge the tenant for a step; one that cost more than foreseen leaves a debt."""
        bucket = self._usage(tenant).adaptation
        if bucket is not None:
            bucket.available(self.clock.monotonic())
            bucket.tokens -= milliseconds

    def _take(self, bucket: Bucket | None) -> float:
        if bucket is None:
            return 0.0
        wait = bucket.wait(1.0, self.clock.monotonic())
        if not wait:
            bucket.tokens -= 1.0
        return wait

    def _usage(self, tenant: str) -> _Usage:
        usage = self._tenants.get(tenant)
        if usage is None:
            share, now = self.share(tenant), self.clock.monotonic()
            usage = _Usage(
                share,
                _bucket(share.requests_per_s, share.burst_seconds, now),
                _bucket(share.adaptation_ms_per_s, share.burst_seconds, now),
            )
            self._tenants[tenant] = usage
        return usage

    def _tell(self, tenant: str, quota: Quota) -> None:
        """Count a refusal, and log it unless that was done a moment ago: metrics cannot say which tenant it was."""
        self.stats.over(quota)
        self._usage(tenant).refused[quota] += 1
        told, now = self._usage(tenant).told_at, self.clock.monotonic()
        if now - told.get(quota, -math.inf) >= TELL_EVERY_SECONDS:
            told[quota] = now
            log.warning("tenant over its quota", tenant=tenant, quota=quota.value)

    def _refused(self, tenant: str, quota: Quota, message: str, limit: float, **details: object) -> ResourceExhausted:
        self._tell(tenant, quota)
        retry = details.pop("retry_after_seconds", None)
        seconds = retry if isinstance(retry, float) else None
        return ResourceExhausted(
            "QUOTA_EXCEEDED", message, retry_after_seconds=seconds, quota=quota.value, limit=limit, **details
        )


def _bucket(rate: float, seconds: float, now: float) -> Bucket | None:
    if not rate:
        return None
    # A burst of less than one request would never let one through.
    capacity = max(1.0, rate * seconds)
    return Bucket(rate, capacity, now, capacity)
