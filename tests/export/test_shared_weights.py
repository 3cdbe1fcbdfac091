"""What several graphs read is written once, and every graph still opens from the folder with plain ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from acclimate.adapters.manifest import WEIGHTS_FILE
from acclimate.export import BundleSpec, compile_model
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.graph import Graph
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import first_output, session
from acclimate.export.shared_weights import LEAST_BYTES, shared_weights
from acclimate.export.trace import Preprocessing, traced
from acclimate.export.verify import Limits
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.export.words import CLASSES, LENGTH, text_net, texts, tokens

LARGE = np.arange(LEAST_BYTES, dtype=np.float32)


@pytest.fixture(scope="module")
def graphs() -> BundleGraphs:
    model = with_sites(traced(text_net(), Preprocessing(), (LENGTH,), np.dtype(np.int64)))
    return BundleGraphs.of(Quantized.of(model, tokens(64)), 1.5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shared") / "texts"
    model = text_net()
    # Three points of 64 samples are two of them.
    spec = BundleSpec(name="texts", classes=CLASSES, limits=Limits(int8_points=5.0), precisions=("fp16",))
    compile_model(model, texts(model), spec, out)
    return out


def holding(**constants: np.ndarray) -> Graph:
    return Graph(constants=dict(constants))


def test_only_equal_large_constants_of_two_graphs_are_shared() -> None:
    small = np.zeros(3, np.float32)
    first = holding(both=LARGE, once=LARGE, other=LARGE, small=small)
    second = holding(both=LARGE.copy(), other=LARGE + 1, small=small)
    shared = shared_weights([first, second])
    assert set(shared.places) == {"both"}
    place = shared.places["both"]
    assert shared.content[place.offset : place.offset + place.length] == LARGE.tobytes()


def test_nothing_shared_is_no_file() -> None:
    assert not shared_weights([holding(x=LARGE), holding(y=LARGE)]).places


def test_matrices_lie_in_one_file_alone(graphs: BundleGraphs) -> None:
    files = graphs.serialized()
    matrices = {name: array for name, array in graphs.vjp.constants.items() if name.endswith(".int8")}
    stored = load(files[WEIGHTS_FILE])
    large = {name: array for name, array in matrices.items() if array.nbytes >= LEAST_BYTES}
    assert len(large) == 2
    for name, array in large.items():
        np.testing.assert_array_equal(stored[name], array)
        assert all(array.tobytes() not in content for file, content in files.items() if file != WEIGHTS_FILE)
    assert "embedding.weight" in stored


def test_every_graph_opens_from_the_folder_and_answers_as_before(graphs: BundleGraphs, tmp_path: Path) -> None:
    for name, content in graphs.serialized().items():
        (tmp_path / name).write_bytes(content)
    inputs = tokens(8, seed=1)
    opened = session(tmp_path / "frozen.onnx")
    np.testing.assert_array_equal(first_output(opened, inputs), first_output(session(graphs.frozen), inputs))
    for name in ("forward", "observe", "vjp"):
        session(tmp_path / f"{name}.onnx")


def test_the_engine_answers_what_the_folder_answers(bundle: Path) -> None:
    inputs = tokens(8, seed=2)
    read = read_bundle(bundle)
    opened = session(bundle / "frozen.onnx")
    engine = OnnxEngine(read, OnnxOptions(intra_op_threads=1))
    np.testing.assert_array_equal(engine.frozen(inputs), first_output(opened, inputs))
    folded = engine.fold(engine.source.theta, engine.source.stats)
    np.testing.assert_array_equal(engine.predict(inputs, folded), engine.frozen(inputs))
    engine.close()


def test_half_precision_is_served_from_the_same_weights(bundle: Path) -> None:
    from acclimate.adapters.requests import Forward, Gradient, Rows

    inputs = tokens(8, seed=2)
    read = read_bundle(bundle)
    single, half = (OnnxEngine(read, OnnxOptions(intra_op_threads=1, precision=p)) for p in ("float32", "float16"))
    source = single.source
    theta = np.repeat(source.theta[None], 8, 0) + 0.1
    rows = Rows(inputs, theta, np.zeros((8, 0), np.float32), np.arange(8), np.ones(8, np.float32))
    request = Gradient(rows, np.eye(8, len(CLASSES), dtype=np.float32))
    expected, got = (engine.vjp(request) for engine in (single, half))
    for one, other in ((expected.grad_theta, got.grad_theta), (expected.logits, got.logits)):
        error = np.abs(one - other).max() / np.abs(one).max()
        assert 0 < error < 5e-3
    folded = half.fold(theta[0], source.stats)
    moved = single.forward(Forward(rows)).logits
    np.testing.assert_allclose(half.predict(inputs, folded), moved, rtol=0, atol=5e-3 * np.abs(moved).max())
    assert np.abs(half.frozen(inputs) - half.predict(inputs, half.fold(source.theta, source.stats))).max() < 1e-2


def test_a_merged_session_stands_alone(bundle: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from acclimate.export.adapted import write_merged

    engine = OnnxEngine(read_bundle(bundle), OnnxOptions(intra_op_threads=1))
    theta = engine.source.theta + np.float32(0.1)
    state, out = tmp_path / "state.safetensors", tmp_path / "alone" / "merged.onnx"
    out.parent.mkdir()
    save_file(engine.source.parameters.unpack(theta), state, {"version": "3"})
    write_merged(bundle, state, out)
    inputs = tokens(8, seed=4)
    opened = session(out)
    expected = engine.predict(inputs, engine.fold(theta, engine.source.stats))
    np.testing.assert_allclose(first_output(opened, inputs), expected, rtol=1e-6, atol=1e-6)
