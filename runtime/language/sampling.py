"""Inference-time compute: several texts for one question, and which of them is the answer.

All of it runs on a decoder's slots, so that samples of one request, and of many, are written together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.votes import majority
from acclimate.runtime.engines.language import Decoder, LanguageEngine, Sampling
from acclimate.runtime.language.jobs import Answer, LearningBudget, Verifier
from acclimate.runtime.language.rollouts import Drawn, last_word


@dataclass(frozen=True, slots=True)
class Chosen:
    """The text that was chosen among `texts`, and how good it is: its share of the votes, its score, or 1."""

    text: Drawn
    worth: float
    texts: tuple[Drawn, ...]

    @property
    def tokens(self) -> int:
        """Tokens that were drawn for it."""
        return sum(len(text.ids) for text in self.texts)


def sample(
    engine: LanguageEngine,
    prompt: Ids,
    theta: Float,
    sampling: Sampling,
    samples: int,
    now: Callable[[], float],
    *,
    budget: LearningBudget | None = None,
    enough: int = 0,
) -> tuple[Drawn, ...]:
    """Up to `samples` texts after one prompt, each from a seed of its own, written together.

    Args:
        engine: it makes the decoder.
        prompt: `[t]`.
        theta: `[P]`.
        sampling: how; sample `n` has the seed `seed + n`.
        samples: texts.
        now: seconds.
        budget: generated tokens and milliseconds, of all texts together; texts that it cuts off have no `finish`.
        enough: with so many finished texts the others are given up; 0: all are waited for.
    """
    decoder, started, bound = engine.decoder(samples), now(), budget or LearningBudget()
    slots = [decoder.admit(prompt, theta, replace(sampling, seed=sampling.seed + number)) for number in range(samples)]
    texts = {slot: Drawn(np.zeros(0, np.int64), "", 0.0, "") for slot in slots}
    finished, spent = list[int](), 0
    while len(finished) < (enough or samples):
        open_texts = samples - len(finished)
        late = bound.milliseconds is not None and 1e3 * (now() - started) >= bound.milliseconds
        if late or (bound.tokens is not None and spent + open_texts > bound.tokens):
            break
        spent += _extend(decoder, texts, finished)
    for slot in set(slots) - set(finished):
        decoder.release(slot)
    order = finished + [slot for slot in slots if slot not in finished]
    return tuple(texts[slot] for slot in order)


def self_consistency(texts: Sequence[Drawn], answer: Answer = last_word) -> Chosen:
    """The most probable text of those that give the majority's answer (Wang et al. 2023, arXiv 2203.11171).

    Raises:
        ValueError: there is no text.
    """
    agreed, share = majority([answer(text.text) for text in _some(texts)])
    same = [text for text in texts if agreed is None or answer(text.text) == agreed]
    return Chosen(max(same, key=_likely), share, tuple(texts))


def best_of_n(texts: Sequence[Drawn], prompt: str = "", verifier: Verifier | None = None) -> Chosen:
    """The text a verifier likes best, or of the highest mean log-probability of a token (worth: its probability).

    Raises:
        ValueError: there is no text.
    """
    if verifier is None:
        best = max(_some(texts), key=_likely)
        return Chosen(best, float(np.exp(_likely(best))), tuple(texts))
    worth = [verifier(prompt, text.text) for text in _some(texts)]
    at = int(np.argmax(worth))
    return Chosen(texts[at], float(worth[at]), tuple(texts))


def first_finish(texts: Sequence[Drawn]) -> Chosen:
    """The text that ended first, for short texts are more often right (Agarwal et al. 2025, arXiv 2505.18149).

    Of `sample(..., enough=1)`; what only `max_tokens` or the budget cut off counts where nothing ended by itself.

    Raises:
        ValueError: there is no text.
    """
    ended = [text for text in _some(texts) if text.finish in ("eos", "stop")]
    return Chosen((ended or list(texts))[0], 1.0, tuple(texts))


def _extend(decoder: Decoder, texts: dict[int, Drawn], finished: list[int]) -> int:
    """One step of all texts; the tokens that were drawn."""
    emitted = decoder.step()
    for token in emitted:
        text = texts[token.slot]
        texts[token.slot] = Drawn(
            np.append(text.ids, token.token), text.text + token.text, text.logprob + token.logprob, token.finish
        )
        if token.finish:
            finished.append(token.slot)
    return len(emitted)


def _likely(text: Drawn) -> float:
    return text.logprob / max(len(text.ids), 1)


def _some(texts: Sequence[Drawn]) -> Sequence[Drawn]:
    if not texts:
        raise ValueError("texts: there is none to choose from; the budget may have been too small for one token each")
    return texts
