"""The daemon's one configuration: command line over environment over TOML file over defaults.

Environment variables are `ACCLIMATE_<SECTION>__<KEY>`, for instance `ACCLIMATE_SERVER__GRPC_PORT=8001`. A key
that does not exist is an error that names the nearest one that does. `config_page.py` makes its page.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from acclimate.runtime.config_adaptation import Adaptation, Drift, NonNegative, Restoration, Section
from acclimate.runtime.config_generation import Generation
from acclimate.runtime.config_language import Language, near
from acclimate.runtime.config_metrics import Metrics
from acclimate.runtime.config_scheduler import Scheduler
from acclimate.runtime.config_security import Limits, Quotas, Security, beside, exposed, incomplete
from acclimate.runtime.config_serving import OpenInference, Repository
from acclimate.runtime.config_store import Store
from acclimate.runtime.config_tracing import Tracing
from acclimate.runtime.config_web import Web

ENV_PREFIX = "ACCLIMATE_"
ENV_DELIMITER = "__"
# Read by the benchmarks, tests and the client's commands, not by the daemon, and often set where it runs.
CLIENT_VARIABLES = ("TARGET", "TOKEN", "TENANT", "CA", "CERTIFICATE", "KEY")
FOREIGN_VARIABLES = frozenset({"ACCLIMATE_DATA", *(f"{ENV_PREFIX}{name}" for name in CLIENT_VARIABLES)})

Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(ValueError):
    """The configuration cannot be used; the message is one line that names the key, its value and the fix."""


class Server(Section):
    """Addresses and limits of the two ports."""

    host: str = Field("127.0.0.1", min_length=1, description="address both ports bind to; loopback by default")
    grpc_port: Port = Field(8001, description="gRPC port; 0 picks a free one")
    http_port: Port = Field(8002, description="HTTP port (web page, metrics, health); 0 picks a free one")
    max_message_bytes: int = Field(
        64 * 2**20, ge=2**16, le=2**31 - 1, description="largest gRPC request or reply, bytes"
    )
    drain_seconds: NonNegative = Field(10.0, description="time that queued work gets on SIGTERM, seconds")


class Engine(Section):
    """How models are computed."""

    provider: Literal["cpu", "cuda", "tensorrt", "auto"] = Field(
        "cpu", description="ONNX Runtime execution provider; auto: CUDA where it is, else the CPU"
    )
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="graphs of a bundle to run: float32 are the int8 and float ones; the others need an export with "
        "`--precision` and, for bfloat16, a GPU",
    )
    intra_op_threads: int = Field(0, ge=0, le=1024, description="threads for one prediction; 0: as many as cores")
    adaptation_threads: int = Field(1, ge=1, le=1024, description="threads for one adaptation step")
    specialised_sessions: int = Field(
        4, ge=0, le=1024, description="sessions per model that may have a graph of their own, for speed; 0: none"
    )
    specialised_bytes: int = Field(
        2**26, ge=0, description="memory that these graphs may take per model, estimated, bytes"
    )


class Sessions(Section):
    """What sessions may hold."""

    max_sessions: int = Field(
        10_000,
        ge=1,
        description="sessions in memory over all models, at most; with a store those used longest ago make room",
    )
    default_recipe: str = Field("auto", min_length=1, description="method of a session that chooses none")
    remembered_answers: int = Field(1024, ge=0, description="answers per session that feedback can still name")
    buffer_rows: int = Field(
        256,
        ge=1,
        description="samples per session waiting to be learnt from, at most; a recipe that reads labels keeps as many "
        "that it has learnt from, until their labels come",
    )
    max_snapshots: int = Field(8, ge=0, le=1024, description="snapshots per session, at most")
    default_ttl_seconds: NonNegative = Field(
        0.0, description="idle time after which a session that chooses none is closed, seconds; 0: never"
    )


class BudgetDefaults(Section):
    """Token buckets of adaptation time; a session's own can be chosen when it is created."""

    refill_ms_per_s: NonNegative = Field(
        200.0, description="per session: milliseconds of adaptation granted per second"
    )
    capacity_ms: NonNegative = Field(2000.0, description="per session: milliseconds that can be saved up")
    process_refill_ms_per_s: NonNegative = Field(
        1000.0, description="whole process: milliseconds of adaptation granted per second"
    )
    process_capacity_ms: NonNegative = Field(10_000.0, description="whole process: milliseconds that can be saved up")


