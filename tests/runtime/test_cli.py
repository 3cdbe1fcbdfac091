"""The command line as its users run it: a process, its exit code, its output."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.cli import demo, serve, session
from acclimate.runtime.types import CreateSession
from tests.conftest import ROOT
from tests.runtime.rpc.loopback import MODEL, serving


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", "from acclimate.runtime.cli import main; main()", *arguments]
    # PYTHONPATH may carry what a test hides or adds; rich must not think that this is a terminal.
    merged = {k: v for k, v in os.environ.items() if k != "FORCE_COLOR"} | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=merged, timeout=120)


def failure(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("acclimate: ")
    return result.returncode, line


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in ("serve", "demo", "session", "bundle"):
        assert command in result.stdout


def test_serving_nothing_is_a_configuration_error() -> None:
    code, line = failure(run("serve"))
    assert code == 2
    assert "--bundle" in line


def test_a_bad_configuration_is_exit_code_2(tmp_path: Path) -> None:
    code, line = failure(run("serve", "--config", str(tmp_path / "none.toml")))
    assert code == 2
    assert "none.toml cannot be read" in line
    code, line = failure(run("serve", ACCLIMATE_SERVER__GRPCPORT="1"))
    assert code == 2
    assert "ACCLIMATE_SERVER__GRPC_PORT" in line


def test_no_engine_is_exit_code_3_and_names_the_extra(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n", encoding="utf-8")
    result = run("serve", "--bundle", str(bundle_path), "--grpc-port", "0", "--http-port", "0",
                 PYTHONPATH=str(tmp_path))  # fmt: skip
    code, line = failure(result)
    assert code == 3
    assert "pip install 'acclimate[cpu]'" in line


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port"])
def test_a_taken_port_is_exit_code_4_and_named(bundle_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        other = {"--grpc-port": "--http-port", "--http-port": "--grpc-port"}[flag]
        code, line = failure(run("serve", "--bundle", str(bundle_path), flag, port, other, "0"))
    assert code == 4
    assert f"127.0.0.1:{port}" in line
    assert flag in line


def test_a_bad_bundle_is_exit_code_5(tmp_path: Path) -> None:
    for command in (["serve", "--bundle", str(tmp_path)], ["bundle", "inspect", str(tmp_path)]):
        code, line = failure(run(*command))
        assert code == 5
        assert "manifest.json" in line


def test_bundle_inspect(bundle_path: Path) -> None:
    result = run("bundle", "inspect", str(bundle_path), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    manifest = json.loads((bundle_path / "manifest.json").read_text(encoding="utf-8"))
    assert document["name"] == manifest["name"]
    assert {entry["name"]: entry["sha256"] for entry in document["files"]} == {
        name: entry["sha256"] for name, entry in manifest["files"].items()
    }
    assert document["calibration"] == manifest["calibration"]
    table = run("bundle", "inspect", str(bundle_path))
    assert table.returncode == 0, table.stderr
    assert "frozen.onnx" in table.stdout


def test_sessions_of_a_running_daemon() -> None:
    with serving() as running:
        target = ("--target", running.target)
        created = running.run(running.service.create_session(CreateSession(MODEL, "cam-0")))
        listed = run("session", "list", *target, "--json")
        assert [view["session_id"] for view in json.loads(listed.stdout)] == [created.session_id]
        assert "cam-0" in run("session", "list", *target, "--model", MODEL).stdout
        view = json.loads(run("session", "get", f"models/{MODEL}/sessions/cam-0", *target, "--json").stdout)
        assert (view["recipe"], view["budget"]["capacity_ms"]) == ("auto", 2000.0)
        assert run("session", "reset", f"{MODEL}/cam-0", *target).returncode == 0
        code, line = failure(run("session", "get", f"{MODEL}/none", *target))
        assert code == 1
        assert "SESSION_NOT_FOUND" in line


def test_no_daemon_is_said_plainly() -> None:
    code, line = failure(run("session", "list", "--target", "127.0.0.1:1"))
    assert code == 1
    assert "is a daemon running at 127.0.0.1:1?" in line


def test_a_malformed_session_name_is_a_usage_error() -> None:
    code, line = failure(run("session", "get", "cam-0"))
    assert code == 2
    assert "MODEL/SESSION" in line


def test_an_unknown_demo_names_those_there_are() -> None:
    code, line = failure(run("demo", "nothing", "--json"))
    assert code == 2
    assert "digits" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("digits", [])),
        (["--json"], ("digits", ["--json"])),
        (["digits", "--seconds", "5"], ("digits", ["--seconds", "5"])),
        (["other"], ("other", [])),
    ],
)
def test_a_demo_s_own_options_reach_it(arguments: list[str], expected: tuple[str, list[str]]) -> None:
    assert demo.split(arguments) == expected


def test_flags_become_overrides_only_when_given() -> None:
    assert serve.overrides(None, None, None, None, False) == {"server": {}}
    assert serve.overrides([Path("a")], Path("b"), 0, 7, True) == {
        "bundles": [Path("a")],
        "repository": {"directory": "b"},
        "server": {"grpc_port": 0, "http_port": 7},
        "scheduler": {"mode": "synchronous"},
    }


def test_both_forms_of_a_session_name() -> None:
    assert session.parse("m/s") == session.parse("models/m/sessions/s") == ("m", "s")


HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "grpc", "prometheus_client", "pydantic", "rich.console")


def test_the_command_line_itself_loads_none_of_what_commands_need() -> None:
    probe = f"import sys, acclimate.runtime.cli; print([n for n in {HEAVY!r} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_the_life_of_a_session_from_the_command_line() -> None:
    with serving() as running:

        def acclimate(*arguments: str) -> Any:
            result = run("session", *arguments, "--target", running.target, "--json")
            assert result.returncode == 0, result.stderr
            return json.loads(result.stdout) if result.stdout else None

        name = f"{MODEL}/cam-0"
        created = acclimate("create", name, "--recipe", "tent", "--ttl", "600")
        assert (created["ttl_seconds"], created["paused"]) == (600.0, False)
        assert acclimate("snapshot", name, "monday")["snapshot_id"] == "monday"
        assert [view["snapshot_id"] for view in acclimate("snapshot", name, "--list")] == ["monday"]
        assert acclimate("pause", name)["paused"]
        view = acclimate("resume", name)
        assert not view["paused"]
        changed = acclimate("update", name, "--capacity-ms", "50", "--ttl", "0", "--etag", view["etag"])
        assert (changed["budget"], changed["ttl_seconds"]) == ({"refill_ms_per_s": 200.0, "capacity_ms": 50.0}, None)
        assert acclimate("restore", name, "monday")["version"] == 1
        copy = acclimate("fork", name, "cam-1", "--snapshot", "monday", "--refill-ms-per-s", "7")
        assert (copy["session_id"], copy["budget"]["refill_ms_per_s"]) == ("cam-1", 7.0)
        assert "monday" in run("session", "snapshot", name, "--list", "--target", running.target).stdout
        assert acclimate("snapshot", name, "monday", "--delete") is None
        assert acclimate("snapshot", name, "--list") == []
        code, line = failure(run("session", "pause", name, "--etag", view["etag"], "--target", running.target))
        assert (code, "ETAG_MISMATCH" in line) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["update", "m/s"], "nothing to change"),
        (["snapshot", "m/s", "--delete"], "--delete needs the id"),
        (["snapshot", "m/s", "x", "--list"], "--list takes neither"),
        (["pause", "s"], "MODEL/SESSION"),
    ],
)
def test_commands_that_make_no_sense_are_usage_errors(arguments: list[str], says: str) -> None:
    code, line = failure(run("session", *arguments))
    assert (code, says in line) == (2, True)
