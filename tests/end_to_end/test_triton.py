"""An unmodified `tritonclient.grpc` against the daemon: metadata, health, stateless answers, sequences as sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.end_to_end.daemons import Daemon
from tests.runtime.digits import picture


@pytest.fixture(scope="module")
def remote(daemon: Daemon) -> Iterator[triton.InferenceServerClient]:
    connected = triton.InferenceServerClient(daemon.target)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def frozen(bundle_path: Path) -> OnnxEngine:
    """The same bundle in this process, to compare with."""
    return OnnxEngine(read_bundle(bundle_path), OnnxOptions())


def infer(remote: triton.InferenceServerClient, images: np.ndarray, **options: Any) -> triton.InferResult:
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return remote.infer("digits", [tensor], outputs=[triton.InferRequestedOutput("logits")], **options)


def version(result: triton.InferResult) -> int:
    number: int = result.get_response().parameters["acclimate_version"].int64_param
    return number


def test_health_and_metadata(remote: triton.InferenceServerClient) -> None:
    assert remote.is_server_live()
    assert remote.is_server_ready()
    assert remote.is_model_ready("digits")
    server, model = remote.get_server_metadata(as_json=True), remote.get_model_metadata("digits", as_json=True)
    assert server["name"] == "acclimate"
    assert "sequence" in server["extensions"]
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": ["-1", "1", "28", "28"]}]
    assert model["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": ["-1", "10"]}]


def test_stateless_answers_are_the_frozen_models(remote: triton.InferenceServerClient, frozen: OnnxEngine) -> None:
    images = picture(1, 9)
    np.testing.assert_array_equal(infer(remote, images).as_numpy("logits"), frozen.frozen(images))


@pytest.mark.parametrize("given", [4711, "hall-2"])
def test_a_sequence_is_a_session_that_adapts_and_ends(
    remote: triton.InferenceServerClient, client: Client, frozen: OnnxEngine, given: int | str
) -> None:
    images, chosen = picture(2, 16, "contrast"), {"acclimate_recipe": "tent"}
    first = infer(remote, images, sequence_id=given, sequence_start=True, parameters=chosen)
    np.testing.assert_array_equal(first.as_numpy("logits"), frozen.frozen(images))
    second = infer(remote, images, sequence_id=given)
    third = infer(remote, images, sequence_id=given)
    assert [version(result) for result in (first, second, third)] == [0, 0, 1]
    assert not np.array_equal(third.as_numpy("logits"), first.as_numpy("logits"))
    view = client.get_session("digits", str(given))
    assert (view.recipe, view.state, view.updates, view.samples) == ("tent", "adapted", 1, 48)
    again = infer(remote, images, sequence_id=given, sequence_start=True)
    np.testing.assert_array_equal(again.as_numpy("logits"), first.as_numpy("logits"))
    infer(remote, images, sequence_id=given, sequence_end=True)
    with pytest.raises(InferenceServerException, match="does not exist") as gone:
        infer(remote, images, sequence_id=given)
    assert gone.value.status() == "StatusCode.NOT_FOUND"


def test_two_sequences_adapt_apart(remote: triton.InferenceServerClient, client: Client) -> None:
    for turn in range(3):
        for name, weather in (("one", "contrast"), ("other", "noise")):
            infer(remote, picture(turn, 16, weather), sequence_id=name, sequence_start=turn == 0)
    probe = picture(99, 8)
    answers = [client.session("digits", name).predict(probe, adapt=False).logits for name in ("one", "other")]
    assert not np.array_equal(*answers)
    for name in ("one", "other"):
        client.delete_session("digits", name)
