"""Streams of predictions whose connection is cut, or whose daemon is killed: in order, and learnt from once."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.client import AsyncClient, Client, ExportedSession, SessionLost
from tests.end_to_end.daemons import running
from tests.end_to_end.test_reconnecting import port as port
from tests.runtime.digits import picture

COUNT, ROWS = 24, 8
TENT: dict[str, Any] = {"recipe": "tent", "recipe_parameters": {"batch_rows": ROWS}}
BUDGET = {"ACCLIMATE_BUDGET__REFILL_MS_PER_S": "1e6", "ACCLIMATE_BUDGET__CAPACITY_MS": "1e9"}
BUDGET |= {"ACCLIMATE_BUDGET__PROCESS_REFILL_MS_PER_S": "1e6", "ACCLIMATE_BUDGET__PROCESS_CAPACITY_MS": "1e9"}


class Proxy:
    """Forwards connections to a port; `cut` resets those that are open."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._all: list[socket.socket] = []
        self.target = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Break every connection."""
        self.cuts += 1
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """End it all."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._server, *self._all):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                self._all += [near, far]
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._forward, args=pair, daemon=True))
                    self._threads[-1].start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    proxy = Proxy(int(target.rpartition(":")[2]))
    try:
        yield proxy
    finally:
        proxy.close()


def learnt(exported: ExportedSession) -> list[bytes]:
    return [tensor.values.tobytes() for tensor in (*exported.parameters, *exported.statistics)]


def pictures() -> list[Any]:
    return [picture(turn, ROWS, "contrast") for turn in range(COUNT)]


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_connection_that_is_cut_costs_no_answer_and_no_sample_is_learnt_from_twice(
    bundle_path: Path, blocking: bool
) -> None:
    def cut_now(place: int) -> bool:
        return place % 7 == 3

    def block(proxy: Proxy) -> list[Any]:
        with Client(proxy.target, timeout_seconds=60.0) as client:
            seen = []
            for place, answer in enumerate(client.session("digits", "cut").predict_stream(pictures(), in_flight=4)):
                seen.append(answer)
                if cut_now(place):
                    proxy.cut()
            return seen

    async def awaited(proxy: Proxy) -> list[Any]:
        async with AsyncClient(proxy.target, timeout_seconds=60.0) as client:
            seen: list[Any] = []
            async for answer in client.session("digits", "cut").predict_stream(pictures(), in_flight=4):
                seen.append(answer)
                if cut_now(len(seen) - 1):
                    proxy.cut()
            return seen

    with running(bundle_path, synchronous=True, environment=BUDGET) as daemon, Client(daemon.target) as direct:
        for name in ("cut", "twin"):
            direct.create_session("digits", name, **TENT)
        whole = [direct.session("digits", "twin").predict(array) for array in pictures()]
        with proxied(daemon.target) as proxy:
            seen = block(proxy) if blocking else asyncio.run(awaited(proxy))
            assert proxy.cuts == 3
        assert len({answer.request_id for answer in seen}) == COUNT
        cut, twin = (direct.get_session("digits", name) for name in ("cut", "twin"))
        assert (cut.updates, cut.version) == (twin.updates, twin.version)
        assert learnt(direct.export_session("digits", "cut")) == learnt(direct.export_session("digits", "twin"))
        # What was answered over a stream that stood is what the twin was answered.
        same = sum(a.logits.tobytes() == b.logits.tobytes() for a, b in zip(seen, whole, strict=True))
        assert same >= COUNT - 3 * 4


def test_a_daemon_that_is_killed_and_comes_back_goes_on_with_the_stream(
    bundle_path: Path, port: int, tmp_path: Path
) -> None:
    environment = {
        "ACCLIMATE_STORE__PATH": str(tmp_path / "sessions.db"),
        "ACCLIMATE_STORE__LOSS_COMMITS": "1",
    } | BUDGET
    with Client(f"127.0.0.1:{port}", timeout_seconds=90.0) as client:
        first = running(bundle_path, synchronous=True, grpc_port=port, environment=environment)
        daemon = first.__enter__()
        session = client.create_session("digits", "camera-1", **TENT)
        answers = session.predict_stream(pictures(), in_flight=4)
        seen = [next(answers) for _ in range(COUNT // 2)]
        daemon.stop(signal.SIGKILL)
        first.__exit__(None, None, None)
        with running(bundle_path, synchronous=True, grpc_port=port, environment=environment):
            seen += list(answers)
            assert len(seen) == COUNT
            view = session.get()
            assert view.state == "adapted"
            # What a crash may lose is bounded (1 s, 32 commits); the rest of the stream was learnt from.
            assert view.updates >= COUNT // 2 - 4


def test_a_session_that_was_not_kept_ends_its_stream(bundle_path: Path, port: int) -> None:
    with Client(f"127.0.0.1:{port}", timeout_seconds=90.0) as client:
        first = running(bundle_path, grpc_port=port)
        daemon = first.__enter__()
        answers = client.create_session("digits", "camera-1", **TENT).predict_stream(pictures(), in_flight=2)
        next(answers)
        daemon.stop()
        first.__exit__(None, None, None)
        with running(bundle_path, grpc_port=port), pytest.raises(SessionLost, match="started again"):
            list(answers)
