"""CMA-ES (Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv 1604.00772, figure 6), per session."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float

MEAN = "evolution.mean"
SIGMA = "evolution.sigma"
COVARIANCE = "evolution.covariance"
PATH = "evolution.path"
SIGMA_PATH = "evolution.sigma_path"
GENERATION = "evolution.generation"


@dataclass(frozen=True)
class EvolutionStrategy:
    """Search `dimensions` numbers with `population` candidates a generation, from mean 0 and step size `sigma`.

    Candidates outside float range, or of a NaN fitness, rank last.
    """

    dimensions: int
    population: int = 27
    sigma: float = 1.0

    @cached_property
    def _constants(self) -> tuple[NDArray[np.float64], float, float, float, float, float, float]:
        """Recombination weights, their effective number, and the rates and damping of the tutorial's table 1."""
        n, parents = self.dimensions, self.population // 2
        raw = np.log((self.population + 1) / 2) - np.log(np.arange(1, parents + 1))
        weights = raw / raw.sum()
        effective = float(1 / (weights**2).sum())
        sigma_rate = (effective + 2) / (n + effective + 5)
        damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (n + 1)) - 1) + sigma_rate
        path_rate = (4 + effective / n) / (n + 4 + 2 * effective / n)
        rank_one = 2 / ((n + 1.3) ** 2 + effective)
        rank_mu = min(1 - rank_one, 2 * (effective - 2 + 1 / effective) / ((n + 2) ** 2 + effective))
        return weights, effective, sigma_rate, damping, path_rate, rank_one, rank_mu

    def template(self) -> State:
        """Mean, step size, covariance `[k, k]` and the two paths of one session."""
        zeros = np.zeros(self.dimensions, np.float32)
        return {
            MEAN: zeros,
            SIGMA: np.array(self.sigma, np.float32),
            COVARIANCE: np.eye(self.dimensions, dtype=np.float32),
            PATH: zeros.copy(),
            SIGMA_PATH: zeros.copy(),
            GENERATION: np.zeros((), np.int64),
        }

    def ask(self, state: State, draws: Float) -> Float:
        """Candidates `[S, population, k]` from standard normal draws `[S, population * k]`."""
        basis, scale = _factors(state[COVARIANCE])
        draws = draws.reshape(len(draws), self.population, self.dimensions)
        steps = (draws * scale[:, np.newaxis]) @ basis.transpose(0, 2, 1)
        result = state[MEAN][:, np.newaxis] + state[SIGMA][:, np.newaxis, np.newaxis] * steps
        return result.astype(np.float32)

    def tell(self, state: State, points: Float, fitness: Float) -> State:
        """The fields after ranking the candidates by fitness `[S, population]`, lowest best."""
        weights, effective, sigma_rate, damping, path_rate, rank_one, rank_mu = self._constants
        best = np.argsort(fitness, axis=1, kind="stable")[:, : len(weights), np.newaxis]
        sigma = state[SIGMA][:, np.newaxis].astype(np.float64)
        steps = (np.take_along_axis(points, best, axis=1) - state[MEAN][:, np.newaxis]) / sigma[:, np.newaxis]
        step = (weights[:, np.newaxis] * steps).sum(axis=1)
        basis, scale = _factors(state[COVARIANCE])
        white = (basis @ ((basis.transpose(0, 2, 1) @ step[..., np.newaxis]) / scale[..., np.newaxis]))[..., 0]
        sigma_path = (1 - sigma_rate) * state[SIGMA_PATH] + math.sqrt(sigma_rate * (2 - sigma_rate) * effective) * white
        generation = state[GENERATION] + 1
        length: NDArray[np.float64] = np.sqrt((sigma_path**2).sum(axis=1, keepdims=True))
        expected = _expected_length(self.dimensions)
        settled = np.sqrt(1 - (1 - sigma_rate) ** (2 * generation))[:, np.newaxis]
        moving = length / settled < (1.4 + 2 / (self.dimensions + 1)) * expected
        path = (1 - path_rate) * state[PATH]
        path = path + moving * math.sqrt(path_rate * (2 - path_rate) * effective) * step
        lost = rank_one * np.where(moving, 0, path_rate * (2 - path_rate))[:, :, np.newaxis]
        covariance = (1 - rank_one - rank_mu + lost) * state[COVARIANCE]
        covariance = covariance + rank_one * path[:, :, np.newaxis] * path[:, np.newaxis]
        covariance = covariance + rank_mu * ((weights[:, np.newaxis] * steps).transpose(0, 2, 1) @ steps)
        growth = np.exp(np.minimum((sigma_rate / damping) * (length / expected - 1), 1))
        fields = {
            MEAN: state[MEAN] + sigma * step,
            SIGMA: state[SIGMA] * growth[:, 0],
            COVARIANCE: (covariance + covariance.transpose(0, 2, 1)) / 2,
            PATH: path,
            SIGMA_PATH: sigma_path,
        }
        return {name: value.astype(np.float32) for name, value in fields.items()} | {GENERATION: generation}


def _expected_length(dimensions: int) -> float:
    """Expected length of a standard normal vector, to the second order the tutorial uses."""
    return math.sqrt(dimensions) * (1 - 1 / (4 * dimensions) + 1 / (21 * dimensions**2))


def _factors(covariance: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvectors `[S, k, k]` and roots of the eigenvalues `[S, k]`; those of a broken matrix are a unit's."""
    sound = np.isfinite(covariance).all(axis=(1, 2), keepdims=True)
    values, vectors = np.linalg.eigh(np.where(sound, covariance, np.eye(covariance.shape[1])).astype(np.float64))
    return vectors, np.sqrt(np.maximum(values, 1e-20))
