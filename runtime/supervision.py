"""What a service manager is told: `sd_notify(3)`, a datagram to the socket that it names.

The protocol is `KEY=value` lines: READY, STOPPING, RELOADING with MONOTONIC_USEC, STATUS, EXTEND_TIMEOUT_USEC, and
WATCHDOG, which is sent from the event loop, so that a loop that is stuck falls silent and the daemon is restarted.
Outside such a manager nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from acclimate.runtime.clock import Clock, SystemClock

log = structlog.stdlib.get_logger("acclimate.supervision")

ADDRESS, INTERVAL, FOR = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# sd_watchdog_enabled(3) recommends half of the interval.
PINGS_PER_INTERVAL = 2
# Draining is over after this long beyond its grace: the last step, the last writes to the store.
AFTER_DRAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The manager that started this process.

    Attributes:
        address: its socket, a path or `@` and an abstract name; empty: there is none.
        interval_seconds: silence after which it takes the daemon for stuck; 0: it does not look.
        clock: that of MONOTONIC_USEC.
    """

    address: str = ""
    interval_seconds: float = 0.0
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def of(cls, environment: Mapping[str, str], clock: Clock | None = None) -> Supervisor:
        """As the environment names it; of what it says about another process, or cannot mean, nothing is kept."""
        address = environment.get(ADDRESS, "")
        if address and address[0] not in "/@":
            log.warning("cannot notify: neither a path nor an abstract socket", address=address)
            address = ""
        microseconds, me = environment.get(INTERVAL, ""), str(os.getpid())
        watched = address and microseconds.isdecimal() and environment.get(FOR, me) == me
        return cls(address, int(microseconds) / 1e6 if watched else 0.0, clock or SystemClock())

    def ready(self, status: str) -> None:
        """It serves, for the first time or again; `status` is for people."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def stopping(self, grace_seconds: float) -> None:
        """It drains, and may take so long over it."""
        allowed = round((grace_seconds + AFTER_DRAIN_SECONDS) * 1e6)
        self._tell("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={allowed}")

    def reloading(self) -> None:
        """It reads its models again; `ready` says when it has."""
        now = round(self.clock.monotonic() * 1e6)
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the repository again")

    def around(self, reload: Callable[[], Awaitable[None]], status: Callable[[], str]) -> Callable[[], Awaitable[None]]:
        """`reload`, told of before and after."""

        async def told() -> None:
            self.reloading()
            try:
                await reload()
            finally:
                self.ready(status())

        return told

    async def watch(self) -> None:
        """Say that the event loop turns, for as long as it does; ends at once where nobody looks."""
        while self.interval_seconds:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.interval_seconds / PINGS_PER_INTERVAL)

    def _tell(self, *lines: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
                # A manager that does not read must not hold the event loop.
                datagrams.setblocking(False)
                datagrams.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("cannot notify", address=self.address, reason=error.strerror)


def _line(text: str) -> str:
    return " ".join(text.split())
