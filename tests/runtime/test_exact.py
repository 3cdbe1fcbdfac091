"""The probe is the product it says it is; the engine throws the switch where it finds saturation, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines import onnx_session
from acclimate.runtime.engines.onnx_exact import COLUMNS, DEPTH, EXACT, PROBE, ROWS, saturates


def test_the_probe_is_one_integer_product() -> None:
    model = onnx.load_from_string(PROBE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]
    a, b = np.full((ROWS, DEPTH), 255, np.uint8), np.full((DEPTH, COLUMNS), 127, np.int8)
    (exact,) = ReferenceEvaluator(model).run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(exact, a.astype(np.int64) @ b.astype(np.int64))


def test_a_processor_saturates_or_it_does_not() -> None:
    session = ort.InferenceSession(PROBE, providers=["CPUExecutionProvider"])
    a, b = np.full((ROWS, DEPTH), 255, np.uint8), np.full((DEPTH, COLUMNS), 127, np.int8)
    (found,) = session.run(None, {"a": a, "b": b})
    assert saturates() is bool((found != a.astype(np.int64) @ b.astype(np.int64)).any())


@pytest.mark.parametrize("found", [True, False])
def test_the_switch_is_thrown_only_where_it_is_needed(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    monkeypatch.setattr(onnx_session, "saturates", lambda: found)
    bundle, settings = read_bundle(bundle_path), ort.SessionOptions()
    onnx_session.open_session(bundle, "frozen.onnx", onnx_session.OnnxOptions(), 1, settings)
    if found:
        assert settings.get_session_config_entry(EXACT) == "1"
    else:
        with pytest.raises(RuntimeError, match=EXACT):
            settings.get_session_config_entry(EXACT)


def test_it_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = saturates()
    monkeypatch.setattr(ort, "InferenceSession", None)
    assert saturates() is first
