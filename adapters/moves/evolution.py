"""FOA: search a few directions of theta by evolution, forward passes only (Niu et al. 2024, "FOA", algorithm 1).

The paper evolves prompts in front of a vision transformer. A bundle adapts norm affines instead, so here the search
is over `theta0 + radius R z`, with z of few dimensions and R a fixed random matrix, unit variance per parameter. The
paper's shift of the final activations needs features, which a bundle does not export, and is left out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.discrepancy import discrepancy
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.numerics import entropy, group_count, group_mean
from acclimate.adapters.optimisers.evolution import EvolutionStrategy
from acclimate.adapters.randomness import keys, normal
from acclimate.adapters.requests import Forward, Index, Reply, Request
from acclimate.adapters.source import Source

BASIS, CANDIDATE = 61, 62


@dataclass(frozen=True)
class Evolving:
    """FOA's update.

    Attributes:
        strategy: CMA-ES with 27 candidates (the paper's population, for 2304 prompt dimensions).
        radius: how far theta moves for z of unit length per dimension; chosen here, nothing like it is published.
        alignment: weight of the statistics against the entropy, 0.4 in the paper.
        seed: of the directions and the candidates.
    """

    strategy: EvolutionStrategy
    radius: float = 0.02
    alignment: float = 0.4
    seed: int = 0

    def template(self, source: Source) -> State:
        """What the search remembers."""
        return self.strategy.template()

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Try every candidate and the present theta on the batch; serve and answer with the best."""
        rows, sessions = seen.rows, seen.sessions
        basis = self._basis(source.parameters.size)
        draws = normal(keys(self.seed, CANDIDATE, state[STEPS]), self.strategy.population * self.strategy.dimensions)
        points = self.strategy.ask(state, draws)
        best = (self._fitness(source, seen.logits, seen.batch_stats, rows.group), state[THETA], seen.logits)
        fitness = np.empty((sessions, self.strategy.population), np.float32)
        one_row_each = np.unique(rows.group, return_index=True)[1]
        for number in range(self.strategy.population):
            offset = (points[:, number, :, np.newaxis] * basis).sum(axis=1)
            theta = (source.theta + np.float32(self.radius) * offset).astype(np.float32)
            outputs = yield from ask_outputs(Forward(replace(rows, theta=theta[rows.group])))
            score = self._fitness(source, outputs.logits, outputs.batch_stats[one_row_each], rows.group)
            fitness[:, number] = score
            better = score < best[0]
            best = (
                np.where(better, score, best[0]),
                np.where(better[:, np.newaxis], theta, best[1]),
                np.where(better[rows.group, np.newaxis], outputs.logits, best[2]),
            )
        moved = {THETA: best[1]} | self.strategy.tell(state, points, fitness)
        return Moved(moved, best[0], group_count(rows.group, sessions), answers=best[2])

    def _basis(self, parameters: int) -> Float:
        """The directions `[k, P]`, the same for every session and step."""
        dimensions = self.strategy.dimensions
        return normal(keys(self.seed, BASIS, np.arange(dimensions)), parameters) / np.float32(np.sqrt(dimensions))

    def _fitness(self, source: Source, logits: Float, batch_stats: Float, group: Index) -> Float:
        """Mean entropy and the statistics' distance, `[S]`; lower is better."""
        mean = group_mean(entropy(logits), group, len(batch_stats))
        return mean + np.float32(self.alignment) * discrepancy(source, batch_stats)
