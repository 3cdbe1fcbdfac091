"""ONNX files may name other files. A bundle's may name its own weights and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from acclimate.adapters.manifest import FROZEN_FILE, WEIGHTS_FILE
from acclimate.runtime.bundle import BundleError, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_external import MalformedModel, external_initializers
from tests.hostile.bundles import copied, drop, edit_manifest, replace


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """With every weight inside its graph, so that each test decides what lies outside."""
    own = copied(bundle_path, tmp_path / "bundle")
    for path in sorted(own.glob("*.onnx")):
        replace(own, path.name, onnx.load(path).SerializeToString())
    (own / WEIGHTS_FILE).unlink()
    edit_manifest(own, drop("files", WEIGHTS_FILE))
    return own


def refused(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        OnnxEngine(read_bundle(bundle), OnnxOptions())
    return str(caught.value)


def outside(array: np.ndarray, name: str, location: str, offset: int = 0) -> TensorProto:
    """A tensor whose values lie in a file."""
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def largest(model: onnx.ModelProto) -> TensorProto:
    return max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def moved_out(bundle: Path, location: str) -> np.ndarray:
    """Take the values of the largest initializer of `frozen.onnx` out of it, and have it name `location`."""
    model = onnx.load(bundle / FROZEN_FILE)
    tensor = largest(model)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(outside(array, tensor.name, location))
    replace(bundle, FROZEN_FILE, model.SerializeToString())
    return array


@pytest.mark.parametrize("where", ["../secret", "{folder}/secret", "secret", "*/_ORT_MEM_ADDR_/*", ""])
def test_no_other_file_is_read(bundle: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there, and holds what the graph would need to run."""
    array = moved_out(bundle, where.format(folder=bundle.parent))
    for folder in (bundle.parent, bundle):
        (folder / "secret").write_bytes(array.tobytes())
    monkeypatch.chdir(bundle)
    message = refused(bundle)
    assert str(bundle / FROZEN_FILE) in message
    assert "only in 'weights.safetensors'" in message


def test_the_weights_that_a_graph_names_have_to_be_listed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name in the working directory is no part of the bundle."""
    array = moved_out(bundle, WEIGHTS_FILE)
    (bundle / WEIGHTS_FILE).write_bytes(array.tobytes())
    monkeypatch.chdir(bundle)
    assert "which has no such tensor" in refused(bundle)


def test_listed_weights_are_used(bundle: Path) -> None:
    name = largest(onnx.load(bundle / FROZEN_FILE)).name
    replace(bundle, WEIGHTS_FILE, save({name: moved_out(bundle, WEIGHTS_FILE)}))
    OnnxEngine(read_bundle(bundle), OnnxOptions()).close()


@pytest.mark.parametrize(
    "change", [lambda array: array[:1], lambda array: array.astype(np.float64)], ids=["a shape", "a type"]
)
def test_weights_that_do_not_fit_are_refused(bundle: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    name = largest(onnx.load(bundle / FROZEN_FILE)).name
    replace(bundle, WEIGHTS_FILE, save({name: np.ascontiguousarray(change(moved_out(bundle, WEIGHTS_FILE)))}))
    assert "ONNX Runtime cannot load it" in refused(bundle)


def test_a_weights_file_that_is_none_is_refused(bundle: Path) -> None:
    replace(bundle, WEIGHTS_FILE, b"\0" * 64)
    assert f"{bundle / WEIGHTS_FILE}: not a readable safetensors file" in refused(bundle)


PAIR = np.zeros(2, np.float32)


def in_an_attribute(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [])


def in_a_subgraph(tensor: TensorProto) -> onnx.GraphProto:
    branch = helper.make_graph([], "branch", [], [], [tensor])
    return helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=branch)], "g", [], [])


def in_a_sparse_tensor(tensor: TensorProto) -> onnx.GraphProto:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.add().values.CopyFrom(tensor)
    return graph


@pytest.mark.parametrize("place", [in_an_attribute, in_a_subgraph, in_a_sparse_tensor])
def test_tensors_elsewhere_are_found(place: Callable[[TensorProto], onnx.GraphProto]) -> None:
    model = helper.make_model(place(outside(PAIR, "hidden", WEIGHTS_FILE)))
    with pytest.raises(MalformedModel, match="tensor 'hidden' lies in"):
        external_initializers(model.SerializeToString(), WEIGHTS_FILE)


def test_a_function_is_looked_into() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    node = helper.make_node("Constant", [], ["y"], value=outside(PAIR, "hidden", "elsewhere"))
    model.functions.append(helper.make_function("d", "F", [], ["y"], [node], [helper.make_opsetid("", 20)]))
    with pytest.raises(MalformedModel, match="'hidden'"):
        external_initializers(model.SerializeToString(), WEIGHTS_FILE)


def test_a_second_location_does_not_hide_behind_the_first() -> None:
    tensor = outside(PAIR, "w", WEIGHTS_FILE)
    tensor.external_data.add(key="location", value="../secret")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(MalformedModel, match="secret"):
        external_initializers(model.SerializeToString(), WEIGHTS_FILE)


def test_a_nesting_without_end_is_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(28):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], [])
    with pytest.raises(MalformedModel, match="nested"):
        external_initializers(helper.make_model(graph).SerializeToString(), WEIGHTS_FILE)


def test_the_names_are_those_that_the_onnx_package_finds() -> None:
    tensors = [outside(PAIR, "a", WEIGHTS_FILE), numpy_helper.from_array(PAIR, "b"), outside(PAIR, "c", WEIGHTS_FILE)]
    model = helper.make_model(helper.make_graph([], "g", [], [], tensors))
    assert external_initializers(model.SerializeToString(), WEIGHTS_FILE) == ("a", "c")


@given(st.binary(max_size=200))
def test_no_bytes_are_a_crash(content: bytes) -> None:
    try:
        assert isinstance(external_initializers(content, WEIGHTS_FILE), tuple)
    except MalformedModel as error:
        assert str(error)


@given(data=st.data())
def test_no_damage_to_a_model_is_a_crash(bundle_path: Path, data: st.DataObject) -> None:
    content = bytearray((bundle_path / FROZEN_FILE).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        external_initializers(bytes(content), WEIGHTS_FILE)
    except MalformedModel as error:
        assert str(error)
