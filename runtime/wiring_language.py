"""Wiring of language models: with `wiring.py` the only place that names concrete engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.config import Config
from acclimate.runtime.engines.language import LanguageEngine, LanguageModelError
from acclimate.runtime.engines.reference_language import reference_language
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.model import LanguageModel
from acclimate.runtime.generation.purse import Purse
from acclimate.runtime.generation.service import Generating
from acclimate.runtime.language.jobs import LearningLimits
from acclimate.runtime.scheduler.shared import SharedBudgets
from acclimate.runtime.sessions.residency import Residency

log = structlog.stdlib.get_logger("acclimate.wiring")

REFERENCE = "reference"
"""Names, in the place of a path, the small model in NumPy that ships: it writes bytes that mean nothing."""


def load_language_engines(config: Config, progress: Callable[[str], None] | None = None) -> dict[str, LanguageEngine]:
    """Every configured language model by name; torch is imported only if one needs it. `progress` hears what goes on.

    Raises:
        LanguageModelError: one cannot be loaded, or what it needs is not installed.
    """
    told = progress or (lambda text: log.info("language model", doing=text))
    chosen = config.language
    small = {name for name, path in chosen.models.items() if path == REFERENCE}
    engines: dict[str, LanguageEngine] = {name: reference_language(name=name) for name in small}
    wanted = {name: path for name, path in chosen.models.items() if name not in small}
    if not wanted:
        return engines
    try:
        from acclimate.runtime.engines.torch_lm.served import engines_of
    except ModuleNotFoundError as error:
        raise LanguageModelError(f"language models need {error.name}; pip install 'acclimate[llm]'") from error
    return engines | engines_of(chosen.model_copy(update={"models": wanted}), told)


def language_models(config: Config, engines: Mapping[str, LanguageEngine]) -> dict[str, LanguageModel]:
    """The models of these engines, and what their sessions' parameters must pass."""
    chosen = config.generation
    limits = LearningLimits(trust_radius=chosen.trust_radius, canary_tolerance=chosen.canary_tolerance)
    return {name: LanguageModel(engine, limits) for name, engine in engines.items()}


def generating(
    config: Config,
    models: Mapping[str, LanguageModel],
    residency: Residency,
    account: Account,
    clock: Clock,
    shared: SharedBudgets | None,
) -> Generating:
    """What language models do."""
    desks = {name: Desk(model, config.generation, config.language.slots) for name, model in models.items()}
    return Generating(desks, residency, account, clock, Purse(clock, shared))
