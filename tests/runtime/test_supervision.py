"""What a service manager hears, on a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.supervision import Supervisor
from tests.looped import looped

PATIENCE_SECONDS = 60


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.settimeout(PATIENCE_SECONDS)
        yield listening


def heard(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().splitlines()


def falls_silent(listening: socket.socket, seconds: float) -> None:
    """Nothing more comes in that time, after what was sent until now."""
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            listening.recv(4096)
    listening.settimeout(seconds)
    with pytest.raises(TimeoutError):
        listening.recv(4096)


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@acclimate-test-{os.getpid()}"


def test_a_life_is_told_in_the_manager_s_words(address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address}, ManualClock(12.5))
    with manager(address) as listening:
        supervisor.ready("serving digits,\n sorted")
        assert heard(listening) == ["READY=1", "STATUS=serving digits, sorted"]
        supervisor.reloading()
        assert heard(listening)[:2] == ["RELOADING=1", "MONOTONIC_USEC=12500000"]
        supervisor.stopping(10.0)
        assert heard(listening) == ["STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=30000000"]


def test_a_reload_is_told_before_and_after_even_where_it_fails(tmp_path: Path) -> None:
    address, done = str(tmp_path / "notify"), []

    async def fails() -> None:
        done.append("reload")
        raise ValueError("no")

    told = Supervisor(address).around(fails, lambda: "serving as before")
    with manager(address) as listening:
        with pytest.raises(ValueError, match="no"):
            asyncio.run(told())  # type: ignore[arg-type]
        assert heard(listening)[0] == "RELOADING=1"
        assert heard(listening) == ["READY=1", "STATUS=serving as before"]
    assert done == ["reload"]


@looped
async def test_the_watchdog_is_fed_by_the_event_loop_alone(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as listening:
        pulse = asyncio.create_task(Supervisor(address, interval_seconds=0.01).watch())
        for _ in range(3):
            assert await asyncio.to_thread(heard, listening) == ["WATCHDOG=1"]
        # While nothing is awaited, the loop is stuck and so is the pulse: what was sent is all there is.
        falls_silent(listening, 0.1)
        pulse.cancel()


@looped
async def test_nobody_looks_and_nothing_is_sent() -> None:
    await Supervisor("", 0.0).watch()
    await Supervisor("/nowhere", 0.0).watch()
    Supervisor().ready("unheard")


def test_a_manager_that_is_gone_or_does_not_read_does_not_stop_the_daemon(tmp_path: Path) -> None:
    Supervisor(str(tmp_path / "gone")).ready("nobody there")
    address = str(tmp_path / "notify")
    with manager(address) as listening:
        for _ in range(10_000):
            Supervisor(address).ready("unread")
        assert heard(listening)[0] == "READY=1"


@pytest.mark.parametrize(
    ("environment", "address", "interval"),
    [
        ({}, "", 0.0),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "30000000"}, "/run/notify", 30.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())}, "/n", 0.001),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, "/n", 0.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, "/n", 0.0),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000"}, "", 0.0),
        ({"WATCHDOG_USEC": "1000"}, "", 0.0),
    ],
)
def test_the_environment_says_whom_to_tell(environment: dict[str, str], address: str, interval: float) -> None:
    supervisor = Supervisor.of(environment)
    assert (supervisor.address, supervisor.interval_seconds) == (address, interval)
