"""`acclimate health`: whether a daemon serves, as an exit code; for containers and scripts, which need no curl."""

from __future__ import annotations

from typing import Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail
from acclimate.runtime.cli.session import LOCAL, Authority, Certificate, Key, Target, UseTls


def health(
    target: Target = LOCAL,
    service: Annotated[
        str,
        typer.Option(help="A model or a service, `acclimate.v1.SessionService` for instance. [default: the daemon]"),
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.001)] = 5.0,
    tls: UseTls = False,
    ca: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the daemon's certificate, where it is not that of the target.")
    ] = None,
) -> None:
    """Ask `grpc.health.v1`: exit code 0 if the daemon serves, 1 if it does not, drains, or cannot be reached.

    It needs no token.
    """
    from acclimate.runtime.client import Client, ClientError, Tls
    from acclimate.runtime.client.health import status

    files = Tls(ca, certificate, key, name) if ca or certificate or key or name else tls
    try:
        client = Client(target, tls=files, attempts=1)
    except (OSError, ValueError) as error:
        fail(ExitCode.BAD_CONFIG, f"credentials cannot be used: {error}")
    with client:
        try:
            found = status(client, service, timeout_seconds=timeout)
        except ClientError as error:
            fail(ExitCode.REFUSED, str(error))
    if found != "SERVING":
        fail(ExitCode.REFUSED, f"{target} is {found}")
    typer.echo(found)
