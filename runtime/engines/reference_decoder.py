"""Texts that grow together on the reference language engine: its memory is all the cache there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import log_softmax, softmax
from acclimate.runtime.engines.language import Emitted, Finish, Sampling, Tokenizer
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted

Advance = Callable[[Float, Ids, Float], tuple[Float, Float]]
"""The memory `[B, H]` and logits `[B, V]` after a token `[B]`, from the memory before it and `theta [B, P]`."""


@dataclass(eq=False)
class _Text:
    """A text under way: `held` bytes are not yet told, for they may be part of a character or of a stop string."""

    theta: Float
    sampling: Sampling
    random: np.random.Generator
    memory: Float
    logits: Float
    length: int
    generated: int = 0
    held: list[int] = field(default_factory=list)


class ReferenceDecoder:
    """Slots of texts; see `Decoder`."""

    def __init__(
        self, advance: Advance, tokenizer: Tokenizer, *, width: int, context: int, slots: int, end: int
    ) -> None:
        self._advance, self._tokenizer = advance, tokenizer
        self._width, self._context, self._end = width, context, end
        self._slots, self._texts = slots, dict[int, _Text]()

    @property
    def free(self) -> int:
        """Slots that are not in use."""
        return self._slots - len(self._texts)

    def admit(self, prompt: Ids, theta: Float, sampling: Sampling) -> int:
        """Read the prompt; the slot of its text."""
        if not 0 < len(prompt) < self._context:
            raise InvalidArgument(
                "BAD_PROMPT",
                f"prompt: {len(prompt)} tokens; it must have 1 to {self._context - 1}",
                tokens=len(prompt),
                context=self._context,
            )
        slot = next((slot for slot in range(self._slots) if slot not in self._texts), None)
        if slot is None:
            raise ResourceExhausted(
                "DECODER_FULL", f"all {self._slots} slots are in use; wait until a text ends", slots=self._slots
            )
        row, memory = theta[np.newaxis].copy(), np.zeros((1, self._width), np.float32)
        for token in prompt:
            memory, logits = self._advance(memory, np.array([token]), row)
        random = np.random.default_rng(sampling.seed)
        self._texts[slot] = _Text(row[0], sampling, random, memory[0], logits[0], len(prompt))
        return slot

    def step(self) -> list[Emitted]:
        """One token for every text."""
        if not self._texts:
            return []
        slots, texts = list(self._texts), list(self._texts.values())
        drawn = [_draw(text) for text in texts]
        log_p = log_softmax(np.stack([text.logits for text in texts]))
        entropy = -(np.exp(log_p) * log_p).sum(axis=1)
        memory, logits = self._advance(
            np.stack([text.memory for text in texts]), np.array(drawn), np.stack([text.theta for text in texts])
        )
        emitted = []
        for row, (slot, text, token) in enumerate(zip(slots, texts, drawn, strict=True)):
            text.memory, text.logits = memory[row], logits[row]
            told, finish = self._tell(text, token)
            emitted.append(Emitted(slot, token, told, float(log_p[row, token]), float(entropy[row]), finish))
            if finish:
                del self._texts[slot]
        return emitted

    def release(self, slot: int) -> None:
        """Give up the text in a slot."""
        self._texts.pop(slot, None)

    def _tell(self, text: _Text, token: int) -> tuple[str, Finish]:
        """What may be told after one more token, and whether the text ends with it."""
        text.length, text.generated = text.length + 1, text.generated + 1
        finish: Finish = "eos" if token == self._end else ""
        if not finish:
            text.held.append(token)
        shown = self._tokenizer.decode(np.array(text.held, np.int64))
        cuts = [at for at in (shown.find(stop) for stop in text.sampling.stop) if at >= 0]
        if cuts:
            return shown[: min(cuts)], "stop"
        finish = finish or ("length" if text.generated >= text.sampling.max_tokens else "")
        finish = finish or ("context" if text.length >= self._context else "")
        if not finish and (shown.endswith("�") or _may_stop(shown, text.sampling.stop)):
            return "", finish
        text.held = []
        return shown, finish


def _may_stop(shown: str, stops: tuple[str, ...]) -> bool:
    """Whether a stop string may have begun at the end of what is to be shown."""
    return any(shown.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))


def _draw(text: _Text) -> int:
    """The next token: greedy at temperature 0, else from the nucleus (Holtzman et al. 2020, arXiv 1904.09751)."""
    sampling = text.sampling
    if sampling.temperature == 0:
        return int(text.logits.argmax())
    # Less the largest first: divided by the smallest temperatures, all others are left with nothing.
    below = text.logits.astype(np.float64) - text.logits.max()
    with np.errstate(over="ignore"):
        p = softmax(below / sampling.temperature)
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    # The likeliest is in any nucleus, also in one whose share rounds to nothing.
    kept = order[: max(int((before < sampling.top_p * p.sum()).sum()), 1)]
    return int(text.random.choice(kept, p=p[kept] / p[kept].sum()))
