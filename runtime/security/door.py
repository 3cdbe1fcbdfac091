"""Who may read metrics over HTTP, and over what connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass


def _anyone(_: str | None) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Door:
    """What the HTTP port asks for each connection and request, from any thread.

    Attributes:
        may_scrape: whether a request with this `Authorization` header may read metrics.
        tls: the context of each new connection, or None for plain HTTP.
    """

    may_scrape: Callable[[str | None], bool] = _anyone
    tls: Callable[[], ssl.SSLContext] | None = None
