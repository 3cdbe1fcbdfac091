"""Watches whose connection breaks while the daemon lives: they go on where they were."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from acclimate.runtime.client import AsyncClient, Client, EventKind
from acclimate.runtime.events import REMEMBERED
from tests.polling import until, until_async
from tests.runtime.rpc.loopback import MODEL, Loopback


class Cable:
    """A TCP connection to the daemon that can be cut: a relay on a port of its own."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._daemon = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._plugged = True
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break what there is, and every later connection until it is mended."""
        self._plugged = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._plugged = True

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._plugged:
                    near.close()
                    continue
                far = socket.create_connection(self._daemon)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_relay, args=(one, other), daemon=True).start()


def _relay(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(loopback: Loopback) -> Iterator[Cable]:
    line = Cable(loopback.target)
    yield line
    line.close()


def test_nothing_is_missed_while_the_line_is_down(loopback: Loopback, cable: Cable) -> None:
    with Client(loopback.target) as near, Client(cable.target) as far:
        watch = far.watch(MODEL, resume_seconds=60.0)
        near.create_session(MODEL, "down")
        assert next(watch).kind is EventKind.CREATED
        cable.cut()
        near.reset_session(MODEL, "down")
        near.delete_session(MODEL, "down")
        cable.mend()
        assert [next(watch).kind for _ in range(2)] == [EventKind.RESET, EventKind.DELETED]
        assert (watch.resumed, watch.missed) == (1, 0)
        watch.close()


def test_what_is_no_longer_remembered_is_counted_as_missed(loopback: Loopback, cable: Cable) -> None:
    with Client(loopback.target) as near, Client(cable.target) as far, near.create_session(MODEL, "busy") as session:
        watch = far.watch(MODEL, resume_seconds=60.0)
        session.reset()
        next(watch)
        cable.cut()
        for _ in range(REMEMBERED + 1):
            session.reset()
        cable.mend()
        reader = threading.Thread(target=lambda: told.append(next(watch)))
        told: list[object] = []
        reader.start()
        until(lambda: watch.resumed == 1, "the watch to stand again")
        session.pause()
        reader.join(60)
        assert [event.kind for event in told] == [EventKind.PAUSED]  # type: ignore[attr-defined]
        assert watch.missed == 1
        watch.close()


def test_the_asyncio_watch_does_the_same(loopback: Loopback, cable: Cable) -> None:
    async def main() -> None:
        async with AsyncClient(loopback.target) as near, AsyncClient(cable.target) as far:
            session = await near.create_session(MODEL, "down-too")
            watch = await session.watch(resume_seconds=60.0)
            other = await far.watch(MODEL, "down-too", kinds=[EventKind.RESET, EventKind.PAUSED], resume_seconds=60.0)
            await session.reset()
            assert (await anext(other)).kind is EventKind.RESET
            cable.cut()
            await session.resume()
            await session.pause()
            cable.mend()
            assert (await anext(other)).kind is EventKind.PAUSED
            assert (other.resumed, other.missed, watch.resumed) == (1, 0, 0)
            waiting = asyncio.ensure_future(anext(other))
            cable.cut()
            cable.mend()
            await until_async(lambda: other.resumed == 2, "the watch to stand again")
            await session.reset()
            assert (await waiting).kind is EventKind.RESET
            await session.delete()

    asyncio.run(main())
