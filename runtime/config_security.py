"""The sections of the configuration that say who may call, how much of everything, and over what connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from acclimate.runtime.config_adaptation import NonNegative, Section

# Keys of `[security]` that name files; in a configuration file they are relative to it.
FILES = ("tls_certificate", "tls_key", "tls_client_ca", "tokens", "trusted_keys")


class Security(Section):
    """Connections and credentials; see docs/security.md. Files are re-read when they change."""

    insecure: bool = Field(
        False,
        description="bind an address other than loopback without TLS; whoever is on the way reads along",
    )
    tls_certificate: str = Field("", description="PEM file with the certificate chain; empty: no TLS")
    tls_key: str = Field("", description="PEM file with the certificate's private key, not encrypted")
    tls_client_ca: str = Field(
        "", description="PEM file with the authorities that sign clients' certificates: gRPC clients must have one"
    )
    tenant_from_certificate: Literal["no", "common_name", "san"] = Field(
        "no",
        description="a client without a token is the tenant that its certificate names: as the common name, or as the "
        "first DNS name (`san`)",
    )
    tokens: str = Field("", description="token file, see `acclimate token`; empty: whoever connects may do everything")
    trusted_keys: str = Field(
        "",
        description="PEM file of Ed25519 public keys; a bundle that none of them signed is refused; empty: any",
    )


class Limits(Section):
    """How large the parts of one request may be; `server.max_message_bytes` bounds the whole."""

    max_tensors: int = Field(1024, ge=1, description="entries of a list in a request (tensors), at most")
    max_name_length: int = Field(512, ge=64, description="characters of a name or another text in a request, at most")
    max_parameters: int = Field(64, ge=1, description="entries of a map in a request (parameters), at most")
    max_parameter_bytes: int = Field(16_384, ge=1, description="bytes of one text parameter's value, at most")
    max_text_bytes: int = Field(2**20, ge=1, description="bytes of one text for a language model, at most")
    max_metadata_entries: int = Field(64, ge=8, description="metadata entries of an rpc, at most")
    max_metadata_bytes: int = Field(
        16_384, ge=1024, le=2**20, description="keys and values of an rpc's metadata together, bytes, at most"
    )


class Quotas(Section):
    """What each tenant may use at most, 0: no limit. `[tenants.NAME]` says otherwise for one."""

    sessions: int = Field(0, ge=0, description="open sessions of one tenant")
    state_bytes: int = Field(
        0, ge=0, description="state of one tenant's open sessions, bytes, without samples that wait to be learnt from"
    )
    requests_per_s: NonNegative = Field(0.0, description="rpcs of one tenant per second")
    adaptation_ms_per_s: NonNegative = Field(
        0.0, description="milliseconds of adaptation per second, shared by one tenant's sessions"
    )
    burst_seconds: NonNegative = Field(10.0, description="how long an idle tenant saves up what comes by the second")
    weight: float = Field(
        1.0,
        gt=0.0,
        le=1e6,
        allow_inf_nan=False,
        description="share of the engine that a tenant gets when several wait for it, relative to the others'",
    )


def exposed(host: str, security: Security) -> str | None:
    """Why the daemon must not bind `host`, or None if it may."""
    if security.insecure or security.tls_certificate or is_loopback(host):
        return None
    return (
        f"server.host is {host!r}, which others can reach, and TLS is off; set security.tls_certificate and "
        "security.tls_key, bind 127.0.0.1, or say --insecure"
    )


def incomplete(security: Security) -> str | None:
    """Which TLS setting lacks another, or None."""
    if bool(security.tls_certificate) != bool(security.tls_key):
        return "security.tls_certificate and security.tls_key come together; one of them is not set"
    if security.tls_client_ca and not security.tls_certificate:
        return "security.tls_client_ca needs security.tls_certificate and security.tls_key"
    if security.tenant_from_certificate != "no" and not security.tls_client_ca:
        return "security.tenant_from_certificate needs security.tls_client_ca, or no client shows a certificate"
    return None


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def beside(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """`[security]` of a file, with relative paths made relative to the file's folder."""
    return {
        key: str(folder / value) if key in FILES and isinstance(value, str) and value else value
        for key, value in document.items()
    }
