"""What every request passes before it is looked at: is it small enough, who sends it, may they, and have they left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog

from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import InvalidArgument, PermissionDenied, ResourceExhausted, Unauthenticated
from acclimate.runtime.security import access, tokens
from acclimate.runtime.security.caller import EVERYBODY, NOBODY, TENANT, Caller, Role
from acclimate.runtime.security.files import FileWatch
from acclimate.runtime.security.quotas import Quotas
from acclimate.runtime.security.stats import AuthFailure, SecurityStats

log = structlog.stdlib.get_logger("acclimate.security")

# The tenant that an administrator or operator acts for; others may only name their own.
TENANT_KEY = "acclimate-tenant"
AUTHORIZATION = "authorization"
SUPERVISOR = Caller(NOBODY, Role.OPERATOR, "health")

Metadata = Sequence[tuple[str, str | bytes]]


class Keyring:
    """The entries of a token file, read again when it changes; while it is broken, the last good ones stay."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._watch = FileWatch(path)
        self._entries = tokens.read(path)

    def caller(self, token: str) -> Caller | None:
        """Who shows a token, or None."""
        if self._watch.changed():
            self._reload()
        return tokens.verify(token, self._entries, self._clock.wall())

    def _reload(self) -> None:
        try:
            self._entries = tokens.read(self._path)
        except tokens.TokenError as error:
            log.error("tokens not reloaded; the last ones stay in use", reason=str(error))
        else:
            log.info("tokens reloaded", file=str(self._path), tokens=len(self._entries))


