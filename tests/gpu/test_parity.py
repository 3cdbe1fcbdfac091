"""CUDA and TensorRT against the CPU: predictions, gradients, statistics, in every precision.

Nothing here has run yet: the machines that this was written on have no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from acclimate.adapters.requests import Forward, Gradient, Rows
from acclimate.runtime.bundle import Bundle, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_session import PROVIDERS

# TensorRT may sum in TF32 and reorder: 10 bits a product. Halves have 11 bits and bfloat16 8, and every layer rounds.
LIMITS = {"float32": 5e-3, "float16": 2e-2, "bfloat16": 1e-1}
GPUS = ("cuda", "tensorrt")


@pytest.fixture(params=GPUS)
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if missing := [wanted for wanted in PROVIDERS[name] if wanted not in ort.get_available_providers()]:
        pytest.skip(f"this ONNX Runtime has no {missing[0]}; install acclimate[gpu] on a machine with a GPU")
    return name


@pytest.fixture(scope="module")
def texts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer with its graphs in every precision."""
    pytest.importorskip("torch", reason="the exporter needs torch")
    from acclimate.export import BundleSpec, compile_model
    from acclimate.export.verify import Limits
    from tests.export.words import CLASSES, text_net, texts

    out, model = tmp_path_factory.mktemp("gpu") / "texts", text_net()
    spec = BundleSpec(name="texts", classes=CLASSES, limits=Limits(int8_points=5.0), precisions=("fp16", "bf16"))
    compile_model(model, texts(model), spec, out)
    return out


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def gradient_of(bundle: Bundle, size: int = 8) -> Gradient:
    """Two sessions beside each other, one on its batch statistics and one on running ones."""
    source, classes = bundle.source, len(bundle.manifest.classes)
    noise = np.random.default_rng(0)
    theta = source.theta + 0.1 * noise.standard_normal((size, len(source.theta))).astype(np.float32)
    group = np.arange(size) % 2
    rows = Rows(
        inputs=source.canary_inputs[:size],
        theta=theta,
        stats=np.repeat(source.stats[None], size, 0),
        group=group,
        alpha=np.float32(group == 0),
    )
    return Gradient(rows, noise.standard_normal((size, classes)).astype(np.float32))


def compared(bundle: Bundle, provider: str, precision: str) -> dict[str, float]:
    """Relative errors of a provider against the CPU in float32."""
    cpu, gpu = (OnnxEngine(bundle, OnnxOptions(p, precision=k)) for p, k in (("cpu", "float32"), (provider, precision)))
    request, source = gradient_of(bundle), bundle.source
    calls: dict[str, Callable[[OnnxEngine], np.ndarray]] = {
        "frozen": lambda engine: engine.frozen(source.canary_inputs),
        "predict": lambda engine: engine.predict(source.canary_inputs, engine.fold(source.theta, source.stats)),
        "forward": lambda engine: engine.forward(Forward(request.rows)).logits,
        "gradient": lambda engine: engine.vjp(request).grad_theta,
    }
    errors = {name: relative(call(gpu), call(cpu)) for name, call in calls.items()}
    if source.stats.size:
        pair = (engine.forward(Forward(request.rows)).batch_stats for engine in (gpu, cpu))
        errors["batch_stats"] = relative(*pair)
    return errors


def test_digits_agree(bundle_path: Path, provider: str) -> None:
    errors = compared(read_bundle(bundle_path), provider, "float32")
    assert max(errors.values()) < LIMITS["float32"], errors


@pytest.mark.parametrize("precision", LIMITS)
def test_a_transformer_agrees(texts_path: Path, provider: str, precision: str) -> None:
    errors = compared(read_bundle(texts_path), provider, precision)
    # In other precisions the forward pass has no int8 activations, which are rounded, too.
    assert max(errors.values()) < max(LIMITS[precision], 0.05 if precision != "float32" else 0), errors


def test_the_comparison_itself_finds_nothing_on_the_cpu(bundle_path: Path, texts_path: Path) -> None:
    """Runs everywhere: the harness of this file, on the provider that is always here."""
    for path in (bundle_path, texts_path):
        assert max(compared(read_bundle(path), "cpu", "float32").values()) == 0
    errors = compared(read_bundle(texts_path), "cpu", "float16")
    assert 0 < max(errors.values()) < 0.05
