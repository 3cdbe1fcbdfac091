"""One session of the reference classifier with torch autograd in double precision: what the recipes are held to."""

import numpy as np
import torch

from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.guards import Guards
from acclimate.runtime.engines.reference import EPSILON, ReferenceEngine, reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine(features=6, classes=5, seed=3)
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
PRIOR, ROWS, STEPS = 40.0, 16, 6
ZEROS = np.zeros(ROWS, np.intp)


def tensor(array) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def parameter(array) -> torch.Tensor:
    return tensor(array).requires_grad_(True)


class Plain:
    """Statistics `mean`, `var` and the classifier; parameters are passed in as one row `[2 D]`."""

    def __init__(self, engine: ReferenceEngine = ENGINE) -> None:
        self.engine = engine
        self.theta = parameter(engine.source.theta)
        self.source = tensor(engine.source.theta)
        self.mean, self.var = tensor(engine.mean), tensor(engine.var)

    def blend(self, x: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
        """This session's statistics moved toward a batch's."""
        mean = (1 - alpha) * self.mean + alpha * x.mean(0)
        return mean, (1 - alpha) * self.var + alpha * x.var(0, unbiased=False)

    def follow(self, x: torch.Tensor, prior: float = PRIOR) -> None:
        """Keep the statistics blended with the batch."""
        with torch.no_grad():
            self.mean, self.var = self.blend(x, len(x) / (len(x) + prior))

    def logits(self, x: torch.Tensor, theta: torch.Tensor | None = None, stats=None) -> torch.Tensor:
        """At these statistics, by default those the session holds."""
        gamma, beta = (self.theta if theta is None else theta).chunk(2)
        mean, var = (self.mean, self.var) if stats is None else stats
        hidden = gamma * (x - mean) / torch.sqrt(var + EPSILON) + beta
        return hidden @ tensor(self.engine.weights) + tensor(self.engine.bias)


def entropies(logits: torch.Tensor) -> torch.Tensor:
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)


def cross_entropies(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(target.softmax(1) * logits.log_softmax(1)).sum(1)


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def against(name: str, plain: Plain, plain_step, parameters: dict[str, float], steps: int = STEPS):
    """Play both, compare theta and statistics after every step, return the last state and result."""
    chosen = recipe(name, ENGINE, OPEN, batch_rows=ROWS, **parameters)
    state, result = fresh(chosen, ENGINE, 1), None
    for turn in range(steps):
        inputs = stream(turn, ROWS, features=6)
        result = step(chosen, state, inputs, ZEROS, ENGINE)
        expected = plain_step(plain, inputs, turn)
        state = result.state
        stats = torch.cat([plain.mean, plain.var]).detach().numpy()
        np.testing.assert_allclose(state[STATS][0], stats, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach().numpy(), rtol=1e-4, atol=1e-5)
        if expected is not None:
            np.testing.assert_allclose(result.logits, expected.detach().numpy(), rtol=1e-3, atol=1e-4)
    return state, result