@dataclass(frozen=True, slots=True)
class MetadataLimits:
    """Entries of an rpc's metadata, and bytes of its keys and values, at most."""

    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Guard:
    """Answers for every rpc who it is from, or refuses it.

    Attributes:
        keyring: tokens, or None where none are configured.
        certificate: which name of a client's certificate is its tenant, where it shows no token.
        quotas, stats, limits: see there.
    """

    keyring: Keyring | None
    certificate: Literal["no", "common_name", "san"]
    quotas: Quotas
    stats: SecurityStats
    limits: MetadataLimits

    @property
    def closed(self) -> bool:
        """Whether callers have to say who they are."""
        return self.keyring is not None or self.certificate != "no"

    def check(self, metadata: Metadata) -> None:
        """Refuse metadata that is too much.

        Raises:
            ResourceExhausted: more entries or bytes than may be.
        """
        _at_most("metadata", len(metadata), self.limits.entries, "max_metadata_entries")
        size = sum([len(key) + len(value) for key, value in metadata])
        _at_most("metadata bytes", size, self.limits.size, "max_metadata_bytes")

    def awaits_certificate(self, method: str, metadata: Metadata) -> bool:
        """Whether the certificate of the connection says who calls, since no token does."""
        return self.certificate != "no" and method not in access.OPEN and not _values(metadata, AUTHORIZATION)

    def admit(self, method: str, metadata: Metadata, names: Iterable[str] = (), *, charge: bool = True) -> Caller:
        """The caller of an rpc, who may make it now.

        Args:
            method: `/package.Service/Method`.
            metadata: of the rpc.
            names: what the client's certificate calls it, best first.
            charge: whether the rpc is a request by itself; the messages of a stream are charged one by one.

        Raises:
            Unauthenticated: no credential, or a wrong one. PermissionDenied: the role may not call the method, or
            the caller not act for that tenant. InvalidArgument: the tenant named is no name. ResourceExhausted: the
            tenant's requests a second are used up.
        """
        if method in access.OPEN:
            return SUPERVISOR if self.closed else EVERYBODY
        caller = self._acting(self._identified(metadata, names), metadata) if self.closed else _everybody(metadata)
        if self.closed and not access.allowed(method, caller.role):
            self.stats.refused(AuthFailure.FORBIDDEN)
            raise PermissionDenied(
                "ROLE_FORBIDDEN",
                f"a caller of role {caller.role.value!r} may not call {method}",
                role=caller.role.value,
                rpc=method,
            )
        if charge:
            self.quotas.admit(caller.tenant)
        return caller

    def stands(self, metadata: Metadata) -> None:
        """Whether the token of a stream that began earlier still holds.

        Raises:
            Unauthenticated: it was revoked, or has expired.
        """
        shown = _values(metadata, AUTHORIZATION)
        if shown and self.closed:
            self._by_token(shown)

    def may_scrape(self, authorization: str | None) -> bool:
        """Whether an HTTP request with this `Authorization` header may read metrics."""
        if not self.closed:
            return True
        try:
            caller = self._identified(() if authorization is None else ((AUTHORIZATION, authorization),), ())
        except Unauthenticated:
            return False
        if caller.role is Role.TENANT:
            self.stats.refused(AuthFailure.FORBIDDEN)
            return False
        return True

    def _identified(self, metadata: Metadata, names: Iterable[str]) -> Caller:
        shown = _values(metadata, AUTHORIZATION)
        if shown:
            return self._by_token(shown)
        if self.certificate != "no":
            name = next(iter(names), "")
            if TENANT.fullmatch(name):
                return Caller(name, Role.TENANT, f"certificate {name}")
            if name:
                self.stats.refused(AuthFailure.MALFORMED)
                raise Unauthenticated("CREDENTIAL_MALFORMED", "the certificate's name cannot be a tenant's")
        self.stats.refused(AuthFailure.MISSING)
        raise Unauthenticated(
            "CREDENTIAL_MISSING", "the request says not who it is from; send metadata 'authorization: Bearer TOKEN'"
        )

    def _by_token(self, shown: list[str | bytes]) -> Caller:
        scheme, _, token = str(shown[0]).partition(" ")
        if len(shown) > 1 or scheme.lower() != "bearer" or not token:
            self.stats.refused(AuthFailure.MALFORMED)
            raise Unauthenticated(
                "CREDENTIAL_MALFORMED", "metadata 'authorization' is malformed; send 'Bearer TOKEN', once"
            )
        caller = None if self.keyring is None else self.keyring.caller(token.strip())
        if caller is None:
            self.stats.refused(AuthFailure.WRONG)
            raise Unauthenticated(
                "CREDENTIAL_WRONG",
                "the token is unknown, revoked or expired; make one with `acclimate token create`",
            )
        return caller

    def _acting(self, caller: Caller, metadata: Metadata) -> Caller:
        """The caller, for the tenant that it names if it may."""
        wanted = _named(metadata)
        if wanted is None or wanted == caller.tenant:
            return caller
        if caller.role is Role.TENANT:
            self.stats.refused(AuthFailure.TENANT)
            raise PermissionDenied(
                "TENANT_FORBIDDEN", f"metadata {TENANT_KEY!r} names another tenant than the token's; leave it out"
            )
        return replace(caller, tenant=wanted)


def _at_most(field: str, value: int, limit: int, key: str) -> None:
    if value > limit:
        raise ResourceExhausted(
            "LIMIT_EXCEEDED",
            f"{field}: {value}, at most {limit} are accepted (limits.{key}); send less",
            field=field,
            value=value,
            limit=limit,
        )


def _everybody(metadata: Metadata) -> Caller:
    if _named(metadata) is not None:
        raise InvalidArgument(
            "TENANTS_OFF", f"metadata {TENANT_KEY!r} names a tenant, but this daemon has none; set security.tokens"
        )
    return EVERYBODY


def _named(metadata: Metadata) -> str | None:
    values = _values(metadata, TENANT_KEY)
    if not values:
        return None
    if len(values) > 1 or not TENANT.fullmatch(str(values[0])):
        raise InvalidArgument(
            "TENANT_INVALID",
            f"metadata {TENANT_KEY!r} is {str(values[0])[:80]!r}; name one tenant: 1 to 64 letters, digits, '.', '_', "
            "'~' or '-', starting with a letter or digit",
            field=TENANT_KEY,
        )
    return str(values[0])


def _values(metadata: Metadata, name: str) -> list[str | bytes]:
    return [value for key, value in metadata if key == name]
