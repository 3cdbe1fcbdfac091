"""Whether a provider can be had here, asked of the engine itself."""

from __future__ import annotations

from pathlib import Path

from acclimate.runtime.bundle import BundleError, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions


def refusal(bundle_path: Path, provider: str) -> str:
    """Why an engine on this provider is refused; empty where it starts."""
    try:
        OnnxEngine(read_bundle(bundle_path), OnnxOptions(provider=provider)).close()
    except BundleError as error:
        return str(error)
    return ""
