"""Texts generated together, each with parameters of its own, coming and going at any time.

Every step gives each running text one token in one pass of the model, and reads the prompts of those that wait in
stretches of a fixed length, long ones by themselves and short ones together. So what a text says does not depend on its
company: how a stretch is read depends on its length alone, products of short ones take their rows one by one
(`weights`), attention looks at blocks of fixed length, and random numbers are the text's own.

Running texts lie in the first rows of the cache, without gaps; slots are names for them that do not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Emitted, Finish, Sampling
from acclimate.runtime.engines.torch_lm.bank import Bank
from acclimate.runtime.engines.torch_lm.cache import Cache
from acclimate.runtime.engines.torch_lm.generating import Adapted, Given, read
from acclimate.runtime.engines.torch_lm.llama import Base
from acclimate.runtime.engines.torch_lm.lowrank import Plan
from acclimate.runtime.engines.torch_lm.sampling import Chooser, chosen
from acclimate.runtime.engines.torch_lm.text import HfTokenizer, Unrolling
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted

STRETCH = 256
"""Tokens of a prompt that are read at once; and of all prompts in one step, as long as one stretch is read."""


@dataclass(eq=False)
class _Text:
    """A text: how far its prompt is read, and what it has said; `adapted`: its theta changes something."""

    slot: int
    prompt: Ids
    adapted: bool
    chooser: Chooser
    unrolling: Unrolling
    max_tokens: int
    read: int = 0
    said: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.said)

    @property
    def piece(self) -> int:
        """Tokens of the prompt that are read next."""
        return min(len(self.prompt) - self.read, STRETCH)


@dataclass(frozen=True, slots=True)
class Model:
    """What a decoder computes with."""

    base: Base
    plan: Plan
    tokenizer: HfTokenizer
    ends: frozenset[int]
    context: int


class TorchDecoder:
    """See `engines/language.py`; used by one thread at a time."""

    def __init__(self, model: Model, slots: int) -> None:
        self._model = model
        self._device = model.base.embedding.device
        # Running texts first, then those whose prompts are read.
        self._bank = Bank(model.base, model.plan, slots)
        # Stretches up to this are read with the products of a few rows, and may share their pass with others.
        self._short = model.base.layers[0].groups[0].short
        self._cache = Cache(model.base, slots, model.context)
        self._running: list[_Text] = []
        self._waiting: list[_Text] = []
        self._slots = list(range(slots - 1, -1, -1))
        # Where every B is zero, theta changes nothing.
        self._changing = model.plan.layout.columns("lora.B")

    @property
    def free(self) -> int:
        """Slots that are not in use."""
        return len(self._slots)

    def admit(self, prompt: Ids, theta: Float, sampling: Sampling) -> int:
        """Begin a text after `prompt [t]` with a session's `theta [P]`; the slot it occupies until it finishes."""
        _check(prompt, theta, sampling, self._model)
        if not self._slots:
            raise ResourceExhausted("SLOTS_FULL", f"all {len(self._bank)} slots for texts are in use; try again later")
        row = len(self._running) + len(self._waiting)
        slot = self._slots.pop()
        with torch.inference_mode():
            self._bank.put(row, theta)
        chooser, unrolling = Chooser(sampling), Unrolling(self._model.tokenizer, sampling.stop)
        adapted = bool(theta[self._changing].any())
        self._waiting.append(_Text(slot, np.array(prompt, np.int64), adapted, chooser, unrolling, sampling.max_tokens))
        return slot

    def step(self) -> list[Emitted]:
        """One token for every running text, and a stretch or more of the prompts that wait."""
        with torch.inference_mode():
            emitted = self._extend() if self._running else []
            return emitted + self._read_prompts()

    def release(self, slot: int) -> None:
        """Give up the text in a slot; harmless where there is none."""
        for text in (*self._running, *self._waiting):
            if text.slot == slot:
                with torch.inference_mode():
                    self._leave(text)

    def _extend(self) -> list[Emitted]:
        texts = list(self._running)
        at = [text.length - 1 for text in texts]
        self._cache.reserve(max(at) + 1)
        everyone = Adapted(0, len(texts), len(texts), self._bank.added(0, len(texts)))
        adapted = (everyone,) if any(text.adapted for text in texts) else ()
        given = Given(self._ids([text.said[-1] for text in texts]), self._ids(at), adapted, self._bank.wide)
        return self._say(texts, read(self._model.base, given, self._cache.one_each(at)))

    def _read_prompts(self) -> list[Emitted]:
        emitted: list[Emitted] = []
        left = STRETCH
        while self._waiting and left > 0:
            texts = self._next(left)
            pieces = [(len(self._running) + number, text.read, text.piece) for number, text in enumerate(texts)]
            ends = list(accumulate(length for _, _, length in pieces))
            found = self._read(texts, pieces, ends)
            left -= ends[-1]
            for text in texts:
                text.read += text.piece
            # Only the last one may have more to be read.
            whole = [text for text in texts if not text.piece]
            del self._waiting[: len(whole)]
            self._running += whole
            if whole:
                emitted += self._say(whole, found[[end - 1 for end in ends[: len(whole)]]])
        return emitted

    def _next(self, room: int) -> list[_Text]:
        """Whose prompts are read in the next pass: a long stretch, or short ones that end their prompts."""
        texts: list[_Text] = []
        for text in self._waiting:
            if texts and (text.piece > self._short or room <= 0):
                break
            texts.append(text)
            room -= text.piece
            if text.piece > self._short or text.read + text.piece < len(text.prompt):
                break
        return texts

    def _read(self, texts: list[_Text], pieces: list[tuple[int, int, int]], ends: list[int]) -> Tensor:
        """Read pieces `(row, start, length)` of prompts, which end at these entries."""
        self._cache.reserve(max(start + length for _, start, length in pieces))
        adapted = tuple(
            Adapted(end - length, end, 1, self._bank.added(row, row + 1))
            for text, (row, _, length), end in zip(texts, pieces, ends, strict=True)
            if text.adapted
        )
        ids = np.concatenate([text.prompt[text.read : text.read + text.piece] for text in texts])
        at = np.concatenate([np.arange(start, start + length) for _, start, length in pieces])
        given = Given(self._ids(ids), self._ids(at), adapted, self._bank.wide, long=pieces[0][2] > self._short)
        return read(self._model.base, given, self._cache.stretches(pieces))

    def _ids(self, numbers: list[int] | Ids) -> Tensor:
        return torch.tensor(numbers, device=self._device)

    def _say(self, texts: list[_Text], hidden: Tensor) -> list[Emitted]:
        """Draw a token for each text from what the head reads `[n, width]`."""
        head = self._model.base.head
        found = chosen(head.few(hidden), hidden, head.dense(), [text.chooser for text in texts])
        return [self._emit(text, *figures) for text, figures in zip(texts, found, strict=True)]

    def _emit(self, text: _Text, token: int, logprob: float, entropy: float) -> Emitted:
        text.said.append(token)
        finish: Finish = ""
        if token in self._model.ends:
            added, finish = text.unrolling.end(), "eos"
        else:
            added = text.unrolling.push(token)
            if text.unrolling.stopped:
                finish = "stop"
            elif len(text.said) >= text.max_tokens or text.length >= self._model.context:
                finish = "length" if len(text.said) >= text.max_tokens else "context"
                added += text.unrolling.end()
        if finish:
            self._leave(text)
        return Emitted(text.slot, token, added, logprob, entropy, finish)

    def _leave(self, text: _Text) -> None:
        """Close the gap that a text leaves: the last running text takes its row, the last that waits the next one."""
        self._slots.append(text.slot)
        if text in self._running:
            gap, last = self._running.index(text), len(self._running) - 1
            if gap != last:
                self._running[gap] = self._running[last]
                self._move(last, gap, self._running[gap])
            self._running.pop()
            gap = last
        else:
            gap = len(self._running) + self._waiting.index(text)
            self._waiting.remove(text)
        # Prompts are read in the order of their rows.
        for row in range(gap, len(self._running) + len(self._waiting)):
            self._move(row + 1, row, self._waiting[row - len(self._running)])
        if not self._running and not self._waiting:
            self._cache.shrink()

    def _move(self, source: int, target: int, text: _Text) -> None:
        self._bank.move(source, target)
        self._cache.move(source, target, text.length if text.said else text.read)


