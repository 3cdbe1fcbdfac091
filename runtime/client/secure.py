"""How the client says who it is, and how it knows the daemon: tokens as metadata, TLS, certificates of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

Metadata = tuple[tuple[str, str], ...]
Options = list[tuple[str, int | str]]


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with the daemon, files in PEM.

    Attributes:
        ca: authorities that may have signed the daemon's certificate; None: those that gRPC trusts.
        certificate, key: the client's own, for a daemon that asks for one.
        name: the name that the daemon's certificate must carry, where it is not that of the target.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    name: str | None = None


def open_channel(
    make: Any, target: str, options: Options, token: str | None, tls: bool | Tls, tenant: str | None
) -> Any:
    """A channel that sends token and tenant with every rpc.

    Args:
        make: `grpc` or `grpc.aio`.
        target: `host:port`.
        options: channel options.
        token: bearer token, or None.
        tls: False for none, True for TLS with the authorities that gRPC trusts, or the files to use.
        tenant: whom an administrator or operator acts for, or None.

    Raises:
        OSError: a file cannot be read. ValueError: token or tenant cannot be sent, or a certificate lacks its key.
    """
    metadata = _metadata(token, tenant)
    if not tls:
        channel = make.insecure_channel(target, options)
    else:
        files = Tls() if tls is True else tls
        named = [] if files.name is None else [("grpc.ssl_target_name_override", files.name)]
        channel = make.secure_channel(target, _credentials(files), [*options, *named])
    return _Speaking(channel, metadata) if metadata else channel


class _Speaking:
    """A channel that adds metadata to every rpc; gRPC's own way to do so works over TLS alone."""

    def __init__(self, channel: Any, metadata: Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, *given: Any, **named: Any) -> _Rpc:
        """See `grpc.Channel`."""
        return _Rpc(self._channel.unary_unary(*given, **named), self._metadata)

    def unary_stream(self, *given: Any, **named: Any) -> _Rpc:
        """See `grpc.Channel`."""
        return _Rpc(self._channel.unary_stream(*given, **named), self._metadata)

    def stream_unary(self, *given: Any, **named: Any) -> _Rpc:
        """See `grpc.Channel`."""
        return _Rpc(self._channel.stream_unary(*given, **named), self._metadata)

    def stream_stream(self, *given: Any, **named: Any) -> _Rpc:
        """See `grpc.Channel`."""
        return _Rpc(self._channel.stream_stream(*given, **named), self._metadata)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class _Rpc:
    """One rpc of such a channel, in whichever way it is called."""

    def __init__(self, rpc: Any, metadata: Metadata) -> None:
        self._rpc = rpc
        self._metadata = metadata

    def __call__(self, *given: Any, metadata: Any = None, **named: Any) -> Any:
        return self._rpc(*given, metadata=(*self._metadata, *(metadata or ())), **named)

    def with_call(self, *given: Any, metadata: Any = None, **named: Any) -> Any:
        """See `grpc.UnaryUnaryMultiCallable`."""
        return self._rpc.with_call(*given, metadata=(*self._metadata, *(metadata or ())), **named)

    def future(self, *given: Any, metadata: Any = None, **named: Any) -> Any:
        """See `grpc.UnaryUnaryMultiCallable`."""
        return self._rpc.future(*given, metadata=(*self._metadata, *(metadata or ())), **named)


def _metadata(token: str | None, tenant: str | None) -> Metadata:
    named = (("authorization", f"Bearer {token}" if token else None), ("acclimate-tenant", tenant))
    metadata = tuple((key, value) for key, value in named if value)
    for key, value in metadata:
        if not value.isascii() or not value.isprintable():
            # The value may be a secret, so it is not shown.
            raise ValueError(f"what would be sent as {key!r} holds characters other than printable ASCII")
    return metadata


def _credentials(files: Tls) -> grpc.ChannelCredentials:
    if (files.certificate is None) != (files.key is None):
        raise ValueError("certificate and key come together; one of them is None")
    ca, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (files.ca, files.key, files.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)
