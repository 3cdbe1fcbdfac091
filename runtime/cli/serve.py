"""`acclimate serve`: run the daemon."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.runtime.cli.output import ExitCode, fail

# A package that something needs of which the configuration speaks, by what to do where it is missing.
MISSING = {
    "onnxruntime": "no engine is installed; run: pip install 'acclimate[cpu]' (or 'acclimate[gpu]' for CUDA)",
    "opentelemetry": "tracing.endpoint is set and OpenTelemetry is not installed; run: pip install 'acclimate[trace]'",
}
NOTHING = (
    "no bundle to serve; give --bundle DIR, --repository DIR or --language-model NAME, or `bundles` in the "
    "configuration"
)


def serve(
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Directory of a bundle to serve; repeat for more models.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Directory whose children are bundles to serve; read again on SIGHUP.")
    ] = None,
    language_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Language model to serve: smollm2, a directory, a GGUF file or a hub id, or NAME=one of these."
        ),
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0 picks a free one. [default: 8001]")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port; 0 picks a free one. [default: 8002]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; see docs/configuration.md.")] = None,
    synchronous: Annotated[
        bool, typer.Option("--synchronous", help="Predict, adapt, next: deterministic, for tests and replay.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Bind an address other than loopback without TLS.")
    ] = False,
) -> None:
    """Serve bundles over gRPC until SIGTERM; one JSON line on stdout says when it is ready."""
    from acclimate.runtime.config import ConfigError, load

    try:
        chosen = overrides(bundle, repository, grpc_port, http_port, synchronous, insecure)
        settings = load(config, chosen | named(language_model or []))
    except ConfigError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    if not (settings.bundles or settings.repository.directory or settings.language.models):
        fail(ExitCode.BAD_CONFIG, NOTHING)
    from acclimate.runtime import daemon
    from acclimate.runtime.bundle import BundleError
    from acclimate.runtime.engines.language import LanguageModelError
    from acclimate.runtime.security.files import SecurityError
    from acclimate.runtime.store.base import StoreError

    try:
        daemon.run(settings)
    except ModuleNotFoundError as error:
        # Any other missing module is a defect, and its traceback is wanted.
        package = (error.name or "").partition(".")[0]
        if package not in MISSING:
            raise
        fail(ExitCode.ENGINE_MISSING, MISSING[package])
    except SecurityError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    except (BundleError, LanguageModelError) as error:
        fail(ExitCode.BAD_BUNDLE, str(error))
    except StoreError as error:
        fail(ExitCode.BAD_STORE, str(error))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        fail(ExitCode.PORT_TAKEN, error.strerror or str(error))


def named(models: list[str]) -> dict[str, Any]:
    """The configuration of language models given as `PLACE` or `NAME=PLACE`; a place alone names itself by its end."""
    chosen = {}
    for given in models:
        name, separator, place = given.partition("=")
        chosen[name if separator else Path(given).stem.lower()] = place if separator else given
    return {"language": {"models": chosen}} if chosen else {}


def overrides(
    bundle: list[Path] | None,
    repository: Path | None,
    grpc_port: int | None,
    http_port: int | None,
    synchronous: bool,
    insecure: bool = False,
) -> dict[str, Any]:
    """The configuration that flags ask for; a flag not given asks for nothing."""
    ports = {"grpc_port": grpc_port, "http_port": http_port}
    chosen: dict[str, Any] = {"server": {key: port for key, port in ports.items() if port is not None}}
    if bundle:
        chosen["bundles"] = bundle
    if repository is not None:
        chosen["repository"] = {"directory": str(repository)}
    if synchronous:
        chosen["scheduler"] = {"mode": "synchronous"}
    if insecure:
        chosen["security"] = {"insecure": True}
    return chosen
