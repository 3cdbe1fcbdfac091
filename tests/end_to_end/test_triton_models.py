"""An unmodified `tritonclient.grpc` reads configuration and statistics, and loads and unloads models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from acclimate.runtime.client import Client
from acclimate.runtime.client.repository import model_index
from tests.end_to_end.daemons import Daemon, refused, running
from tests.runtime.digits import picture
from tests.runtime.shelves import placed, relaid, retrained

CONTROL = {"ACCLIMATE_REPOSITORY__REMOTE_CONTROL": "true"}


@pytest.fixture(scope="module")
def shelf(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    placed(bundle_path, folder / "one", "1")
    return folder


@pytest.fixture(scope="module")
def daemon(shelf: Path) -> Iterator[Daemon]:
    with running(repository=shelf, synchronous=True, environment=CONTROL) as up:
        yield up


@pytest.fixture(scope="module")
def remote(daemon: Daemon) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(daemon.target) as connected:
        yield connected


def infer(remote: triton.InferenceServerClient, rows: int = 2, **options: object) -> triton.InferResult:
    images = picture(3, rows)
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return remote.infer("digits", [tensor], **options)


def states(remote: triton.InferenceServerClient) -> dict[tuple[str, str], str]:
    index = remote.get_model_repository_index(as_json=True).get("models", [])
    return {(entry["name"], entry["version"]): entry["state"] for entry in index}


def test_configuration(remote: triton.InferenceServerClient) -> None:
    config = remote.get_model_config("digits", as_json=True)["config"]
    assert (config["name"], config["platform"], config["backend"]) == ("digits", "acclimate_onnx", "acclimate")
    assert config["max_batch_size"] == 512
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": ["1", "28", "28"]}]
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["10"]}]
    assert config["dynamic_batching"]["priority_levels"] == "3"
    assert config["instance_group"] == [{"name": "digits_0", "kind": "KIND_CPU", "count": 1}]
    assert config["parameters"]["task"]["string_value"] == "image-classification"
    assert len(infer(remote, 512).as_numpy("logits")) == 512
    with pytest.raises(InferenceServerException, match="B from 1 to 512"):
        infer(remote, 513)


def test_statistics_count_what_was_done(remote: triton.InferenceServerClient) -> None:
    def read() -> dict[str, Any]:
        return remote.get_inference_statistics("digits", as_json=True)["model_stats"][0]

    infer(remote, 3)
    before = read()
    for _ in range(4):
        infer(remote, 5)
    with pytest.raises(InferenceServerException):
        infer(remote, sequence_id="nobody")
    after = read()
    assert int(after["inference_count"]) - int(before["inference_count"]) == 20
    assert int(after["execution_count"]) - int(before["execution_count"]) == 4
    stats, was = after["inference_stats"], before["inference_stats"]
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert int(stats[phase]["count"]) - int(was[phase]["count"]) == 4, phase
    assert int(stats["fail"]["count"]) - int(was["fail"].get("count", 0)) == 1
    assert int(stats["compute_infer"]["ns"]) > int(was["compute_infer"]["ns"])
    parts = sum(int(stats[phase].get("ns", 0)) for phase in stats if phase not in ("success", "fail"))
    assert parts <= int(stats["success"]["ns"])
    fives = [batch for batch in after["batch_stats"] if batch["batch_size"] == "5"]
    assert int(fives[0]["compute_infer"]["count"]) >= 4
    assert int(after["last_inference"]) >= int(before["last_inference"]) > 1.7e12
    assert [entry["name"] for entry in remote.get_inference_statistics(as_json=True)["model_stats"]] == ["digits"]
    with pytest.raises(InferenceServerException, match="nowhere"):
        remote.get_inference_statistics("nowhere")


def test_models_are_loaded_replaced_and_unloaded(
    remote: triton.InferenceServerClient, shelf: Path, bundle_path: Path
) -> None:
    retrained(bundle_path, shelf / "two", "2")
    assert states(remote) == {("digits", "1"): "READY", ("digits", "2"): "UNAVAILABLE"}
    infer(remote, sequence_id="on", sequence_start=True)
    remote.load_model("digits")
    assert states(remote) == {("digits", "1"): "UNAVAILABLE", ("digits", "2"): "READY"}
    assert infer(remote).get_response().model_version == "2"
    assert infer(remote, model_version="2", sequence_id="on").get_response().model_version == "2"
    with pytest.raises(InferenceServerException, match="version"):
        infer(remote, model_version="1")
    statistics = remote.get_inference_statistics("digits", "2", as_json=True)["model_stats"][0]
    assert statistics["inference_count"] == "4"
    with pytest.raises(InferenceServerException, match="1 sessions"):
        remote.unload_model("digits")
    infer(remote, sequence_id="on", sequence_end=True)
    remote.unload_model("digits", unload_dependents=True)
    assert remote.get_model_repository_index(as_json=True).keys() == {"models"}
    with pytest.raises(InferenceServerException, match="not served") as gone:
        remote.is_model_ready("digits")
    assert gone.value.status() == "StatusCode.NOT_FOUND"
    older = {"parameters": {"acclimate_model_version": {"string_value": "1"}}}
    remote.load_model("digits", config=json.dumps(older))
    assert infer(remote).get_response().model_version == "1"


def test_sessions_that_do_not_fit_are_named_and_may_be_reset(
    remote: triton.InferenceServerClient, daemon: Daemon, shelf: Path, bundle_path: Path
) -> None:
    relaid(bundle_path, shelf / "three", "3")
    with Client(daemon.target) as client:
        session = client.create_session("digits", "learnt", recipe="tent", recipe_parameters={"batch_rows": 16})
        for turn in range(2):
            session.predict(picture(turn, 16, "contrast"))
        with pytest.raises(InferenceServerException, match="1 of 1 sessions") as refused:
            remote.load_model("digits")
        assert refused.value.status() == "StatusCode.FAILED_PRECONDITION"
        remote.load_model("digits", config=json.dumps({"parameters": {"acclimate_sessions": "reset"}}))
        assert session.get().state == "pristine"
        np.testing.assert_array_equal(
            session.predict(picture(3, 2), adapt=False).logits, infer(remote).as_numpy("logits")
        )
        session.delete()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": {"file:1/model.onnx": b"graph"}, "config": "{}"}, "operator's directories"),
        ({"config": '{"parameters": {"acclimate_session": "drop"}}'}, "acclimate_session"),
        ({"config": '{"parameters": {"acclimate_sessions": "keep"}}'}, "use one of"),
        ({"config": '{"parameters": {"acclimate_sessions": 3}}'}, "must be a string"),
        ({"config": '{"max_batch_size": 8}'}, "only parameters"),
        ({"config": "[" * 5000}, "cannot be used"),
        ({"config": '{"parameters": 3}'}, "cannot be used"),
        ({"config": " " * 20_000}, "at most 16384"),
    ],
)
def test_what_a_load_may_not_say(
    remote: triton.InferenceServerClient, options: dict[str, object], message: str
) -> None:
    before = states(remote)
    with pytest.raises(InferenceServerException, match=message) as refused:
        remote.load_model("digits", **options)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert states(remote) == before


@pytest.mark.parametrize("name", ["../two", "/etc", "two/../two", "", "letters"])
def test_a_path_is_no_model(remote: triton.InferenceServerClient, name: str) -> None:
    for change in (remote.load_model, remote.unload_model):
        with pytest.raises(InferenceServerException) as refused:
            change(name)
        assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_unless_the_operator_allows_it_no_client_changes_models(bundle_path: Path) -> None:
    with running(bundle_path) as up, triton.InferenceServerClient(up.target) as remote:
        for change in (remote.load_model, remote.unload_model):
            with pytest.raises(InferenceServerException, match=r"repository\.remote_control") as refused:
                change("digits")
            assert refused.value.status() == "StatusCode.FAILED_PRECONDITION"
        assert states(remote) == {("digits", "1"): "READY"}


def test_the_command_lists_loads_and_unloads(bundle_path: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return refused("model", *arguments, "--target", up.target)

    placed(bundle_path, tmp_path / "one", "1")
    with running(repository=tmp_path, environment=CONTROL) as up, Client(up.target) as client:
        placed(bundle_path, tmp_path / "two", "2")
        assert [(e["version"], e["state"]) for e in json.loads(run("list", "--json").stdout)] == [
            ("1", "READY"), ("2", "UNAVAILABLE"),
        ]  # fmt: skip
        assert "UNAVAILABLE" in run("list").stdout
        assert run("load", "digits").returncode == 0
        assert run("load", "digits", "--version", "1", "--sessions", "drop").stdout == "digits is served\n"
        client.create_session("digits", "open")
        kept = run("unload", "digits")
        assert (kept.returncode, "1 sessions" in kept.stderr) == (1, True)
        assert run("unload", "digits", "--sessions", "drop").returncode == 0
        assert [entry.state for entry in model_index(client)] == ["UNAVAILABLE"] * 2
        assert model_index(client, ready=True) == ()


def test_the_configuration_can_say_sequences(bundle_path: Path) -> None:
    environment = {"ACCLIMATE_OPEN_INFERENCE__SCHEDULING": "sequence", "ACCLIMATE_SCHEDULER__MAX_DELAY_MS": "1.5"}
    with running(bundle_path, environment=environment) as up, triton.InferenceServerClient(up.target) as remote:
        config = remote.get_model_config("digits", "1", as_json=True)["config"]
        assert "dynamic_batching" not in config
        assert config["sequence_batching"]["direct"]["max_queue_delay_microseconds"] == "1500"
