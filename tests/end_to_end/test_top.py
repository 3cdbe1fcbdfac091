"""`acclimate top` against real daemons: for scripts, with tokens, and in a terminal while the daemon goes away."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.client import Client
from acclimate.runtime.security import tokens
from tests.end_to_end.daemons import COMMAND, PATIENCE_SECONDS, Daemon, running
from tests.end_to_end.tenants import guarded
from tests.end_to_end.terminal import terminal
from tests.runtime.digits import picture


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"} | environment
    command = [*COMMAND, "top", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, env=variables)


def document(daemon: Daemon, *arguments: str, **environment: str) -> dict[str, Any]:
    result = top("--once", "--json", "--target", daemon.target, *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def learnt(daemon: Daemon) -> Daemon:
    """Sessions that learnt twice, once and never."""
    with Client(daemon.target) as client:
        for name, requests in (("never", 0), ("once", 1), ("twice", 2)):
            client.create_session("digits", name, recipe="tent")
            for seed in range(requests):
                client.predict("digits", picture(seed, 32), parameters={"sequence_id": name})
    return daemon


def test_a_look_for_scripts(learnt: Daemon) -> None:
    told = document(learnt, "--sort", "updates")
    assert [row["session_id"] for row in told["sessions"]] == ["twice", "once", "never"]
    assert [row["updates"] for row in told["sessions"]] == [2, 1, 0]
    assert (told["total"], told["sort"], told["target"]) == (3, "updates", learnt.target)
    (model,) = (one for one in told["models"] if one["model"] == "digits")
    assert (model["model"], model["sessions"], model["updates"]) == ("digits", 3, 3)
    never = told["sessions"][-1]
    assert never["entropy"] is never["accuracy"] is None
    assert not {"error", "events", "trends"} & told.keys()


def test_orders_limits_and_models(learnt: Daemon) -> None:
    by_entropy = [row["entropy"] or 0.0 for row in document(learnt, "--sort", "entropy")["sessions"]]
    assert by_entropy == sorted(by_entropy, reverse=True)
    first = document(learnt, "--sort", "rollbacks", "-n", "1")
    assert (len(first["sessions"]), first["total"]) == (1, 3)
    assert top("--once", "--json", "--model", "other", "--target", learnt.target).returncode == 1
    assert document(learnt, "--model", "digits")["total"] == 3


def test_where_there_is_no_terminal_it_looks_once(learnt: Daemon) -> None:
    result = top("--target", learnt.target)
    assert result.returncode == 0
    assert "twice" in result.stdout
    assert "\x1b" not in result.stdout


def test_bad_arguments_and_nobody_there() -> None:
    wrong = top("--sort", "beauty")
    assert wrong.returncode == 2
    assert "choose one of drift, accuracy, entropy, rollbacks, updates, recent" in wrong.stderr
    gone = top("--once", "--target", "127.0.0.1:1")
    assert gone.returncode == 1
    assert "is a daemon running at 127.0.0.1:1?" in gone.stderr
    assert top("--interval", "0").returncode == 2


def test_tokens_and_tenants(bundle_path: Path, tmp_path: Path) -> None:
    with guarded(bundle_path, tmp_path) as up:
        with up.client("alice") as client:
            client.create_session("digits", "hers")
        refused = top("--once", "--target", up.daemon.target)
        assert refused.returncode == 1
        assert "CREDENTIAL_MISSING" in refused.stderr
        own = document(up.daemon, ACCLIMATE_TOKEN=up.tokens["alice"])
        assert [row["session_id"] for row in own["sessions"]] == ["hers"]
        assert document(up.daemon, "--token", up.tokens["mallory"])["sessions"] == []
        watched = document(up.daemon, "--token", up.tokens["watcher"], "--tenant", "alice")
        assert watched["total"] == 1


@pytest.mark.slow
def test_it_stays_while_the_daemon_goes_and_returns(bundle_path: Path) -> None:
    with running(bundle_path, synchronous=True) as first:
        port = first.ready["grpc_port"]
        with terminal("top", "--target", first.target, "--interval", "0.2") as screen:
            screen.shows("0 sessions")
            with Client(first.target) as client:
                client.create_session("digits", "camera-1", recipe="tent")
                screen.shows("camera-1")
                client.predict("digits", picture(0, 32), parameters={"sequence_id": "camera-1"})
                screen.shows("adapted")
                client.reset_session("digits", "camera-1")
                screen.shows("reset")
            screen.press("e")
            screen.shows("by entropy")
            first.stop()
            screen.shows("cannot be reached, last seen")
            screen.shows("camera-1")
            with running(bundle_path, synchronous=True, grpc_port=port) as second:
                screen.shows("0 sessions")
                with Client(second.target) as client:
                    client.create_session("digits", "camera-2")
                screen.shows("camera-2")
                screen.press("q")
                assert screen.ends() == 0


def test_a_token_that_does_not_hold_any_more_ends_it(bundle_path: Path, tmp_path: Path) -> None:
    with (
        guarded(bundle_path, tmp_path) as up,
        terminal("top", "--target", up.daemon.target, "--interval", "0.2", "--token", up.tokens["alice"]) as screen,
    ):
        screen.shows("0 sessions")
        tokens.write(up.file, {})
        screen.shows("CREDENTIAL_WRONG")
        assert screen.ends() == 1
