"""What clients send, checked and made into tokens before anything is queued or changed."""

from __future__ import annotations

import math

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.runtime.engines.language import LanguageEngine, Sampling
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation.types import Drawing, Prompt, Strategy

MAX_STOPS = 16
MAX_TEMPERATURE = 100.0
ROLES = ("system", "user", "assistant")


def prompt_ids(engine: LanguageEngine, prompt: Prompt) -> Ids:
    """Tokens `[t]` of a prompt; takes a while for a long one.

    Args:
        engine: whose tokenizer and context.
        prompt: a text or a conversation.

    Raises:
        InvalidArgument: it is empty, too long, or a turn has a role that there is not.
    """
    if isinstance(prompt, str):
        ids = engine.tokenizer.encode(prompt)
    else:
        for message in prompt:
            if message.role not in ROLES:
                raise InvalidArgument(
                    "ROLE_INVALID",
                    f"conversation has a turn of role {message.role[:64]!r}; use one of {list(ROLES)}",
                    field="conversation.messages.role",
                    role=message.role[:64],
                )
        ids = engine.tokenizer.chat(prompt) if prompt else np.zeros(0, np.int64)
    if not len(ids):
        raise InvalidArgument("PROMPT_EMPTY", "prompt is empty; send at least one token of text", field="prompt")
    if len(ids) > engine.context - 1:
        raise InvalidArgument(
            "PROMPT_TOO_LONG",
            f"prompt has {len(ids)} tokens; with 1 more to come, the model's context of {engine.context} holds "
            f"{engine.context - 1}; shorten it",
            field="prompt",
            tokens=len(ids),
            context=engine.context,
        )
    return ids


def sampling_of(drawing: Drawing, default_tokens: int, max_tokens: int, max_samples: int) -> Sampling:
    """How a text is drawn.

    Raises:
        InvalidArgument: names the field and what it may be.
    """
    tokens = default_tokens if drawing.max_tokens is None else drawing.max_tokens
    if not 1 <= tokens <= max_tokens:
        raise _invalid("max_tokens", tokens, f"1 to {max_tokens} (generation.max_tokens), or 0 for the default")
    if not 0 <= drawing.temperature <= MAX_TEMPERATURE:
        raise _invalid("temperature", drawing.temperature, f"0 (the likeliest token) to {MAX_TEMPERATURE:g}")
    if not 0 < drawing.top_p <= 1:
        raise _invalid("top_p", drawing.top_p, "above 0 and at most 1")
    if len(drawing.stop) > MAX_STOPS or not all(drawing.stop):
        raise _invalid("stop", list(drawing.stop)[:3], f"at most {MAX_STOPS} texts, none of them empty")
    if not 0 <= drawing.seed < 2**63:
        raise _invalid("seed", drawing.seed, "a whole number, not negative")
    if drawing.strategy is not Strategy.NONE:
        if not 2 <= drawing.samples <= max_samples:
            raise _invalid(
                "samples", drawing.samples, f"2 to {max_samples} (generation.max_samples) for a search", "search"
            )
        if drawing.temperature == 0:
            raise _invalid("temperature", 0, "above 0 for a search, whose texts would all be the same")
    return Sampling(tokens, drawing.temperature, drawing.top_p, drawing.stop, drawing.seed)


def _invalid(name: str, value: object, allowed: str, part: str = "sampling") -> InvalidArgument:
    shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)[:80]
    return InvalidArgument(
        "SAMPLING_INVALID", f"{part}.{name} is {shown}; it has to be {allowed}", field=f"{part}.{name}", value=shown
    )
