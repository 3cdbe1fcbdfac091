"""What the configuration says of guards, of the session table and of waiting for the engine, in their own terms."""

from __future__ import annotations

from acclimate.adapters.guards import Guards
from acclimate.adapters.restoration.policy import PREFIX
from acclimate.runtime.config import Config
from acclimate.runtime.scheduler.admission import AdmissionLimits
from acclimate.runtime.scheduler.limits import PredictorLimits
from acclimate.runtime.sessions.settings import Limits
from acclimate.runtime.types import Budget


def guards_of(config: Config) -> Guards:
    """The configured guards."""
    chosen = config.adaptation
    return Guards(
        trust_radius=chosen.trust_radius,
        collapse_ratio=chosen.collapse_ratio,
        canary_tolerance=chosen.canary_tolerance,
        canary_every=chosen.canary_every,
        max_strikes=chosen.max_consecutive_rollbacks,
    )


def limits_of(config: Config) -> Limits:
    """The configured limits of the session table."""
    return Limits(
        max_sessions=config.sessions.max_sessions,
        buffer_rows=config.sessions.buffer_rows,
        remembered_answers=config.sessions.remembered_answers,
        default_recipe=config.sessions.default_recipe,
        default_parameters={"batch_rows": config.adaptation.batch_rows}
        | {PREFIX + key: value for key, value in config.restoration.model_dump().items()},
        default_budget=Budget(config.budget.refill_ms_per_s, config.budget.capacity_ms),
        default_ttl_seconds=config.sessions.default_ttl_seconds or None,
        language_recipe=config.generation.default_recipe,
        language_budget=Budget(config.generation.refill_ms_per_s, config.generation.capacity_ms),
    )


def batches_of(config: Config) -> PredictorLimits:
    """What bounds batches and the queue; in synchronous mode requests are answered one by one, at once."""
    synchronous = config.scheduler.mode == "synchronous"
    return PredictorLimits(
        max_batch=1 if synchronous else config.scheduler.max_batch,
        max_delay=0.0 if synchronous else config.scheduler.max_delay_ms / 1e3,
        max_queue=config.scheduler.max_queue,
    )


def patience_of(config: Config) -> AdmissionLimits:
    """How long a request may be expected to wait."""
    # A replay is answered whole, however fast it is sent.
    patience_ms = 0.0 if config.scheduler.mode == "synchronous" else config.scheduler.patience_ms
    return AdmissionLimits(patience_ms / 1e3, config.scheduler.overload_wait_ms / 1e3)
