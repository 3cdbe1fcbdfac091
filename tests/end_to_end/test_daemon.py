"""The daemon's life: ready, serving, draining on a signal, and refusing to start with a clear word."""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.manifest import MANIFEST_FILE, REQUIRED_FILES
from acclimate.runtime.client import Client, ClientError
from benchmarks._rpcs import LANGUAGE
from tests.end_to_end.daemons import Daemon, arguments, refused, running
from tests.hostile.bundles import copied, edit_manifest, flip
from tests.polling import until
from tests.runtime.digits import picture

PORT_TAKEN, BAD_BUNDLE, BAD_CONFIG = 4, 5, 2


def test_the_ready_line_says_where_and_what(daemon: Daemon, client: Client) -> None:
    ready = daemon.ready
    assert {"event": "ready", "models": ["digits", LANGUAGE], "mode": "synchronous"}.items() <= ready.items()
    assert ready["pid"] == daemon.process.pid
    assert ready["grpc_port"] != ready["http_port"]
    assert daemon.get("/healthz") == "ok\n"
    assert daemon.get("/readyz") == "ready\n"
    assert client.server_info().pid == ready["pid"]


def test_the_serving_process_is_free_of_the_training_stack(client: Client) -> None:
    client.predict("digits", picture(0, 4))
    info = client.server_info()
    assert not (info.torch_imported or info.transformers_imported or info.onnx_imported)
    assert 0 < info.rss_bytes < 150e6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_answers_what_is_queued_and_exits_cleanly(bundle_path: Path, number: signal.Signals) -> None:
    # A long delay for company, so that the requests surely stand in the queue when the signal comes.
    waiting = {"ACCLIMATE_SCHEDULER__MAX_DELAY_MS": "3600000", "ACCLIMATE_SCHEDULER__MAX_BATCH": "4096"}
    with (
        running(bundle_path, environment=waiting) as daemon,
        Client(daemon.target) as client,
        ThreadPoolExecutor(5) as pool,
    ):
        events = client.watch("digits", resume_seconds=0)
        answers = [pool.submit(client.predict, "digits", picture(seed, 2)) for seed in range(5)]
        until(lambda: daemon.metrics()["acclimate_queue_depth", ()] == 5, "five requests to stand in the queue")
        assert daemon.stop(number) == 0
        assert [future.result().logits.shape for future in answers] == [(2, 10)] * 5
        assert list(events) == [], "the watch ends, and ends well"
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            client.predict("digits", picture(0), timeout_seconds=0.5)


def test_requests_that_come_with_the_signal_are_answered_or_told_to_go_elsewhere(bundle_path: Path) -> None:
    images = [picture(seed, 100) for seed in range(8)]
    begun = threading.Barrier(len(images) + 1)
    with running(bundle_path) as daemon, Client(daemon.target) as client, ThreadPoolExecutor(len(images)) as pool:
        client.predict("digits", images[0])

        def ask(sent: np.ndarray) -> str:
            begun.wait()
            try:
                return str(client.predict("digits", sent, timeout_seconds=3.0).logits.shape)
            except ClientError as refused:
                return refused.code

        outcomes = [pool.submit(ask, sent) for sent in images]
        begun.wait()
        assert daemon.stop() == 0
        assert {future.result() for future in outcomes} <= {"(100, 10)", "UNAVAILABLE"}


@pytest.mark.parametrize("option", ["grpc_port", "http_port"])
def test_a_port_in_use_is_named(bundle_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = refused(*arguments(bundle_path, **{option: port}))
    assert ended.returncode == PORT_TAKEN
    assert str(port) in ended.stderr
    assert f"--{option.replace('_', '-')}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def damages() -> dict[str, tuple[str, object]]:
    found: dict[str, tuple[str, object]] = {
        f"one bit of {name}": (name, lambda bundle, name=name: flip(bundle / name)) for name in REQUIRED_FILES
    }
    return found | {
        "no forward graph": ("forward.onnx", lambda bundle: (bundle / "forward.onnx").unlink()),
        "a manifest that is not JSON": (MANIFEST_FILE, lambda bundle: (bundle / MANIFEST_FILE).write_text("{")),
        "a path out of the bundle": (
            "../../x",
            lambda bundle: edit_manifest(bundle, lambda d: d["files"].update({"../../x": d["files"]["vjp.onnx"]})),
        ),
    }


@pytest.mark.parametrize("case", damages())
def test_a_damaged_bundle_is_refused_by_the_name_of_the_file(bundle_path: Path, tmp_path: Path, case: str) -> None:
    named, damage = damages()[case]
    bundle = copied(bundle_path, tmp_path / "bundle")
    damage(bundle)  # type: ignore[operator]
    ended = refused(*arguments(bundle))
    assert ended.returncode == BAD_BUNDLE
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_two_bundles_of_one_name_are_refused(bundle_path: Path, tmp_path: Path) -> None:
    ended = refused(*arguments(bundle_path, copied(bundle_path, tmp_path / "twin")))
    assert ended.returncode == BAD_BUNDLE
    assert "'digits' is served already" in ended.stderr


def test_two_models_are_served_side_by_side(bundle_path: Path, tmp_path: Path) -> None:
    twin = copied(bundle_path, tmp_path / "twin")
    edit_manifest(twin, lambda document: document.update(name="twin"))
    with running(bundle_path, twin) as daemon, Client(daemon.target) as client:
        assert daemon.ready["models"] == ["digits", "twin"]
        for model in ("digits", "twin"):
            client.create_session(model, "same")
        client.predict("twin", picture(1, 3), parameters={"sequence_id": "same"})
        assert [view.samples for view in client.list_sessions()] == [0, 3]


def test_nothing_to_serve_is_a_configuration_error() -> None:
    assert refused(*arguments()).returncode == BAD_CONFIG
