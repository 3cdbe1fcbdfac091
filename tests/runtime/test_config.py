"""Precedence, refusals and documentation of the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from acclimate.runtime.config import Config, ConfigError, fields, load, variable
from acclimate.runtime.config_page import markdown
from tests.conftest import ROOT


def toml(folder: Path, text: str) -> Path:
    path = folder / "acclimate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_nothing() -> None:
    assert load() == Config()
    assert Config().server.host == "127.0.0.1"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toml(tmp_path, "[server]\ngrpc_port = 1\nhttp_port = 2\ndrain_seconds = 3\nmax_message_bytes = 100000\n")
    monkeypatch.setenv("ACCLIMATE_SERVER__HTTP_PORT", "20")
    monkeypatch.setenv("acclimate_server__drain_seconds", "30")
    server = load(file, {"server": {"drain_seconds": 300.0}}).server
    assert (server.grpc_port, server.http_port, server.drain_seconds) == (1, 20, 300.0)
    assert server.max_message_bytes == 100_000
    assert server.host == "127.0.0.1"


def test_every_setting_can_be_set_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {}
    for key, field in fields():
        default = field.get_default()
        values[key] = json.dumps(default) if isinstance(default, tuple) and default else str(default)
        values[key] = "a:b" if key == "bundles" else values[key]
        monkeypatch.setenv(variable(key), values[key])
    assert load().bundles == (Path("a"), Path("b"))
    assert load() == Config(bundles=(Path("a"), Path("b")))


def test_relative_bundles_lie_beside_the_file(tmp_path: Path) -> None:
    assert load(toml(tmp_path, 'bundles = ["digits", "/abs"]')).bundles == (tmp_path / "digits", Path("/abs"))
    beside = load(toml(tmp_path, '[repository]\ndirectory = "models"')).repository.directory
    assert beside == str(tmp_path / "models")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\ngrpc_prot = 1", r"'server.grpc_prot' is no setting; did you mean 'server.grpc_port'\?"),
        ("[sever]\ngrpc_port = 1", r"'sever' is no setting; did you mean 'server"),
        ("grpc_port = 1", r"'grpc_port' is no setting; did you mean 'server.grpc_port'\?"),
        ("[server]\ngrpc_port = 70000", r"server.grpc_port: .*65535.*given: 70000"),
        ("[server]\ngrpc_port = 'x'", r"server.grpc_port: .*integer.*given: 'x'"),
        ("[budget]\nrefill_ms_per_s = nan", r"budget.refill_ms_per_s: .*finite"),
        ("[scheduler]\nmode = 'eager'", r"scheduler.mode: .*'background' or 'synchronous'"),
        ("server = 3", r"server: "),
        ("[server", r"acclimate.toml is not TOML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(toml(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml cannot be read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ACCLIMATE_SERVER__GRPC_PROT", "ACCLIMATE_SERVER__GRPC_PORT"),
        ("ACCLIMATE_GRPC_PORT", "ACCLIMATE_SERVER__GRPC_PORT"),
        ("acclimate_logging__levle", "ACCLIMATE_LOGGING__LEVEL"),
    ],
)
def test_an_unknown_variable_names_the_nearest(name: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"{name}.*did you mean '{near}'"):
        load()


def test_variables_of_the_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_DATA", "somewhere")
    monkeypatch.setenv("ACCLIMATE_TOKEN", "of a client's command")
    assert load() == Config()


def test_credentials_lie_beside_the_file(tmp_path: Path) -> None:
    text = '[security]\ntls_certificate = "a.pem"\ntls_key = "/abs/a.key"\ntokens = ""\n'
    chosen = load(toml(tmp_path, text)).security
    assert (chosen.tls_certificate, chosen.tls_key, chosen.tokens) == (str(tmp_path / "a.pem"), "/abs/a.key", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert Config(server={"host": host}).server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example"])  # noqa: S104
def test_any_other_address_needs_tls_or_a_word(host: str) -> None:
    with pytest.raises(ValidationError, match="--insecure"):
        Config(server={"host": host})
    assert Config(server={"host": host}, security={"insecure": True}).server.host == host
    assert Config(server={"host": host}, security={"tls_certificate": "c", "tls_key": "k"}).server.host == host


def test_constructing_reads_no_environment_and_nothing_changes_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCLIMATE_SERVER__GRPC_PORT", "99")
    config = Config()
    assert config.server.grpc_port == 8001
    with pytest.raises(ValidationError, match="frozen"):
        config.server.grpc_port = 5  # type: ignore[misc]


def test_every_setting_has_a_meaning_and_documentation_is_current() -> None:
    assert all(field.description for _, field in fields())
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m acclimate.runtime.config_page > docs/configuration.md"
