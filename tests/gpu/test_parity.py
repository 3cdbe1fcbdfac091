"""CUDA and TensorRT against the CPU: predictions, gradients, statistics, in every precision.

With CUDA all of it has passed on an H100 (ONNX Runtime 1.31.1, CUDA 13.0, cuDNN 9.14); with TensorRT none has run yet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from acclimate.adapters.requests import Forward, Gradient, Rows
from acclimate.runtime.bundle import Bundle, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_session import PROVIDERS
from tests.gpu.refusals import refusal

# Halves have 11 bits and bfloat16 8, and every layer rounds.
LIMITS = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 3e-2}
# In int8 graphs a value between two numbers may go to either, and TensorRT may multiply in TF32: 10 bits a product.
ROUNDED = 5e-3
GPUS = ("cuda", "tensorrt")


@pytest.fixture(params=GPUS)
def provider(request: pytest.FixtureRequest, bundle_path: Path) -> str:
    name: str = request.param
    if missing := [wanted for wanted in PROVIDERS[name] if wanted not in ort.get_available_providers()]:
        pytest.skip(f"this ONNX Runtime has no {missing[0]}; install acclimate[gpu] on a machine with a GPU")
    # A build has TensorRT in its list whether its libraries are installed or not.
    if "could not be started here" in (why := refusal(bundle_path, name)):
        pytest.skip(why)
    return name


@pytest.fixture(scope="module")
def texts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer with its graphs in every precision."""
    pytest.importorskip("torch", reason="the exporter needs torch")
    from acclimate.export import BundleSpec, compile_model
    from acclimate.export.verify import Limits
    from tests.export.words import CLASSES, text_net, texts

    out, model = tmp_path_factory.mktemp("gpu") / "texts", text_net()
    # Untrained, with near ties: how many of its 64 answers change in int8 depends on the machine's kernels.
    spec = BundleSpec(name="texts", classes=CLASSES, limits=Limits(int8_points=10.0), precisions=("fp16", "bf16"))
    compile_model(model, texts(model), spec, out)
    return out


def too_large(errors: dict[str, float], provider: str, precision: str) -> dict[str, float]:
    """Errors beyond their limits, NaN among them."""
    rounded = set(errors) if provider == "tensorrt" else {"frozen", "predict"}
    limits = {name: ROUNDED if precision == "float32" and name in rounded else LIMITS[precision] for name in errors}
    return {name: error for name, error in errors.items() if not error < limits[name]}


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


def source_rows(bundle: Bundle) -> Rows:
    """The canaries under the source's parameters and running statistics."""
    source, size = bundle.source, len(bundle.source.canary_inputs)
    theta, stats = (np.repeat(values[None], size, 0) for values in (source.theta, source.stats))
    return Rows(source.canary_inputs, theta, stats, np.zeros(size, np.intp), np.zeros(size, np.float32))


def answers(engine: OnnxEngine, bundle: Bundle) -> dict[str, np.ndarray]:
    request, source = gradient_of(bundle), bundle.source
    forward = engine.forward(Forward(request.rows))
    results = {
        "frozen": engine.frozen(source.canary_inputs),
        "predict": engine.predict(source.canary_inputs, engine.fold(source.theta, source.stats)),
        "forward": forward.logits,
        "gradient": engine.vjp(request).grad_theta,
    }
    return results | ({"batch_stats": forward.batch_stats} if source.stats.size else {})


def compared(bundle: Bundle, provider: str, precision: str) -> dict[str, float]:
    """Relative errors of a provider against the CPU in float32."""
    cpu, gpu = (OnnxEngine(bundle, OnnxOptions(p, precision=k)) for p, k in (("cpu", "float32"), (provider, precision)))
    expected = answers(cpu, bundle)
    if precision != "float32":
        # The int8 graphs round their activations and those in half precision do not: observe.onnx is their float twin.
        expected["frozen"] = expected["predict"] = cpu.forward(Forward(source_rows(bundle))).logits
    return {name: relative(got, expected[name]) for name, got in answers(gpu, bundle).items()}


def test_digits_agree(bundle_path: Path, provider: str) -> None:
    errors = compared(read_bundle(bundle_path), provider, "float32")
    assert not too_large(errors, provider, "float32"), errors


@pytest.mark.parametrize("precision", LIMITS)
def test_a_transformer_agrees(texts_path: Path, provider: str, precision: str) -> None:
    errors = compared(read_bundle(texts_path), provider, precision)
    assert not too_large(errors, provider, precision), errors


def test_the_comparison_itself_finds_nothing_on_the_cpu(bundle_path: Path, texts_path: Path) -> None:
    """Runs everywhere: the harness of this file, on the provider that is always here."""
    for path in (bundle_path, texts_path):
        assert max(compared(read_bundle(path), "cpu", "float32").values()) == 0
    errors = compared(read_bundle(texts_path), "cpu", "float16")
    assert min(errors.values()) > 0, errors
    assert not too_large(errors, "cpu", "float16"), errors
