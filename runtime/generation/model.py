"""A served model: one that answers arrays, or one that writes texts. Sessions need of it what both have."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

import numpy as np

from acclimate.adapters.distances import theta_distance
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.source import Source
from acclimate.runtime.engines.base import Engine, Folded, Specialised
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.language.foundation import Foundation, canary_losses, foundation
from acclimate.runtime.language.jobs import LearningLimits


class LanguageModel:
    """A language model as the sessions' table knows models; what generates and learns uses its `engine`.

    Args:
        engine: what computes.
        limits: what new parameters of a session must pass, learnt here or brought along.
    """

    def __init__(self, engine: LanguageEngine, limits: LearningLimits | None = None) -> None:
        self.engine = engine
        self.limits = limits or LearningLimits()
        self._measuring = threading.Lock()
        self._foundation: Foundation | None = None

    @property
    def manifest(self) -> Manifest:
        """What the model says about itself."""
        return self.engine.manifest

    @property
    def source(self) -> Source:
        """What a new session begins with."""
        return self.engine.source

    @property
    def specialised(self) -> Specialised:
        """No session has a graph of its own."""
        return Specialised()

    def fold(self, theta: Float, stats: Float) -> Folded:
        """A session's `theta [P]` as it is: low-rank updates are applied beside the weights, and never merged."""
        return Folded((theta,))

    def foundation(self) -> Foundation:
        """What the source says of its canaries: measured when it is first asked for, which takes a while."""
        with self._measuring:
            if self._foundation is None:
                self._foundation = foundation(self.engine)
            return self._foundation

    def judged(self, theta: Float) -> tuple[Outcome, float]:
        """Whether a session may have `theta [P]`: `APPLIED`, or the guard that refuses it; and theta's distance."""
        if not np.isfinite(theta).all():
            return Outcome.ROLLED_BACK_NONFINITE, 0.0
        row, limits = theta[np.newaxis], self.limits
        far = float(theta_distance(row, self.source)[0])
        if not far <= limits.trust_radius:
            return Outcome.ROLLED_BACK_TRUST_REGION, far
        base = self.foundation()
        risen = canary_losses(self.engine, base, row, limits.tokens_at_once)[0] - base.loss
        if not np.isfinite(risen).all():
            return Outcome.ROLLED_BACK_NONFINITE, far
        passed = bool((risen <= math.log1p(limits.canary_tolerance)).all())
        return Outcome.APPLIED if passed else Outcome.ROLLED_BACK_CANARY, far

    def close(self) -> None:
        """Release what the engine holds; calling it twice is harmless."""
        self.engine.close()


Model = Engine | LanguageModel
"""What serves a model's name."""


def answers_arrays(model: Model) -> Engine:
    """The engine of a model that answers arrays.

    Raises:
        FailedPrecondition: it writes texts.
    """
    if isinstance(model, LanguageModel):
        name = model.manifest.name
        raise FailedPrecondition(
            "MODEL_WRITES_TEXT",
            f"model {name!r} is a language model, which answers no arrays; use GenerationService, or ModelInfer with "
            "its text_input",
            model=name,
        )
    return model


def writes_text(model: Model) -> LanguageModel:
    """The language model.

    Raises:
        FailedPrecondition: it answers arrays.
    """
    if isinstance(model, LanguageModel):
        return model
    name = model.manifest.name
    raise FailedPrecondition(
        "MODEL_ANSWERS_ARRAYS", f"model {name!r} is no language model; use ModelInfer with its tensors", model=name
    )


def bundled(models: Mapping[str, Model]) -> set[str]:
    """Names of the models that came from bundles: those that can be replaced and unloaded."""
    return {name for name, model in models.items() if not isinstance(model, LanguageModel)}


def replaceable(name: str, model: Model | None) -> Engine | None:
    """The engine that may be replaced or unloaded under a name, or None.

    Raises:
        FailedPrecondition: a language model has the name.
    """
    if isinstance(model, LanguageModel):
        raise FailedPrecondition(
            "MODEL_FIXED",
            f"model {name!r} is a language model, served until the daemon ends; change the configuration and start it "
            "again",
            model=name,
        )
    return model
