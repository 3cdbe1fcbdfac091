"""The daemon's certificate, its key, and the authority of its clients: read, checked against each other, re-read."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from acclimate.runtime.security.files import FileWatch, SecurityError

log = structlog.stdlib.get_logger("acclimate.tls")
T = TypeVar("T")


class CertificateError(SecurityError):
    """A certificate, key or authority cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files lie; `client_ca` None asks clients for no certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files hold, once it is known to fit together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


def read(files: TlsFiles) -> Pem:
    """Read the files and check that the key belongs to the certificate.

    Raises:
        CertificateError: a file cannot be read, is not PEM, is encrypted, or certificate and key are not a pair.
    """
    pem = Pem(
        _bytes(files.certificate, "security.tls_certificate"),
        _bytes(files.key, "security.tls_key"),
        None if files.client_ca is None else _bytes(files.client_ca, "security.tls_client_ca"),
    )
    _context(files)
    return pem


def http_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for a server, TLS 1.2 or newer; it asks for no client certificate.

    Raises:
        CertificateError: see `read`.
    """
    read(files)
    return _context(files)


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password of ours, OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(_explain(files, error)) from error
    if files.client_ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(
                f"security.tls_client_ca {files.client_ca}: holds no certificate in PEM ({_reason(error)})"
            ) from error
    return context


class Reloading(Generic[T]):
    """Something made from the files, made again when they change; while they are broken, the last good one stays."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], T]) -> None:
        self._files = files
        self._make = make
        paths = (files.certificate, files.key, files.client_ca)
        self._watch = FileWatch(*(path for path in paths if path is not None))
        self.latest = make(files)

    def renewed(self) -> T | None:
        """What the files make now, if they changed since the last call, and make something. Never raises."""
        if not self._watch.changed():
            return None
        try:
            self.latest = self._make(self._files)
        except CertificateError as error:
            log.error("certificate not reloaded; the last one stays in use", reason=str(error))
            return None
        log.info("certificate reloaded", certificate=str(self._files.certificate))
        return self.latest


def _bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{key} {path}: cannot be read ({error.strerror})") from error


def _explain(files: TlsFiles, error: Exception) -> str:
    reason = _reason(error)
    where = f"security.tls_certificate {files.certificate} and security.tls_key {files.key}"
    if "KEY_VALUES_MISMATCH" in reason or "key values mismatch" in reason:
        return f"{where}: the key does not belong to the certificate; give the pair that was issued together"
    if "PEM" in reason.upper() or "NO_START_LINE" in reason:
        return f"{where}: a file holds no PEM of its kind, or the key is encrypted; decrypt it with `openssl pkey`"
    return f"{where}: cannot be used ({reason})"


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
