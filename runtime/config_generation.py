"""The section of the configuration that says how language models are served."""

from __future__ import annotations

from pydantic import Field

from acclimate.runtime.config_adaptation import NonNegative, Section


class Generation(Section):
    """Texts generated, learnt from and scored by language models."""

    max_queue: int = Field(64, ge=1, description="texts of a model that may wait for that; more are RESOURCE_EXHAUSTED")
    default_tokens: int = Field(256, ge=1, description="tokens of a text whose client says no number, at most")
    max_tokens: int = Field(4096, ge=1, description="tokens that a client may ask for in one text")
    max_samples: int = Field(16, ge=2, le=1024, description="texts that one search may draw")
    score_queue: int = Field(64, ge=1, description="requests for scores of a model that may wait")
    learn_queue: int = Field(64, ge=1, description="lessons of a model that may wait; more are RESOURCE_EXHAUSTED")
    learn_together: int = Field(8, ge=1, le=1024, description="sessions of a model that learn in one batch, at most")
    replay_tokens: int = Field(
        4096,
        ge=0,
        description="tokens of examples that a session of a recipe that replays remembers, in memory only; 0: none",
    )
    learn_patience_ms: NonNegative = Field(
        200.0, description="time that a step of a lesson waits for texts to be finished first, milliseconds"
    )
    trust_radius: NonNegative = Field(
        1.0, description="largest relative distance of a session's parameters from the source, learnt or brought along"
    )
    canary_tolerance: NonNegative = Field(
        0.25, description="how much less likely each group of canary texts may become, as a rise of their perplexity"
    )
    default_recipe: str = Field(
        "tlm", min_length=1, description="recipe of a language model's session that chooses none"
    )
    refill_ms_per_s: NonNegative = Field(
        1000.0, description="per session of a language model: milliseconds of learning granted per second"
    )
    capacity_ms: NonNegative = Field(
        60_000.0, description="per session of a language model: milliseconds that can be saved up"
    )
