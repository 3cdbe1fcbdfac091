"""Examples of earlier lessons, which recipes that replay mix in: kept in memory with their session, within a bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.adapters.learning.units import Example
from acclimate.runtime.generation.studying import OF_PAIRS
from acclimate.runtime.sessions.session import Session


def replays(parameters: Mapping[str, float]) -> bool:
    """Whether a recipe with these parameters mixes earlier examples in."""
    return parameters.get("replay", 0.0) > 0


def earlier(session: Session, recipe: str, parameters: Mapping[str, float]) -> tuple[Example, ...]:
    """What the session was shown before, as far as the recipe of a lesson can learn from it."""
    if not replays(parameters):
        return ()
    return tuple(one for one in session.earlier if len(one.completion) or recipe not in OF_PAIRS)


def remember(session: Session, parameters: Mapping[str, float], shown: tuple[Example, ...], most_tokens: int) -> None:
    """Keep what was learnt just now, with what was kept, if a recipe of the session's will ask for it.

    Where it is too much, a random part stays, which is the same for the same lessons: what was learnt long ago is
    rarer than what is new, and not gone.

    Args:
        session: it has committed the lesson.
        parameters: of the lesson's recipe.
        shown: its examples.
        most_tokens: of everything that is kept; 0: nothing is.
    """
    if not replays(parameters) and not replays(session.cohort.parameters):
        return
    known = (*session.earlier, *shown)
    left, kept = most_tokens, list[int]()
    for at in np.random.default_rng(session.version).permutation(len(known)):
        size = len(known[at].prompt) + len(known[at].completion)
        if size <= left:
            left -= size
            kept.append(int(at))
    session.earlier = tuple(known[at] for at in sorted(kept))
