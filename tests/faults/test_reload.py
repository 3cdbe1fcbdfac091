"""Bundles that are damaged, half written or gone when the daemon reads them again: what is served is served on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from acclimate.adapters.manifest import FORWARD_FILE, MANIFEST_FILE, SOURCE_FILE
from acclimate.runtime.client import Client
from tests.end_to_end.daemons import Daemon
from tests.hostile.bundles import flip, replace
from tests.polling import until
from tests.runtime.digits import picture
from tests.runtime.shelves import placed, retrained

ROWS = 16


@pytest.fixture
def remote(daemon: Daemon) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(daemon.target) as connected:
        yield connected


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.target) as connected:
        yield connected


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit in a graph": lambda bundle: flip(bundle / FORWARD_FILE),
    "a flipped bit in the source": lambda bundle: flip(bundle / SOURCE_FILE),
    "half a graph": lambda bundle: half(bundle / FORWARD_FILE),
    "half a manifest": lambda bundle: half(bundle / MANIFEST_FILE),
    "no manifest": lambda bundle: (bundle / MANIFEST_FILE).unlink(),
    "no graph": lambda bundle: (bundle / FORWARD_FILE).unlink(),
    "a graph of other bytes under a right hash": lambda bundle: replace(bundle, FORWARD_FILE, b"no graph"),
    "no directory": shutil.rmtree,
}


def taught(client: Client) -> tuple[np.ndarray, int]:
    """A session that has learnt something, what it answers and the version that does."""
    session = client.create_session("digits", "mine", recipe="tent", recipe_parameters={"batch_rows": ROWS})
    for turn in range(3):
        session.predict(picture(turn, ROWS, "contrast"))
    reply = session.predict(picture(9, 4), adapt=False)
    assert reply.version == 3
    return reply.logits, reply.version


def loads(daemon: Daemon, outcome: str) -> float:
    return daemon.metrics()["acclimate_model_loads_total", (("outcome", outcome),)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bundle_leaves_the_old_model_and_its_sessions_as_they_were(
    daemon: Daemon, shelf: Path, client: Client, remote: triton.InferenceServerClient, bundle_path: Path, damage: str
) -> None:
    logits, version = taught(client)
    DAMAGE[damage](shelf / "digits")
    with pytest.raises(InferenceServerException) as refused:
        remote.load_model("digits")
    assert refused.value.status() in ("StatusCode.FAILED_PRECONDITION", "StatusCode.NOT_FOUND")
    assert str(shelf) not in str(refused.value)
    if (shelf / "digits").exists():
        daemon.process.send_signal(signal.SIGHUP)
    after = client.session("digits", "mine").predict(picture(9, 4), adapt=False)
    assert after.version == version
    np.testing.assert_array_equal(after.logits, logits)
    assert remote.is_model_ready("digits")
    # Mended, it is read again; and a better one takes over, sessions and all.
    shutil.rmtree(shelf / "digits", ignore_errors=True)
    placed(bundle_path, shelf / "digits")
    remote.load_model("digits")
    retrained(bundle_path, shelf / "better", "2")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: ready(remote, "digits", "2"), "version 2 to be served")
    assert client.session("digits", "mine").predict(picture(9, 4), adapt=False).version == version + 1


def test_sighup_loads_what_is_new_and_unloads_what_is_gone(
    daemon: Daemon, shelf: Path, remote: triton.InferenceServerClient, client: Client, bundle_path: Path
) -> None:
    placed(bundle_path, shelf / "letters", "1", "letters")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: ready(remote, "letters"), "a new model to be served")
    client.create_session("letters", "keeps-it")
    shutil.rmtree(shelf / "letters")
    (shelf / "broken").mkdir()
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: loads(daemon, "unchanged") == 2, "the second reload")
    (shelf / "broken").rmdir()
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: unloads(daemon, "refused") == 1, "the refusal: it has a session")
    assert ready(remote, "letters")
    client.delete_session("letters", "keeps-it")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: not ready(remote, "letters"), "the model to be gone")
    assert unloads(daemon, "unloaded") == 1
    assert ready(remote, "digits")
    assert daemon.stop() == 0


def unloads(daemon: Daemon, outcome: str) -> float:
    return daemon.metrics()["acclimate_model_unloads_total", (("outcome", outcome),)]


def ready(remote: triton.InferenceServerClient, model: str, version: str = "") -> bool:
    try:
        served: bool = remote.is_model_ready(model, version)
    except InferenceServerException as error:
        assert error.status() == "StatusCode.NOT_FOUND"
        return False
    return served
