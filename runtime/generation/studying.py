"""The material of a lesson: checked, and made into examples of tokens, before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.language import Ids
from acclimate.adapters.learning.units import Example
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.errors import FailedPrecondition, InvalidArgument
from acclimate.runtime.generation.types import LearnFirst, LearnRequest, Material, MaterialKind
from acclimate.runtime.sessions.recipes import values
from acclimate.runtime.sessions.session import Session

MAX_EXAMPLES = 4096
# A longer text is learnt in passages of about equal length.
PASSAGE_TOKENS = 256
# A prompt alone is learnt in so many passages, if they have so many tokens: one of five is held out.
PASSAGES, LEAST_TOKENS = 5, 16
# What they learn is what follows a prompt.
OF_PAIRS = ("ttt", "ttt_replay", "majority")
# The model's own texts are what is learnt from; a completion is only what they may be judged by.
UNANSWERED = ("majority",)


def recipe_of(request: LearnRequest | LearnFirst, session: Session) -> tuple[str, dict[str, float]]:
    """Name and effective parameters of the recipe that a lesson follows.

    Raises:
        InvalidArgument: there is no such recipe or parameter, or a value is out of range.
    """
    name = request.recipe or session.cohort.recipe.name
    own: Mapping[str, float] = session.cohort.parameters if name == session.cohort.recipe.name else {}
    try:
        return name, values(name, {**own, **request.parameters}, writes=True)
    except RecipeError as error:
        raise InvalidArgument("RECIPE_INVALID", str(error), recipe=name[:140]) from error


def refuse_paused(session: Session) -> None:
    """Raise FailedPrecondition for a session that does not learn."""
    if session.paused:
        raise FailedPrecondition(
            "SESSION_PAUSED",
            f"session {session.id!r} is paused and learns nothing; resume it first",
            model=session.model,
            session=session.id,
        )


def examples(engine: LanguageEngine, recipe: str, material: Material) -> tuple[Example, ...]:
    """What a session is shown; takes a while for long texts.

    Raises:
        InvalidArgument: there is nothing, too much, something empty, or a kind that the recipe does not learn from.
    """
    shown = material.texts if material.kind is MaterialKind.TEXTS else material.pairs
    field = material.kind.value
    if not 1 <= len(shown) <= MAX_EXAMPLES:
        raise InvalidArgument(
            "MATERIAL_INVALID", f"{field} has {len(shown)} entries; send 1 to {MAX_EXAMPLES}", field=field
        )
    if material.kind is MaterialKind.TEXTS and recipe in OF_PAIRS:
        raise InvalidArgument(
            "MATERIAL_INVALID",
            f"recipe {recipe!r} learns what follows prompts; send pairs or demonstrations, or take 'tlm' for texts",
            field=field,
            recipe=recipe,
        )
    if material.kind is MaterialKind.TEXTS:
        return tuple(passage for place, text in enumerate(material.texts) for passage in _read(engine, text, place))
    return tuple(_pair(engine, *pair, place, field, recipe) for place, pair in enumerate(material.pairs))


def own_prompt(recipe: str, prompt: Ids) -> tuple[Example, ...]:
    """What a text comes after `[t]`, to be learnt from: in passages, some of which can be held out.

    Raises:
        InvalidArgument: the recipe learns what follows prompts, or there is a single token.
    """
    if recipe in OF_PAIRS:
        raise InvalidArgument(
            "MATERIAL_INVALID",
            f"recipe {recipe!r} learns what follows prompts, and not a prompt itself; send learn.pairs or "
            "learn.demonstrations, or take 'tlm'",
            field="learn.recipe",
            recipe=recipe,
        )
    if len(prompt) < 2:
        raise InvalidArgument(
            "MATERIAL_INVALID", "the prompt has a single token; to be learnt it needs two", field="prompt"
        )
    count = max(-(-len(prompt) // PASSAGE_TOKENS), min(PASSAGES, len(prompt) // LEAST_TOKENS), 1)
    return tuple(Example(passage, np.zeros(0, np.int64)) for passage in np.array_split(prompt, count))


def _read(engine: LanguageEngine, text: str, place: int) -> list[Example]:
    """A text in passages, some of which can be held out."""
    ids = engine.tokenizer.encode(text)
    if len(ids) < 2:
        raise InvalidArgument(
            "MATERIAL_INVALID",
            f"texts[{place}] has {len(ids)} tokens; to be learnt it needs two",
            field="texts",
        )
    passages = np.array_split(ids, -(-len(ids) // PASSAGE_TOKENS))
    return [Example(passage, np.zeros(0, np.int64)) for passage in passages]


def _pair(engine: LanguageEngine, prompt: str, completion: str, place: int, field: str, recipe: str) -> Example:
    before, after = engine.tokenizer.encode(prompt), engine.tokenizer.encode(completion)
    if not len(before) or not (len(after) or recipe in UNANSWERED):
        lacking = "completion" if len(before) else "prompt"
        raise InvalidArgument(
            "MATERIAL_INVALID", f"{field}[{place}].{lacking} is empty; send at least one token of it", field=field
        )
    if len(after) >= engine.context:
        raise InvalidArgument(
            "TEXT_TOO_LONG",
            f"{field}[{place}].completion has {len(after)} tokens; the model's context holds {engine.context}",
            field=field,
            tokens=len(after),
            context=engine.context,
        )
    return Example(before, after)