def _check(prompt: Ids, theta: Float, sampling: Sampling, model: Model) -> None:
    size, words = model.plan.layout.size, model.base.shape.vocabulary
    if len(prompt) == 0:
        raise InvalidArgument("EMPTY_PROMPT", "prompt has no tokens; send at least one")
    if len(prompt) >= model.context:
        raise InvalidArgument(
            "PROMPT_TOO_LONG", f"prompt has {len(prompt)} tokens; send fewer than the context's {model.context}"
        )
    if not (prompt.min() >= 0 and prompt.max() < words):
        raise InvalidArgument("INVALID_TOKENS", f"prompt has ids outside 0 to {words - 1}")
    for fault, message in (
        (sampling.max_tokens < 1, f"max_tokens is {sampling.max_tokens}; use 1 or more"),
        (not 0 <= sampling.temperature < np.inf, f"temperature is {sampling.temperature}; use 0 (greedy) or more"),
        (not 0 < sampling.top_p <= 1, f"top_p is {sampling.top_p}; use more than 0, at most 1"),
        (sampling.seed < 0, f"seed is {sampling.seed}; use 0 or more"),
    ):
        if fault:
            raise InvalidArgument("INVALID_SAMPLING", message)
    if theta.shape != (size,):
        raise InvalidArgument("INVALID_THETA", f"theta has shape {theta.shape}; the model's is ({size},)")