class Logging(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity written")
    format: Literal["console", "json"] = Field("console", description="for people, or one JSON object a line")


def _paths(value: object) -> object:
    """A text from the environment holds paths as PATH does."""
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


class Config(BaseSettings):
    """Everything the daemon can be told. `Config(...)` reads nothing; `load` reads environment and file."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    bundles: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = Field(
        (),
        description="directories of the bundles to serve; in the environment separated as in PATH, in a file "
        "relative to the file",
    )
    repository: Repository = Repository()
    server: Server = Server()
    open_inference: OpenInference = OpenInference()
    engine: Engine = Engine()
    language: Language = Language()
    scheduler: Scheduler = Scheduler()
    sessions: Sessions = Sessions()
    store: Store = Store()
    adaptation: Adaptation = Adaptation()
    restoration: Restoration = Restoration()
    drift: Drift = Drift()
    budget: BudgetDefaults = BudgetDefaults()
    metrics: Metrics = Metrics()
    generation: Generation = Generation()
    logging: Logging = Logging()
    web: Web = Web()
    tracing: Tracing = Tracing()
    security: Security = Security()
    limits: Limits = Limits()
    quotas: Quotas = Quotas()
    tenants: dict[str, Quotas] = Field(
        {}, description="quotas of single tenants by name, in place of `[quotas]`: a table each, `[tenants.NAME]`"
    )

    @model_validator(mode="after")
    def _safe_to_bind(self) -> Self:
        fault = incomplete(self.security) or exposed(self.server.host, self.security)
        if fault is not None:
            raise ValueError(fault)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes all five by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in, so that constructing a Config is free of surprises."""
        return (init_settings,)


def load(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in force.

    Args:
        file: TOML file, or None.
        overrides: nested values that win over everything, as from the command line.

    Raises:
        ConfigError: the file cannot be read or parsed, a key is unknown, or a value is out of range.
    """
    document = _read(file) if file is not None else {}
    _refuse_unknown_keys(document, str(file))
    _refuse_unknown_variables(os.environ)
    environment = EnvSettingsSource(Config, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER)()
    try:
        return Config(**_merge(_merge(document, environment), overrides or {}))
    except ValidationError as error:
        raise ConfigError(f"configuration: {_sentence(error)}") from error


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting as `(section.key or key, field)`, in order."""
    for name, field in Config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            for key, inner in kind.model_fields.items():
                yield f"{name}.{key}", inner
        else:
            yield name, field


def variable(key: str) -> str:
    """The environment variable of a setting: `server.grpc_port` -> `ACCLIMATE_SERVER__GRPC_PORT`."""
    return ENV_PREFIX + key.replace(".", ENV_DELIMITER).upper()


def _read(file: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration: {file} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration: {file} is not TOML ({error})") from error
    if isinstance(document.get("language"), dict):
        document["language"] = near(file.parent, document["language"])
    store = document.get("store")
    if isinstance(store, dict) and store.get("path"):
        document["store"] = store | {"path": str(file.parent / str(store["path"]))}
    if isinstance(document.get("bundles"), list):
        document["bundles"] = [file.parent / str(path) for path in document["bundles"]]
    if isinstance(document.get("security"), dict):
        document["security"] = beside(file.parent, document["security"])
    repository = document.get("repository")
    if isinstance(repository, dict) and repository.get("directory"):
        repository["directory"] = str(file.parent / str(repository["directory"]))
    return document


def _refuse_unknown_variables(variables: Iterable[str]) -> None:
    known = [variable(key) for key, _ in fields()]
    for name in variables:
        if not name.upper().startswith(ENV_PREFIX) or name.upper() in (*known, *FOREIGN_VARIABLES):
            continue
        raise ConfigError(f"configuration: environment variable {name!r} is no setting{_nearest(name, known)}")


def _refuse_unknown_keys(document: Mapping[str, Any], where: str) -> None:
    known = [key for key, _ in fields()]
    sections = {key.split(".")[0] for key in known if "." in key}
    for name, value in document.items():
        keys = [f"{name}.{key}" for key in value] if name in sections and isinstance(value, dict) else [name]
        for key in keys:
            if key not in known and key not in sections:
                raise ConfigError(f"configuration: {where}: {key!r} is no setting{_nearest(key, known)}")


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` with the values of `high` over it, tables merged key by key."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _sentence(error: ValidationError) -> str:
    """Every fault in one line: key, what is wrong, value given."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']} (given: {fault['input']!r})"
        if fault["loc"]
        else fault["msg"]
        for fault in error.errors(include_url=False)
    )


def _nearest(key: str, known: list[str]) -> str:
    folded = {name.lower(): name for name in known}
    near = [folded[match] for match in difflib.get_close_matches(key.lower(), folded, n=1, cutoff=0.5)]
    return f"; did you mean {near[0]!r}?" if near else "; see docs/configuration.md for those that exist"
