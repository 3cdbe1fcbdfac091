"""Torch models compiled into bundles that adapt without torch.

Needs the extra `export`. `compile_model` takes a torch module, `compile_hf` a checkpoint of the
transformers library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.export.adaptation import Biases, LowRank, Norms
    from acclimate.export.calibration import CalibrationData
    from acclimate.export.compile import compile_model
    from acclimate.export.hf import compile_hf
    from acclimate.export.report import Report
    from acclimate.export.spec import BundleSpec
    from acclimate.export.trace import Preprocessing

__all__ = [
    "Biases",
    "BundleSpec",
    "CalibrationData",
    "LowRank",
    "Norms",
    "Preprocessing",
    "Report",
    "compile_hf",
    "compile_model",
]

_HOMES = {
    "Biases": "adaptation",
    "BundleSpec": "spec",
    "CalibrationData": "calibration",
    "LowRank": "adaptation",
    "Norms": "adaptation",
    "Preprocessing": "trace",
    "Report": "report",
    "compile_hf": "hf",
    "compile_model": "compile",
}


def __getattr__(name: str) -> Any:
    """Load torch only when an export is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
