"""Every learning recipe against a plain torch loop over one session, written from METHODS' equations."""

import math

import numpy as np
import pytest
import torch

from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.guards import Guards
from acclimate.runtime.engines.reference import EPSILON, reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine(features=6, classes=5, seed=3)
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
PRIOR, ROWS, STEPS = 40.0, 16, 6


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


class PlainSession:
    """One session of the reference classifier with torch autograd and torch optimisers."""

    def __init__(self, lr: float) -> None:
        features = ENGINE.weights.shape[0]
        self.gamma = torch.ones(features, dtype=torch.float64, requires_grad=True)
        self.beta = torch.zeros(features, dtype=torch.float64, requires_grad=True)
        self.mean, self.var = as_tensor(ENGINE.mean), as_tensor(ENGINE.var)
        self.optimiser = torch.optim.Adam([self.gamma, self.beta], lr=lr)
        self.memory: torch.Tensor | None = None

    def logits(self, x, through_statistics: bool):
        alpha = len(x) / (len(x) + PRIOR)
        mean = (1 - alpha) * self.mean + alpha * x.mean(0)
        var = (1 - alpha) * self.var + alpha * x.var(0, unbiased=False)
        self.moved = (mean.detach(), var.detach())
        if not through_statistics:
            mean, var = self.moved
        hidden = self.gamma * (x - mean) / torch.sqrt(var + EPSILON) + self.beta
        return hidden @ as_tensor(ENGINE.weights) + as_tensor(ENGINE.bias)

    def descend(self, loss) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        theta = torch.cat([self.gamma, self.beta]).detach().numpy()
        return theta, torch.cat([self.mean, self.var]).numpy()


def entropies(logits):
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)


def tent_step(session: PlainSession, x) -> None:
    session.descend(entropies(session.logits(x, True)).mean())
    session.mean, session.var = session.moved


def norm_step(session: PlainSession, x) -> None:
    session.logits(x, False)
    session.mean, session.var = session.moved


def eata_step(session: PlainSession, x) -> None:
    logits = session.logits(x, False)
    loss, margin, p = entropies(logits), 0.4 * math.log(5), torch.softmax(logits, 1).detach()
    keep = loss.detach() < margin
    if session.memory is not None:
        keep &= torch.cosine_similarity(p, session.memory[None]).abs() < 0.9
    if keep.any():
        weight = torch.exp(margin - loss.detach())
        pull = ((torch.cat([session.gamma, session.beta]) - as_tensor(ENGINE.source.theta)) ** 2).sum() * 0.5
        mean = p[keep].mean(0)
        session.memory = mean if session.memory is None else 0.9 * session.memory + 0.1 * mean
        session.descend((weight * loss)[keep].mean() + pull)
    session.mean, session.var = session.moved


CASES = {
    "norm": (norm_step, {}),
    "tent": (tent_step, {"lr": 1e-2}),
    "eata": (eata_step, {"lr": 1e-2, "epsilon": 0.9, "beta": 0.5}),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_recipe_follows_torch(name: str) -> None:
    plain_step, parameters = CASES[name]
    chosen = recipe(name, ENGINE, OPEN, prior=PRIOR, batch_rows=ROWS, **parameters)
    state, session = fresh(chosen, ENGINE, 1), PlainSession(parameters.get("lr", 1e-2))
    for turn in range(STEPS):
        inputs = stream(turn, ROWS, features=6)
        state = step(chosen, state, inputs, np.zeros(ROWS, np.intp), ENGINE).state
        plain_step(session, as_tensor(inputs))
    theta, stats = session.state()
    np.testing.assert_allclose(state[STATS][0], stats, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state[THETA][0], theta, rtol=1e-4, atol=1e-5)
    if name != "norm":
        assert np.abs(theta - ENGINE.source.theta).max() > 1e-3
