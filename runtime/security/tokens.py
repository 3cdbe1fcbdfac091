"""Bearer tokens: `acc_<id>_<secret>`, of which a file keeps the id, whom it is for, and a salted hash of the secret.

A secret is 32 bytes from the system's generator, so guessing is out of reach however fast a hash is: BLAKE2b with a
salt of its own takes microseconds, where a slow hash made for passwords would let strangers burn the daemon's time.
It also means that nothing verified has to be remembered, and that a revoked token is refused as soon as the file is
read again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acclimate.runtime.security.caller import NOBODY, TENANT, Caller, Role
from acclimate.runtime.security.files import SecurityError

FORMAT = 1
PREFIX = "acc"
SECRET_BYTES, SALT_BYTES, ID_BYTES = 32, 16, 6
MAX_TOKEN = 128
MAX_FILE_BYTES = 16 * 2**20


class TokenError(SecurityError):
    """A token file or an entry of one cannot be used; the message names it and the fix."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as it is kept: times are Unix seconds, `expires_at` None for never, salt and hash hexadecimal."""

    id: str
    tenant: str
    role: str
    note: str
    created_at: float
    expires_at: float | None
    salt: str
    hash: str

    @property
    def caller(self) -> Caller:
        """Who shows this token."""
        return Caller(self.tenant, Role(self.role), self.id)


# Compared with when no entry has the id, so that a wrong id takes as long as a wrong secret.
_ABSENT = Entry("", NOBODY, Role.TENANT, "", 0.0, 0.0, "00" * SALT_BYTES, "00" * 32)


def create(role: str, tenant: str, note: str, now: float, lifetime_seconds: float | None) -> tuple[str, Entry]:
    """A new token, which is told to nobody again, and what is kept of it.

    Raises:
        TokenError: the role is unknown, the tenant's name malformed, or missing, or the lifetime not positive.
    """
    if role not in set(Role):
        raise TokenError(f"role is {role!r}; use one of {', '.join(Role)}")
    if role == Role.TENANT and not tenant:
        raise TokenError("a token of role 'tenant' needs a tenant; name one with --tenant")
    if tenant and not TENANT.fullmatch(tenant):
        raise TokenError(
            f"tenant is {tenant[:80]!r}; use 1 to 64 letters, digits, '.', '_', '~' or '-', starting with a letter "
            "or digit"
        )
    if lifetime_seconds is not None and not 0 < lifetime_seconds < 1e10:
        raise TokenError(f"lifetime is {lifetime_seconds} seconds; it must be more than 0")
    identity, secret, salt = (secrets.token_hex(n) for n in (ID_BYTES, SECRET_BYTES, SALT_BYTES))
    expires_at = None if lifetime_seconds is None else now + lifetime_seconds
    entry = Entry(identity, tenant, role, note, now, expires_at, salt, _hash(secret, salt))
    return f"{PREFIX}_{identity}_{secret}", entry


def verify(token: str, entries: Mapping[str, Entry], now: float) -> Caller | None:
    """Who shows `token`, or None if it is malformed, unknown, wrong or expired; compares in constant time."""
    prefix, _, rest = token.partition("_")
    identity, _, secret = rest.partition("_")
    known = entries.get(identity)
    entry = known or _ABSENT
    right = hmac.compare_digest(_hash(secret[:MAX_TOKEN], entry.salt), entry.hash)
    if not right or known is None or prefix != PREFIX or len(token) > MAX_TOKEN:
        return None
    return None if entry.expires_at is not None and now >= entry.expires_at else entry.caller


def read(path: Path) -> dict[str, Entry]:
    """The entries of a token file, by id.

    Raises:
        TokenError: it cannot be read, others may write it, or it is not a token file.
    """
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenError(f"token file {path} cannot be read ({error.strerror})") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TokenError(f"token file {path} may be written by others than its owner; run: chmod go-w {path}")
    if len(raw) > MAX_FILE_BYTES:
        raise TokenError(f"token file {path} is longer than {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise ValueError(f"format is {document['format']!r}; this version reads {FORMAT}")
        entries = [_checked(fields) for fields in document["tokens"]]
    except (ValueError, TypeError, KeyError) as error:
        raise TokenError(f"token file {path} is malformed ({error}); write it with `acclimate token create`") from error
    return {entry.id: entry for entry in entries}


def write(path: Path, entries: Mapping[str, Entry]) -> None:
    """Replace the file as a whole, readable by its owner alone.

    Raises:
        TokenError: it cannot be written.
    """
    document = {"format": FORMAT, "tokens": [asdict(entry) for entry in entries.values()]}
    try:
        # The daemon may read it at any moment, and must not see half of it.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TokenError(f"token file {path} cannot be written ({error.strerror})") from error


def _checked(fields: dict[str, Any]) -> Entry:
    entry = Entry(**fields)
    texts = (entry.id, entry.tenant, entry.role, entry.note, entry.salt, entry.hash)
    times = (entry.created_at, entry.created_at if entry.expires_at is None else entry.expires_at)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(time, int | float) for time in times):
        raise ValueError(f"token {entry.id!r} has a field of the wrong type")
    if len(bytes.fromhex(entry.salt)) != SALT_BYTES or len(bytes.fromhex(entry.hash)) != 32:
        raise ValueError(f"token {entry.id!r} has a salt or hash of the wrong length")
    if (entry.tenant and not TENANT.fullmatch(entry.tenant)) or (Role(entry.role) is Role.TENANT and not entry.tenant):
        raise ValueError(f"token {entry.id!r} has tenant {entry.tenant[:80]!r}")
    return entry


def _hash(secret: str, salt: str) -> str:
    data = secret.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=32, salt=bytes.fromhex(salt), person=b"acclimate token").hexdigest()
