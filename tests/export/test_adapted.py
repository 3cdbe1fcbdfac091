"""A session's model as one ONNX file answers what the daemon answers for the session, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from acclimate.adapters.manifest import Manifest
from acclimate.export.adapted import write_merged
from acclimate.export.errors import ExportError
from acclimate.export.session import first_output, session
from acclimate.runtime.client import Client, Session
from tests.end_to_end.daemons import running
from tests.export.commandline import acclimate, refusal


def digits(bundle: Path, count: int, seed: int = 0) -> np.ndarray:
    """Dim pictures with structure: the bundle's canaries, mixed and darkened."""
    canaries = load_file(bundle / "source.safetensors")["canary.inputs"]
    chosen = np.random.default_rng(seed).integers(0, len(canaries), count)
    return (canaries[chosen] // 2 + 40).astype(canaries.dtype)


def learnt(client: Client, bundle: Path) -> Session:
    manifest = Manifest.from_json(json.loads((bundle / "manifest.json").read_text()))
    opened = client.create_session(manifest.name, "camera", recipe="tent", recipe_parameters={"lr": 0.01})
    for step in range(4):
        opened.predict(digits(bundle, 64, step))
    assert opened.get().updates > 0
    return opened


def test_the_merged_model_answers_as_the_session(bundle_path: Path, tmp_path: Path) -> None:
    inputs = digits(bundle_path, 40, seed=9)
    with running(bundle_path, synchronous=True) as daemon, Client(daemon.target) as client:
        opened = learnt(client, bundle_path)
        options = ("--target", daemon.target, "--model", opened.model, "--bundle", str(bundle_path))
        result = acclimate(tmp_path, "session", "export", "camera", *options, "--format", "onnx", "--out", "m.onnx")
        assert result.returncode == 0, result.stderr
        answer = opened.predict(inputs, adapt=False)
        plain = client.predict(opened.model, inputs)
    assert answer.version > 0
    merged = (tmp_path / "m.onnx").read_bytes()
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node)
    frozen = Counter(node.op_type for node in onnx.load(bundle_path / "frozen.onnx").graph.node)
    assert ops == frozen
    assert [entry.name for entry in session(merged).get_inputs()] == ["image"]
    np.testing.assert_array_equal(first_output(session(merged), inputs), answer.logits)
    assert not np.array_equal(plain.logits, answer.logits), "the session has learnt nothing, so nothing was shown"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".path", "m.onnx"]


@pytest.fixture
def state(bundle_path: Path, tmp_path: Path) -> Path:
    """The source itself, by name."""
    manifest = Manifest.from_json(json.loads((bundle_path / "manifest.json").read_text()))
    arrays = load_file(bundle_path / "source.safetensors")
    tensors = manifest.parameters.unpack(arrays["theta"]) | manifest.statistics.unpack(arrays["stats"])
    save_file(tensors, tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def test_the_source_merges_into_the_frozen_model(bundle_path: Path, state: Path, tmp_path: Path) -> None:
    write_merged(bundle_path, state, tmp_path / "m.onnx")
    inputs = digits(bundle_path, 16)
    np.testing.assert_array_equal(
        first_output(session((tmp_path / "m.onnx").read_bytes()), inputs),
        first_output(session(bundle_path / "frozen.onnx"), inputs),
    )


def test_what_does_not_fit_is_refused(bundle_path: Path, state: Path, tmp_path: Path) -> None:
    tensors = load_file(state)
    name = next(iter(tensors))
    cases = {
        "are not parameters of model": tensors | {"other": tensors[name]},
        "is missing": {key: tensor for key, tensor in tensors.items() if key != name},
        "has shape": tensors | {name: np.zeros(3, np.float32)},
        "are not finite": tensors | {name: np.full_like(tensors[name], np.nan)},
    }
    for message, changed in cases.items():
        save_file(changed, state)
        with pytest.raises(ExportError, match=message) as raised:
            write_merged(bundle_path, state, tmp_path / "m.onnx")
        assert "\n" not in str(raised.value)
    state.write_bytes(b"no tensors")
    with pytest.raises(ExportError, match="not a safetensors file"):
        write_merged(bundle_path, state, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_damaged_bundle_is_refused(bundle_path: Path, state: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle_path, tmp_path / "bundle")
    (copy / "forward.onnx").write_bytes((copy / "forward.onnx").read_bytes() + b"x")
    with pytest.raises(ExportError, match="was changed after export"):
        write_merged(copy, state, tmp_path / "m.onnx")
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(ExportError, match="not an Acclimate bundle"):
        write_merged(copy, state, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="cannot be written"):
        write_merged(bundle_path, state, tmp_path / "no" / "m.onnx")
    code, line = refusal(acclimate(tmp_path, "export", "adapted", str(tmp_path), str(state), "--out", "m.onnx"))
    assert (code, "no readable manifest.json" in line) == (1, True)
