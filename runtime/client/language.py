"""Building the requests of language models, shared by the blocking and the asyncio client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from acclimate.runtime.client.channel import GENERATION_SERVICE
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.operations import Operation
from acclimate.runtime.engines.language import Message
from acclimate.runtime.generation.types import (
    ComputeBudget,
    Drawing,
    GenerateReply,
    GenerateRequest,
    LearnFirst,
    LearnOutcome,
    LearnProgress,
    LearnRequest,
    Material,
    MaterialKind,
    Prompt,
    ScoreReply,
    ScoreRequest,
)
from acclimate.runtime.rpc import convert_generation, convert_lessons
from acclimate.v1 import generation_service_pb2 as pb

PromptLike: TypeAlias = str | Sequence[Message | Mapping[str, str]]
"""A text, or the turns of a conversation: `Message`s, or mappings with `role` and `content`."""
Given: TypeAlias = Sequence[tuple[str, str]]
"""Prompts, and what follows each."""
Spending: TypeAlias = ComputeBudget | None
"""What a text and the lesson before it may cost; None: no bound."""
First: TypeAlias = LearnFirst | None
"""What `learn_first` makes; None: nothing is learnt before a text."""


def generate_request(
    model: str,
    session_id: str | None,
    prompt: PromptLike,
    drawing: Drawing,
    budget: ComputeBudget | None,
    learn: LearnFirst | None,
) -> GenerateRequest:
    """What is to be written."""
    return GenerateRequest(model, session_id, prompt_of(prompt), drawing, budget or ComputeBudget(), learn)


def learn_first(
    share: float,
    *,
    texts: Sequence[str] = (),
    pairs: Given = (),
    demonstrations: Given = (),
    recipe: str | None = None,
    recipe_parameters: Mapping[str, float] | None = None,
    discard: bool = False,
) -> LearnFirst:
    """A lesson before a text, for a share of its budget; without material it learns what the text comes after.

    Raises:
        ClientError: INVALID_ARGUMENT, the material is of two kinds.
    """
    some = texts or pairs or demonstrations
    given = material(texts, pairs, demonstrations) if some else None
    return LearnFirst(share, given, recipe, dict(recipe_parameters or {}), discard)


def material(
    texts: Sequence[str], pairs: Sequence[tuple[str, str]], demonstrations: Sequence[tuple[str, str]]
) -> Material:
    """What is to be learnt.

    Raises:
        ClientError: INVALID_ARGUMENT, it is of no kind, or of two.
    """
    given = [kind for kind, some in zip(MaterialKind, (texts, pairs, demonstrations), strict=True) if some]
    if len(given) != 1 or isinstance(texts, str):
        raise ClientError(
            "INVALID_ARGUMENT",
            "MATERIAL_INVALID",
            "give one of texts, pairs and demonstrations, each a sequence; a single text is a sequence of one",
        )
    return Material(
        given[0], tuple(texts), tuple((str(before), str(after)) for before, after in pairs or demonstrations)
    )


def score(request: ScoreRequest) -> Operation[ScoreReply]:
    """Scores of texts."""
    return _operation("Score", convert_generation.score_message, request, convert_generation.score_reply)


def prompt_of(prompt: PromptLike) -> Prompt:
    """The prompt in the service's own terms."""
    if isinstance(prompt, str):
        return prompt
    return tuple(
        turn if isinstance(turn, Message) else Message(str(turn["role"]), str(turn["content"])) for turn in prompt
    )


def generate(request: GenerateRequest) -> Operation[GenerateReply]:
    """A text, reply by reply."""
    return _operation("Generate", convert_generation.generate_message, request, convert_generation.generate_reply)


def learn(request: LearnRequest) -> Operation[LearnProgress | LearnOutcome]:
    """A lesson, reply by reply."""
    return _operation("Learn", convert_lessons.learn_message, request, convert_lessons.learn_update)


def _operation(method: str, write: Any, request: Any, read: Any) -> Operation[Any]:
    try:
        message = write(request)
    except UnicodeEncodeError as error:
        raise ClientError(
            "INVALID_ARGUMENT",
            "TEXT_ENCODING_INVALID",
            f"a text holds {error.object[error.start : error.end]!r}, which UTF-8 cannot say",
        ) from error
    return Operation(f"/{GENERATION_SERVICE}/{method}", message, getattr(pb, f"{method}Response"), read)
