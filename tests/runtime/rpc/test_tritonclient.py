"""An unmodified tritonclient, with its own `inference` stubs in this very process, gets what it expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from acclimate.runtime.rpc.oip_servicer import EXTENSIONS
from acclimate.runtime.rpc.reflection import PUBLIC
from tests.runtime.rpc.loopback import CLASSES, FEATURES, MODEL, Loopback, engine, samples


@pytest.fixture(scope="module")
def client(loopback: Loopback) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(loopback.target) as connected:
        yield connected


def inputs(array: np.ndarray, datatype: str = "FP32") -> list[triton.InferInput]:  # type: ignore[type-arg]
    tensor = triton.InferInput("features", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")


def test_metadata(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "acclimate"
    assert server["extensions"] == list(EXTENSIONS)
    model = client.get_model_metadata(MODEL, as_json=True)
    assert model["platform"] == "acclimate_onnx"
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": ["-1", str(FEATURES)]}]
    assert model["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": ["-1", str(CLASSES)]}]


def test_stateless_inference_equals_the_frozen_model(client: triton.InferenceServerClient) -> None:
    array = samples()
    result = client.infer(MODEL, inputs(array), request_id="mine", outputs=[triton.InferRequestedOutput("logits")])
    np.testing.assert_array_equal(result.as_numpy("logits"), engine().frozen(array))
    assert result.get_response().id == "mine"
    assert result.get_response().parameters["acclimate_version"].int64_param == 0


@pytest.mark.parametrize("sequence_id", [42, "camera-7"])
def test_a_sequence_is_a_session(
    client: triton.InferenceServerClient, loopback: Loopback, sequence_id: int | str
) -> None:
    for step in range(10):
        client.infer(
            MODEL, inputs(samples(8, step)), sequence_id=sequence_id, sequence_start=step == 0,
            priority=1, timeout=5_000_000, headers={"x-test": "1"},
        )  # fmt: skip
    view = loopback.run(loopback.service.get_session(MODEL, str(sequence_id)))
    assert view.requests == 10
    assert view.samples == 80
    client.infer(MODEL, inputs(samples()), sequence_id=sequence_id, sequence_end=True)
    with pytest.raises(InferenceServerException, match="does not exist") as caught:
        client.infer(MODEL, inputs(samples()), sequence_id=sequence_id)
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_our_own_parameters_ride_along(client: triton.InferenceServerClient, loopback: Loopback) -> None:
    parameters = {"acclimate_recipe": "norm", "acclimate_adapt": False}
    client.infer(MODEL, inputs(samples()), sequence_id="own", sequence_start=True, parameters=parameters)
    view = loopback.run(loopback.service.get_session(MODEL, "own"))
    assert (view.recipe, view.buffered) == ("norm", 0)


def test_compression_and_asynchronous_calls(client: triton.InferenceServerClient) -> None:
    array = samples(64)
    for algorithm in ("gzip", "deflate"):
        result = client.infer(MODEL, inputs(array), compression_algorithm=algorithm)
        np.testing.assert_allclose(result.as_numpy("logits"), engine().frozen(array), rtol=1e-6)


def test_refusals_reach_the_client(client: triton.InferenceServerClient) -> None:
    cases = [
        (MODEL, inputs(samples().astype(np.float64), "FP64"), "StatusCode.INVALID_ARGUMENT"),
        (MODEL, inputs(samples()[:, :2].copy()), "StatusCode.INVALID_ARGUMENT"),
        ("nowhere", inputs(samples()), "StatusCode.NOT_FOUND"),
    ]
    for model, tensors, status in cases:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, tensors)
        assert caught.value.status() == status


UNSERVED_CALLS = [
    lambda client: client.get_system_shared_memory_status(),
    lambda client: client.register_system_shared_memory("r", "/r", 64),
    lambda client: client.unregister_system_shared_memory("r"),
    lambda client: client.get_cuda_shared_memory_status(),
    lambda client: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64),
    lambda client: client.unregister_cuda_shared_memory("r"),
    lambda client: client.get_trace_settings(),
    lambda client: client.get_log_settings(),
]


@pytest.mark.parametrize("call", UNSERVED_CALLS)
def test_what_is_not_served_says_so(client: triton.InferenceServerClient, call: Any) -> None:
    with pytest.raises(InferenceServerException, match="here") as caught:
        call(client)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_every_message_has_tritons_fields() -> None:
    """Every field of every message of ours is Triton's of that number, name, type and cardinality."""
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    for file in PUBLIC:
        for name, message in file.message_types_by_name.items():
            for own in message.fields:
                if (name, own.name) == ("ModelMetadataResponse", "properties"):
                    continue
                other = theirs[name].fields_by_name[own.name]
                assert (own.number, own.type, own.is_repeated) == (other.number, other.type, other.is_repeated), own
