"""Text to token ids and back, and text that comes token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.runtime.engines.language import LanguageModelError, Message
from acclimate.runtime.errors import InvalidArgument

INCOMPLETE = "\ufffd"
"""What bytes that are no character yet are decoded to."""


class HfTokenizer:
    """A model's own tokenizer, read from its directory."""

    def __init__(self, directory: Path) -> None:
        """Read it.

        Raises:
            LanguageModelError: the directory has none.
        """
        from transformers import AutoTokenizer

        try:
            self._inner: Any = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError, KeyError) as error:
            raise LanguageModelError(f"{directory}: the tokenizer cannot be read ({error})") from error

    @property
    def end(self) -> int | None:
        """The token that ends a text, if it has one."""
        return None if self._inner.eos_token_id is None else int(self._inner.eos_token_id)

    def encode(self, text: str) -> Ids:
        """Ids `[t]` of a text, without special tokens added."""
        return np.array(self._inner.encode(text, add_special_tokens=False), np.int64)

    def decode(self, ids: Ids) -> str:
        """The text of ids, special tokens left out."""
        text = self._inner.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def chat(self, messages: Sequence[Message]) -> Ids:
        """Ids of a conversation in the model's own template, up to where the assistant's next turn begins.

        Raises:
            InvalidArgument: the model has no template, or the template refuses the conversation.
        """
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError) as error:
            raise InvalidArgument(
                "INVALID_MESSAGES", f"messages do not fit the model's chat template ({error}); send a prompt instead"
            ) from error
        return self.encode(str(text))


class Unrolling:
    """The text of tokens as they come: whole characters, and nothing that may be the beginning of a stop string."""

    def __init__(self, tokenizer: HfTokenizer, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        # Ids before the first are done with; those up to the second are decoded, and give the next their context.
        self._context, self._read = 0, 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that this token makes certain; `stopped` is set when a stop string is complete."""
        self._ids.append(token)
        return self._certain(self._held + self._new())

    def end(self) -> str:
        """What was held back and is text after all; half a character is not."""
        text, self._held = self._held + self._new(force=True), ""
        return text

    def _new(self, *, force: bool = False) -> str:
        before = self._decoded(self._context, self._read)
        whole = self._decoded(self._context, len(self._ids))
        if whole.endswith(INCOMPLETE):
            if not force:
                return ""
            whole = whole.rstrip(INCOMPLETE)
        self._context, self._read = self._read, len(self._ids)
        return whole[len(before) :]

    def _decoded(self, start: int, end: int) -> str:
        return self._tokenizer.decode(np.array(self._ids[start:end], np.int64)) if end > start else ""

    def _certain(self, text: str) -> str:
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text that a stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
