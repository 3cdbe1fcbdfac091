"""Counts of who was turned away, kept as plain numbers; `metrics/collector.py` reads them."""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum


class AuthFailure(StrEnum):
    """Why a caller was refused before the request was looked at."""

    MISSING = "missing"
    MALFORMED = "malformed"
    WRONG = "wrong"
    FORBIDDEN = "forbidden"
    TENANT = "tenant"


class Quota(StrEnum):
    """What a tenant has a share of."""

    SESSIONS = "sessions"
    STATE_BYTES = "state_bytes"
    REQUESTS = "requests"
    ADAPTATION = "adaptation"


class SecurityStats:
    """Refusals by reason; safe to read from any thread. Tenants are no labels: their number is not ours to bound."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._auth: Counter[AuthFailure] = Counter()
        self._quota: Counter[Quota] = Counter()

    def refused(self, why: AuthFailure) -> None:
        """A caller was turned away."""
        with self._lock:
            self._auth[why] += 1

    def over(self, quota: Quota) -> None:
        """A tenant asked for more than its share."""
        with self._lock:
            self._quota[quota] += 1

    def auth_failures(self) -> dict[str, int]:
        """Reason -> refusals so far; every reason is there."""
        with self._lock:
            return {reason.value: self._auth[reason] for reason in AuthFailure}

    def quota_refusals(self) -> dict[str, int]:
        """Quota -> refusals so far; every quota is there."""
        with self._lock:
            return {quota.value: self._quota[quota] for quota in Quota}
