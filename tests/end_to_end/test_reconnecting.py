"""A client whose daemon is stopped and started again on the same port."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.client import AsyncClient, Client, ClientError, EventKind, SessionLost
from tests.end_to_end.daemons import running
from tests.polling import until, until_async
from tests.runtime.digits import picture


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago: one that both daemons of a test can have, one after the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[Any]:
    """Run `work` in a thread of its own; what is yielded has its result."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_calls_wait_for_a_daemon_that_comes_back(bundle_path: Path, port: int, number: signal.Signals) -> None:
    with Client(f"127.0.0.1:{port}", timeout_seconds=60.0) as client:
        with running(bundle_path, grpc_port=port) as first:
            stateless = client.predict("digits", picture(0))
            handle = client.create_session("digits", "camera-1", recipe="tent")
            handle.predict(picture(0))
            first.stop(number)
        with beside(lambda: client.predict("digits", picture(0))) as waiting, running(bundle_path, grpc_port=port):
            assert waiting.result(60).logits.tobytes() == stateless.logits.tobytes()
            with pytest.raises(SessionLost, match="started again after the session had been created") as caught:
                handle.predict(picture(0))
            assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
            assert caught.value.metadata["session"] == "camera-1"
            client.create_session("digits", "camera-1", recipe="tent")
            assert handle.predict(picture(0)).parameters["acclimate_session"] == "camera-1"
            with pytest.raises(ClientError) as never:
                client.session("digits", "never").get()
            assert not isinstance(never.value, SessionLost)


def test_a_handle_of_a_session_that_somebody_deleted_says_just_that(bundle_path: Path) -> None:
    with running(bundle_path) as daemon, Client(daemon.target) as client:
        handle = client.create_session("digits", "camera-1")
        client.delete_session("digits", "camera-1")
        with pytest.raises(ClientError) as caught:
            handle.get()
        assert type(caught.value) is ClientError


def test_watches_are_taken_up_again(bundle_path: Path, port: int) -> None:
    with Client(f"127.0.0.1:{port}") as client:
        with running(bundle_path, grpc_port=port) as first:
            watch = client.watch("digits", resume_seconds=60.0)
            client.create_session("digits", "before")
            assert next(watch).kind is EventKind.CREATED
            first.stop(signal.SIGKILL)
        with beside(lambda: next(watch)) as event, running(bundle_path, grpc_port=port) as second:
            until(lambda: watch.resumed == 1, "the watch to stand again")
            client.create_session("digits", "after")
            assert (event.result(60).kind, event.result(60).session_id) == (EventKind.CREATED, "after")
            second.stop()
        closing = threading.Timer(0.2, watch.close)
        closing.start()
        assert list(watch) == [], "a watch that is closed while it waits for a daemon ends"
        closing.join()


def test_a_watch_gives_up_after_its_time(bundle_path: Path) -> None:
    with running(bundle_path) as daemon, Client(daemon.target) as client:
        drained, killed = (client.watch(resume_seconds=seconds) for seconds in (0.5, 0.5))
        with beside(lambda: list(drained)) as ended:
            daemon.stop()
            assert ended.result(60) == []
        assert list(killed) == []
    with running(bundle_path) as daemon, Client(daemon.target) as client:
        watch = client.watch(resume_seconds=0.5)
        daemon.stop(signal.SIGKILL)
        with pytest.raises(ClientError) as caught:
            next(watch)
        assert caught.value.code == "UNAVAILABLE"


def test_the_asyncio_client_does_the_same(bundle_path: Path, port: int) -> None:
    async def main() -> None:
        async with AsyncClient(f"127.0.0.1:{port}", timeout_seconds=60.0) as client:
            first = running(bundle_path, grpc_port=port)
            daemon = await asyncio.to_thread(first.__enter__)
            handle = await client.create_session("digits", "camera-1")
            watch = await client.watch("digits", resume_seconds=60.0)
            await asyncio.to_thread(daemon.stop, signal.SIGKILL)
            first.__exit__(None, None, None)
            waiting = asyncio.ensure_future(client.predict("digits", picture(0)))
            event = asyncio.ensure_future(anext(watch))
            second = running(bundle_path, grpc_port=port)
            daemon = await asyncio.to_thread(second.__enter__)
            assert (await waiting).labels.shape == (1,)
            with pytest.raises(SessionLost):
                await handle.get()
            await until_async(lambda: watch.resumed == 1, "the watch to stand again")
            await client.create_session("digits", "after")
            assert (await event).session_id == "after"
            await asyncio.to_thread(daemon.stop)
            second.__exit__(None, None, None)
            with pytest.raises(ClientError, match="no connection to") as caught:
                await client.predict("digits", picture(0), timeout_seconds=0.5)
            assert caught.value.code == "UNAVAILABLE"

    asyncio.run(main())


def test_a_client_told_not_to_reconnect_fails_at_once(bundle_path: Path) -> None:
    with running(bundle_path) as daemon, Client(daemon.target, reconnect=False, attempts=1) as client:
        client.predict("digits", picture(0))
        daemon.stop()
        with pytest.raises(ClientError) as caught:
            client.predict("digits", picture(0), timeout_seconds=600.0)
        assert caught.value.code == "UNAVAILABLE"
