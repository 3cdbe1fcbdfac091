"""What is asked for and is not here is refused by name; `auto` takes what is here. No GPU is needed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from acclimate.runtime.bundle import BundleError, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_session import PROVIDERS, _check_provider, providers
from tests.gpu.refusals import refusal

ABSENT = [name for name, wanted in PROVIDERS.items() if not set(wanted) <= set(ort.get_available_providers())]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_here_is_refused(bundle_path: Path, provider: str) -> None:
    """Not built in, or built in and without its device or its libraries."""
    why = refusal(bundle_path, provider)
    if not why:
        pytest.skip(f"{provider} runs here")
    assert why.startswith(f"engine.provider is '{provider}', but ")
    assert ("this ONNX Runtime lacks" if provider in ABSENT else "could not be started here") in why
    assert "or choose 'cpu' or 'auto'" in why


def test_auto_answers_as_the_provider_it_takes(bundle_path: Path) -> None:
    assert providers("auto") == PROVIDERS["cpu" if "cuda" in ABSENT else "cuda"]
    taken = "cpu" if refusal(bundle_path, "cuda") else "cuda"
    bundle = read_bundle(bundle_path)
    inputs = bundle.source.canary_inputs
    by_name, auto = (OnnxEngine(bundle, OnnxOptions(provider=name)) for name in (taken, "auto"))
    np.testing.assert_array_equal(by_name.frozen(inputs), auto.frozen(inputs))


def test_a_device_that_does_not_start_is_refused_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    cuda, cpu = PROVIDERS["cuda"]
    with pytest.raises(BundleError, match="CUDAExecutionProvider could not be started here; check the driver"):
        _check_provider(cpu, cuda, "cuda")
    with caplog.at_level(logging.WARNING, logger="acclimate.runtime.engines.onnx_session"):
        _check_provider(cpu, cuda, "auto")
    assert "CUDAExecutionProvider could not be started; running on CPUExecutionProvider" in caplog.text


@pytest.mark.parametrize(("precision", "file"), [("float16", "fp16"), ("bfloat16", "bf16")])
def test_a_precision_that_the_bundle_has_not_is_refused(bundle_path: Path, precision: str, file: str) -> None:
    expected = (
        f"engine.precision is '{precision}', but .* has no 'frozen.{file}.onnx'; export it with --precision {file}"
    )
    with pytest.raises(BundleError, match=expected):
        OnnxEngine(read_bundle(bundle_path), OnnxOptions(precision=precision))
