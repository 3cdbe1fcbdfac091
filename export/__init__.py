"""Torch models compiled into bundles that adapt without torch.

Needs the extra `export`. The one entry point is `compile_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.export.calibration import CalibrationData
    from acclimate.export.compile import compile_model
    from acclimate.export.report import Report
    from acclimate.export.spec import BundleSpec
    from acclimate.export.trace import Preprocessing

__all__ = ["BundleSpec", "CalibrationData", "Preprocessing", "Report", "compile_model"]

_HOMES = {
    "BundleSpec": "spec",
    "CalibrationData": "calibration",
    "Preprocessing": "trace",
    "Report": "report",
    "compile_model": "compile",
}


def __getattr__(name: str) -> Any:
    """Load torch only when an export is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
