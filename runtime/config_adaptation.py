"""The sections of the configuration that say how sessions learn, are guarded, watched and brought back."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from acclimate.adapters.watch import DEFAULTS, Choice

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen table of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Adaptation(Section):
    """What a step takes and what it must pass before it is committed."""

    batch_rows: int = Field(32, ge=2, le=1024, description="samples a session gathers before a step")
    max_step_rows: int = Field(
        64, ge=2, le=8192, description="samples of all the sessions that share one step, at most"
    )
    trust_radius: NonNegative = Field(0.5, description="largest relative distance of the parameters from the source")
    collapse_ratio: Share = Field(
        0.5, description="share of the frozen model's spread over classes that answers must keep"
    )
    canary_tolerance: Share = Field(
        0.1, description="share of canary samples that may be answered worse than by the frozen model"
    )
    canary_every: int = Field(
        1, ge=0, description="steps of a session between canary checks, which every step after a refusal has; 0: never"
    )
    max_consecutive_rollbacks: int = Field(4, ge=1, description="roll-backs in a row after which a session is restored")


class Drift(Section):
    """Which detector is fed with which signal of a session's stream; see docs/recipes.md."""

    entropy: Choice = Field(DEFAULTS["entropy"], description="mean entropy of the answers of a step")
    confidence: Choice = Field(DEFAULTS["confidence"], description="mean confidence; it follows the entropy")
    statistics: Choice = Field(
        DEFAULTS["statistics"], description="distance of the batch's normalisation statistics from the source's"
    )
    predictions: Choice = Field(
        DEFAULTS["predictions"],
        description="divergence of the predicted classes from the bundle's class prior and from their slow average",
    )
    parameters: Choice = Field(
        DEFAULTS["parameters"], description="distance of the parameters from the source in units of its Fisher"
    )


class Restoration(Section):
    """What brings sessions back; a session's own are recipe parameters of the same names (docs/recipes.md)."""

    pull: NonNegative = Field(0.0, le=1e6, description="pull toward the source at each step, weighted by its Fisher")
    stochastic: Share = Field(0.0, description="probability with which each parameter goes back at a step")
    masked: Share = Field(
        0.0, description="share of the parameters, of least squared gradient, that goes back at a step"
    )
    radius: NonNegative = Field(
        0.0, le=10, description="parameters are kept within this relative distance of the source; 0: the guard alone"
    )
    every: int = Field(0, ge=0, le=10**9, description="sessions go back at each such step; 0: never")
    on_drift: bool = Field(False, description="sessions go back when their stream changes")
    on_canary: bool = Field(False, description="sessions go back at the first step that the canary guard refuses")
    on_collapse: bool = Field(False, description="sessions go back at the first step that the collapse guard refuses")
    ring: int = Field(
        0, ge=0, le=64, description="checkpoints per session to go back to, the best first; 0: back to the source"
    )
    ring_every: int = Field(16, ge=1, le=10**9, description="steps between two checkpoints")
