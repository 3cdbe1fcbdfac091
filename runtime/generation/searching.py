"""Several texts for one prompt, written side by side, of which one is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Emitted, Sampling
from acclimate.runtime.generation.types import Strategy
from acclimate.runtime.generation.writing import Writer
from acclimate.runtime.language.rollouts import Drawn
from acclimate.runtime.language.sampling import Chosen, best_of_n, first_finish, self_consistency

CHOICES: dict[Strategy, Callable[[Sequence[Drawn]], Chosen]] = {
    Strategy.BEST_OF_N: best_of_n,
    Strategy.SELF_CONSISTENCY: self_consistency,
    Strategy.FIRST_FINISH: first_finish,
}


async def drawn(
    writer: Writer,
    prompt: Ids,
    theta: Float,
    sampling: Sampling,
    samples: int,
    strategy: Strategy,
    late: Callable[[], bool] = lambda: False,
) -> tuple[list[Emitted], int]:
    """The tokens of the text that is chosen, and how many were drawn for all; text `n` has the seed `seed + n`.

    `late` is asked as soon as a text has its place, and after each token: whether there is no time for another.
    """
    texts: list[list[Emitted]] = [[] for _ in range(samples)]

    async def draw(place: int) -> None:
        own = replace(sampling, seed=sampling.seed + place)
        async with aclosing(writer.write(prompt, theta, own)) as tokens:
            async for token in tokens:
                over = late()
                if token is not None:
                    texts[place].append(token)
                    if over:
                        return

    tasks = [asyncio.create_task(draw(place)) for place in range(samples)]
    try:
        await _finished(tasks, texts, strategy)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    found = [_drawn(tokens) for tokens in texts]
    begun = sorted((text for text in found if len(text.ids)), key=lambda text: not text.finish)
    chosen = CHOICES[strategy](begun).text
    return texts[next(place for place, text in enumerate(found) if text is chosen)], sum(map(len, texts))


async def _finished(
    tasks: Sequence[asyncio.Task[None]], texts: Sequence[Sequence[Emitted]], strategy: Strategy
) -> None:
    """Wait for all texts, or for the first that ends by itself; whatever one of them raises is raised."""
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            ended = texts[tasks.index(task)][-1].finish
            if strategy is Strategy.FIRST_FINISH and ended in ("eos", "stop"):
                return


def _drawn(tokens: Sequence[Emitted]) -> Drawn:
    ids = np.array([token.token for token in tokens], np.int64)
    logprob = sum(token.logprob for token in tokens)
    return Drawn(ids, "".join(token.text for token in tokens), logprob, tokens[-1].finish if tokens else "")
