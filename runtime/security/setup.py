"""The guard, the quotas and the TLS files that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from acclimate.runtime.clock import Clock
from acclimate.runtime.config import Config
from acclimate.runtime.config_security import Security, is_loopback
from acclimate.runtime.security.certificates import Reloading, TlsFiles, http_context
from acclimate.runtime.security.door import Door
from acclimate.runtime.security.guard import Guard, Keyring, MetadataLimits
from acclimate.runtime.security.quotas import Quotas, Share
from acclimate.runtime.security.stats import SecurityStats


def guard(config: Config, clock: Clock) -> Guard:
    """Who may call, and how much.

    Raises:
        TokenError: the token file cannot be used.
    """
    stats, chosen = SecurityStats(), config.security
    return Guard(
        keyring=Keyring(Path(chosen.tokens), clock) if chosen.tokens else None,
        certificate=chosen.tenant_from_certificate,
        quotas=quotas(config, clock, stats),
        stats=stats,
        limits=MetadataLimits(config.limits.max_metadata_entries, config.limits.max_metadata_bytes),
    )


def quotas(config: Config, clock: Clock, stats: SecurityStats) -> Quotas:
    """The quotas of every tenant, its own or those of all."""
    shares = {name: Share(**section.model_dump()) for name, section in config.tenants.items()}
    default = Share(**config.quotas.model_dump())
    return Quotas(lambda tenant: shares.get(tenant, default), clock, stats, frozenset(shares))


def door(config: Config, guard: Guard) -> Door:
    """Who may read metrics over HTTP: on loopback everyone of this machine, else operators, if callers are known.

    Raises:
        CertificateError: certificate or key cannot be used.
    """
    files, open_here = tls_files(config.security), is_loopback(config.server.host)
    contexts = None if files is None else Reloading(files, http_context)
    return Door(
        may_scrape=lambda authorization: open_here or guard.may_scrape(authorization),
        tls=None if contexts is None else lambda: contexts.renewed() or contexts.latest,
    )


def tls_files(security: Security) -> TlsFiles | None:
    """Where certificate and key lie, or None without TLS."""
    if not security.tls_certificate:
        return None
    authority = Path(security.tls_client_ca) if security.tls_client_ca else None
    return TlsFiles(Path(security.tls_certificate), Path(security.tls_key), authority)
