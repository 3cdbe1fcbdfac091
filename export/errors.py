"""Why a model does not become a bundle. Every message is one line and names the part, the value and the fix.

ExportError
├── UnsupportedModel     an operator, shape or norm the compiler cannot translate
├── CalibrationError     calibration samples or labels do not fit the model
└── VerificationError    the finished graphs disagree with the source model by more than is allowed
"""

from __future__ import annotations


class ExportError(ValueError):
    """Base of every refusal of `acclimate.export`; nothing has been written when it is raised."""


class UnsupportedModel(ExportError):
    """The model holds something that cannot be translated; the message names the node or module."""


class CalibrationError(ExportError):
    """Calibration data have the wrong shape, dtype or labels."""


class VerificationError(ExportError):
    """A check on the finished graphs failed: `check` names it, `value` exceeded (or fell below) `limit`."""

    def __init__(self, check: str, value: float, limit: float, advice: str) -> None:
        super().__init__(f"verification: {check} is {value:.3g}, limit {limit:.3g}; {advice}; nothing was written")
        self.check = check
        self.value = value
        self.limit = limit
