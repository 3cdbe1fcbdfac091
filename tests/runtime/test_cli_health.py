"""`acclimate health` against real daemons: serving, draining, gone, with TLS and with tokens."""

from __future__ import annotations

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from acclimate.runtime.client import Client
from tests.end_to_end.certificates import authority
from tests.end_to_end.daemons import COMMAND, Daemon, running
from tests.polling import until
from tests.runtime.digits import picture

REFUSED, BAD_CONFIG = 1, 2


def health(*given: str, **environment: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    merged = os.environ | environment
    result = subprocess.run(
        [*COMMAND, "health", "--timeout", "60", *given],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=merged,
    )
    return result.returncode, result.stdout + result.stderr


def target(daemon: Daemon) -> str:
    return f"127.0.0.1:{daemon.ready['grpc_port']}"


def test_a_daemon_that_serves_and_what_it_serves(bundle_path: Path) -> None:
    with running(bundle_path) as daemon:
        assert health("--target", daemon.target) == (0, "SERVING\n")
        for service in ("digits", "acclimate.v1.SessionService"):
            assert health("--target", daemon.target, "--service", service) == (0, "SERVING\n")
        code, said = health("--target", daemon.target, "--service", "birds")
        assert code == REFUSED
        assert "'birds'" in said
        assert health("--target", daemon.target, "--ca", "none.pem")[0] == BAD_CONFIG


def test_a_daemon_that_drains_is_not_healthy(bundle_path: Path) -> None:
    # A long delay for company, so that the daemon has something to drain for.
    waiting = {"ACCLIMATE_SCHEDULER__MAX_DELAY_MS": "3600000", "ACCLIMATE_SCHEDULER__MAX_BATCH": "4096"}
    with running(bundle_path, environment=waiting) as daemon, ThreadPoolExecutor(1) as pool:
        with Client(daemon.target) as client:
            pool.submit(client.predict, "digits", picture(1))
            until(lambda: daemon.metrics()["acclimate_queue_depth", ()] == 1, "a request to stand in the queue")
            assert daemon.stop() == 0
        code, said = health("--target", daemon.target)
        assert code == REFUSED
        assert said.startswith("acclimate: ")


def test_nobody_there_is_one_line_and_not_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # It accepts connections and never speaks.
        code, said = health("--target", f"127.0.0.1:{taken.getsockname()[1]}", "--timeout", "0.2")
    assert code == REFUSED
    assert said.startswith("acclimate: ")
    assert len(said.splitlines()) == 1


def test_tls_is_asked_for_and_no_token_is_needed(bundle_path: Path, tmp_path: Path) -> None:
    ca = authority(tmp_path)
    pair = ca.issue("server", "daemon", names="DNS:daemon")
    tokens = tmp_path / "tokens.json"
    subprocess.run(
        [*COMMAND, "token", "create", "--file", str(tokens), "--tenant", "a"], check=True, capture_output=True
    )
    secured = {
        "ACCLIMATE_SECURITY__TLS_CERTIFICATE": str(pair.certificate),
        "ACCLIMATE_SECURITY__TLS_KEY": str(pair.key),
        "ACCLIMATE_SECURITY__TOKENS": str(tokens),
    }
    with running(bundle_path, environment=secured) as daemon:
        assert health("--target", target(daemon))[0] == REFUSED
        named = ("--target", target(daemon), "--name", "daemon")
        assert health(*named, ACCLIMATE_CA=str(ca.certificate)) == (0, "SERVING\n")
