"""Texts generated together, each with parameters of its own, coming and going at any time.

Every step gives each running text one token in one pass of the model, and reads the prompts of those that wait in
stretches of a fixed length, one text at a time. So what a text says does not depend on its company: products take
their rows one by one (`weights`), attention looks at blocks of fixed length, and random numbers are the text's own.

Running texts lie in the first rows of the cache, without gaps; slots are names for them that do not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Emitted, Finish, Sampling
from acclimate.runtime.engines.torch_lm.cache import Cache
from acclimate.runtime.engines.torch_lm.llama import Base, Feed, hidden
from acclimate.runtime.engines.torch_lm.lowrank import Plan, Updates
from acclimate.runtime.engines.torch_lm.packing import Lines
from acclimate.runtime.engines.torch_lm.sampling import Chooser
from acclimate.runtime.engines.torch_lm.scoring import sharpen
from acclimate.runtime.engines.torch_lm.text import HfTokenizer, Unrolling
from acclimate.runtime.engines.torch_lm.weights import product
from acclimate.runtime.errors import InvalidArgument, ResourceExhausted

STRETCH = 256
"""Tokens of a prompt that are read at once; and of all prompts in one step, as long as one stretch is read."""

LIKELY = 32
"""Tokens whose logits are computed in float32 besides, so that near ties are told apart."""


@dataclass(eq=False)
class _Text:
    """A text: how far its prompt is read, and what it has said."""

    slot: int
    prompt: Ids
    chooser: Chooser
    unrolling: Unrolling
    max_tokens: int
    read: int = 0
    said: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.said)


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
        self._order = model.plan.order.to(self._device)
        # Rows of theta in the plan's order; running texts first, then those whose prompts are read.
        self._bank = torch.zeros(slots, model.plan.layout.size, device=self._device)
        self._cache = Cache(model.base, slots, model.context)
        self._running: list[_Text] = []
        self._waiting: list[_Text] = []
        self._slots = list(range(slots - 1, -1, -1))
        self._updates: dict[int, Updates] = {}

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
            self._bank[row] = torch.from_numpy(np.array(theta, np.float32)).to(self._device)[self._order]
        chooser, unrolling = Chooser(sampling), Unrolling(self._model.tokenizer, sampling.stop)
        self._waiting.append(_Text(slot, np.array(prompt, np.int64), chooser, unrolling, sampling.max_tokens))
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
        ids = torch.tensor([text.said[-1] for text in texts], device=self._device)
        at = torch.tensor([text.length - 1 for text in texts], device=self._device)
        longest = max(text.length for text in texts)
        self._cache.reserve(longest)
        lines = Lines(len(texts), 1, None, None)
        feed = Feed(ids, at, lines, self._first(len(texts)), self._model.plan.scale, generating=True)
        read = hidden(self._model.base, feed, self._cache.one_each(at, longest))
        return self._say(texts, read)

    def _read_prompts(self) -> list[Emitted]:
        emitted: list[Emitted] = []
        left = STRETCH
        while self._waiting and left > 0:
            text = self._waiting[0]
            row = len(self._running)
            piece = text.prompt[text.read : text.read + STRETCH]
            self._cache.reserve(text.read + len(piece))
            at = torch.arange(text.read, text.read + len(piece), device=self._device)
            ids = torch.from_numpy(piece).to(self._device)
            updates = self._model.plan.updates(self._model.plan.leaves(self._bank[row : row + 1]))
            feed = Feed(ids, at, Lines(1, len(piece), None, None), updates, self._model.plan.scale, generating=True)
            read = hidden(self._model.base, feed, self._cache.stretch(row, text.read, len(piece)))
            text.read += len(piece)
            left -= len(piece)
            if text.read == len(text.prompt):
                self._waiting.pop(0)
                self._running.append(text)
                emitted += self._say([text], read[-1:])
        return emitted

    def _say(self, texts: list[_Text], read: Tensor) -> list[Emitted]:
        """Draw a token for each text from what the head reads `[n, width]`."""
        base = self._model.base
        logits = product(read.to(base.working), base.head, generating=True).float()
        sharpen(logits, read, base.head.dense(), logits.topk(min(LIKELY, logits.shape[1])).indices)
        logs = torch.log_softmax(logits, -1)
        entropies = -torch.linalg.vecdot(logs.exp(), logs)
        tokens = logits.argmax(-1).tolist()
        for row, text in enumerate(texts):
            if not text.chooser.greedy:
                tokens[row] = text.chooser.draw(logits[row])
        picked = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])[:, 0].tolist()
        figures = zip(texts, tokens, picked, entropies.tolist(), strict=True)
        return [self._emit(text, token, logprob, entropy) for text, token, logprob, entropy in figures]

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

    def _first(self, count: int) -> Updates:
        """The updates of the first rows, as views that stay true when rows move."""
        if count not in self._updates:
            self._updates[count] = self._model.plan.updates(self._model.plan.leaves(self._bank[:count]))
        return self._updates[count]

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
        self._bank[target] = self._bank[source]
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
