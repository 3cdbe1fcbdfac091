"""The language models of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acclimate.runtime.config_language import Language
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
from acclimate.runtime.engines.torch_lm.options import LmOptions


def engines_of(settings: Language, progress: Callable[[str], None]) -> dict[str, LanguageEngine]:
    """An engine for each configured model, by name.

    Raises:
        LanguageModelError: one cannot be loaded.
    """
    return {
        name: TorchLanguageEngine(
            LmOptions(
                name=name,
                path=path,
                precision=settings.precision,
                rank=settings.rank,
                alpha=settings.alpha,
                targets=settings.targets,
                context=settings.context,
                step_tokens=settings.step_tokens,
                threads=settings.threads,
                cache=Path(settings.cache).expanduser() if settings.cache else None,
                device=settings.device,
            ),
            progress,
        )
        for name, path in settings.models.items()
    }
