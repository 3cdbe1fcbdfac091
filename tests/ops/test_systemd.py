"""The systemd unit: systemd reads it, the daemon speaks to it, and lives with what it forbids."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.runtime.client import Client
from tests.end_to_end.daemons import COMMAND, Daemon, arguments, running, started
from tests.house.tree import ROOT
from tests.polling import until
from tests.runtime.digits import picture
from tests.runtime.test_supervision import falls_silent, manager

UNIT = ROOT / "ops" / "systemd" / "acclimate.service"
# systemd-analyze counts tenths from 0, safe, to 10, exposed; "OK" begins below 5.
MOST_EXPOSED = 15
PATIENCE_SECONDS = 60
# prctl(2): no memory that is writable or was becomes executable, as MemoryDenyWriteExecute= has it.
REFUSE_WRITE_EXECUTE = "import ctypes; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze; apt install systemd")
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text("utf-8"), flags=re.MULTILINE)
    copy = tmp_path / UNIT.name
    copy.write_text(text, encoding="utf-8")
    return copy


def test_systemd_accepts_every_line(unit: Path) -> None:
    found = analyze("verify", "--man=no", str(unit))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_systemd_would_say_so_if_it_did_not(unit: Path) -> None:
    unit.write_text(unit.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSytem=strict"), encoding="utf-8")
    assert "ProtectSytem" in analyze("verify", "--man=no", str(unit)).stderr


def test_little_is_exposed(unit: Path) -> None:
    limit = f"--threshold={MOST_EXPOSED}"
    kept = analyze("security", "--offline=true", limit, "--no-pager", str(unit))
    assert kept.returncode == 0, kept.stdout.splitlines()[-1]
    unit.write_text(unit.read_text("utf-8").replace("SystemCallFilter=", "#"), encoding="utf-8")
    assert analyze("security", "--offline=true", limit, "--no-pager", str(unit)).returncode != 0


def test_the_drop_in_for_a_gpu_is_read_too(unit: Path) -> None:
    folder = unit.with_name(unit.name + ".d")
    folder.mkdir()
    shutil.copy2(UNIT.with_name("gpu.conf"), folder)
    found = analyze("verify", "--man=no", str(unit))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_daemon_tells_its_manager_of_its_life(bundle_path: Path, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as listening:
        told = messages(listening)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "50000"}
        with running(bundle_path, environment=environment) as daemon:
            assert until_told(told, "READY=1")["STATUS"] == "serving digits"
            until_told(told, "WATCHDOG=1")
            daemon.process.send_signal(signal.SIGHUP)
            assert int(until_told(told, "RELOADING=1")["MONOTONIC_USEC"]) > 0
            until_told(told, "READY=1")
            assert daemon.stop() == 0
            assert int(until_told(told, "STOPPING=1")["EXTEND_TIMEOUT_USEC"]) > 10e6


def test_a_loop_that_is_stuck_falls_silent_and_pings_again_when_it_turns(bundle_path: Path, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as listening:
        told = messages(listening)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        with running(bundle_path, environment=environment) as daemon:
            until_told(told, "WATCHDOG=1")
            daemon.process.send_signal(signal.SIGSTOP)
            until(lambda: Path(f"/proc/{daemon.process.pid}/stat").read_text().split()[2] == "T", "it to stand still")
            falls_silent(listening, 0.2)
            listening.settimeout(PATIENCE_SECONDS)
            daemon.process.send_signal(signal.SIGCONT)
            until_told(messages(listening), "WATCHDOG=1")


def test_onnx_runtime_lives_without_memory_that_is_writable_and_executable(bundle_path: Path) -> None:
    program = REFUSE_WRITE_EXECUTE + COMMAND[2]
    with started([sys.executable, "-c", program, *arguments(bundle_path, synchronous=True)]) as up:
        adapt(up)
        assert "rwxp" not in Path(f"/proc/{up.process.pid}/maps").read_text("utf-8")


def test_no_system_call_is_made_that_the_unit_refuses(bundle_path: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None or shutil.which("systemd-analyze") is None:
        pytest.skip("no strace or no systemd-analyze; apt install strace systemd")
    traced, store = tmp_path / "calls", tmp_path / "sessions.db"
    strace = ["strace", "-f", "-qq", "--signal=none", "-o", str(traced)]
    with started([*strace, *COMMAND, *arguments(bundle_path)], {"ACCLIMATE_STORE__PATH": str(store)}) as up:
        adapt(up)
        # strace is the process we started, the daemon its child.
        os.kill(up.ready["pid"], signal.SIGTERM)
        assert up.process.wait(PATIENCE_SECONDS) == 0
    made = set(re.findall(r"^\d+\s+(?:<\.\.\. )?(\w+)", traced.read_text("utf-8"), flags=re.MULTILINE))
    assert {"epoll_wait", "setpriority", "fdatasync"} & made, "the trace has calls in it"
    # As root, which the unit does not run as, SQLite gives its files to whom the database belongs.
    assert sorted(made - allowed() - {"resumed"} - ({"fchown"} if os.geteuid() == 0 else set())) == []


def allowed() -> set[str]:
    """What the unit's SystemCallFilter lines leave."""
    kept: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text("utf-8"), flags=re.MULTILINE):
        named = set().union(*(members(word) for word in line.removeprefix("~").split()))
        kept = kept - named if line.startswith("~") else kept | named
    # systemd allows these whatever the list says.
    return kept | members("@default") | {"execve", "exit", "exit_group", "rt_sigreturn"}


def members(word: str) -> set[str]:
    """A system call, or those of a group."""
    if not word.startswith("@"):
        return {word}
    lines = [line.strip() for line in analyze("syscall-filter", word).stdout.splitlines()[1:]]
    return set().union(*(members(line) for line in lines if line and not line.startswith("#")))


def adapt(up: Daemon) -> None:
    """Have a session learn from something."""
    with Client(up.target) as client, client.create_session("digits", recipe="tent") as session:
        for seed in range(4):
            session.predict(picture(seed, 32))
        until(lambda: session.get().updates > 0, "a session to learn")


def analyze(*given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *given], capture_output=True, text=True, check=False)


def messages(manager: socket.socket) -> Iterator[dict[str, str]]:
    """What the manager hears, datagram by datagram."""
    while True:
        yield dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def until_told(told: Iterator[dict[str, str]], line: str) -> dict[str, str]:
    """The next message with a line."""
    key, value = line.split("=")
    return next(message for message in told if message.get(key) == value)
