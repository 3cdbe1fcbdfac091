"""Recipes that no other file holds to a plain loop over one session, written from METHODS' equations."""

import math

import numpy as np
import torch

from acclimate.adapters.critic import LABEL, MARGIN, RELIABILITY, TEMPERATURE
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.moves import evolution
from acclimate.adapters.moves.shrinking import CHOICE, DOMAIN
from acclimate.adapters.randomness import keys, normal
from acclimate.runtime.engines.reference import EPSILON
from tests.adapters.plain import (
    ENGINE,
    OPEN,
    PRIOR,
    ROWS,
    ZEROS,
    Plain,
    against,
    descend,
    entropies,
    tensor,
)
from tests.adapters.plain import STEPS as TURNS
from tests.adapters.stepping import fresh, recipe, step, stream

CLASSES = 5
MARGIN_NATS = 0.4 * math.log(CLASSES)


class Selective:
    """EATA's loss over a session's batches: reliable, unlike the running mean of predictions, weighted."""

    def __init__(self, epsilon: float, beta: float = 0.0) -> None:
        self.epsilon, self.beta = epsilon, beta
        self.mean: torch.Tensor | None = None
        self.kept: list[int] = []

    def __call__(self, session: Plain, logits: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        loss, p = entropies(logits), logits.softmax(1).detach()
        keep = loss.detach() < MARGIN_NATS
        if self.mean is not None:
            keep &= torch.cosine_similarity(p, self.mean[None]).abs() < self.epsilon
        self.kept.append(int(keep.sum()))
        if keep.any():
            new = p[keep].mean(0)
            self.mean = new if self.mean is None else 0.9 * self.mean + 0.1 * new
            pull = self.beta * ((session.theta - session.source) ** 2).sum()
            descend(optimiser, (torch.exp(MARGIN_NATS - loss.detach()) * loss)[keep].mean() + pull)


def test_source_is_the_frozen_model_and_stays_so() -> None:
    chosen, plain = recipe("source", ENGINE), Plain()
    state = fresh(chosen, ENGINE, 1)
    inputs = stream(0, ROWS, features=6)
    served = ENGINE.predict(inputs, ENGINE.fold(state[THETA][0], state[STATS][0]))
    np.testing.assert_allclose(served, plain.logits(tensor(inputs)).detach(), rtol=1e-4, atol=1e-5)
    assert not chosen.learns


def test_norm_ema_follows_torchs_running_statistics() -> None:
    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.mean, session.var = session.blend(tensor(inputs), 0.1)
        return session.logits(tensor(inputs))

    against("norm_ema", Plain(), plain_step, {"momentum": 0.1})


def test_norm_alpha_blends_the_source_with_the_latest_batch_alone() -> None:
    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.mean, session.var = Plain().blend(tensor(inputs), 0.3)
        return session.logits(tensor(inputs))

    against("norm_alpha", Plain(), plain_step, {"alpha": 0.3})


def test_eta_follows_torch() -> None:
    plain, selective = Plain(), Selective(0.9)
    adam = torch.optim.Adam([plain.theta], lr=1e-2)

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.follow(tensor(inputs))
        logits = session.logits(tensor(inputs))
        selective(session, logits, adam)
        return logits

    against("eta", plain, plain_step, {"lr": 1e-2, "epsilon": 0.9, "prior": PRIOR})
    assert 0 < sum(selective.kept) < TURNS * ROWS


def test_rdumb_is_eta_that_begins_anew() -> None:
    chosen = recipe("rdumb", ENGINE, OPEN, batch_rows=ROWS, lr=1e-2, epsilon=0.9, prior=PRIOR, reset_every=3)
    state, resets = fresh(chosen, ENGINE, 1), []
    for turn in range(8):
        if turn % 3 == 0:
            plain, selective = Plain(), Selective(0.9)
            adam = torch.optim.Adam([plain.theta], lr=1e-2)
        inputs = stream(turn, ROWS, features=6)
        plain.follow(tensor(inputs))
        selective(plain, plain.logits(tensor(inputs)), adam)
        result = step(chosen, state, inputs, ZEROS, ENGINE)
        np.testing.assert_allclose(result.state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)
        state = fresh(chosen, ENGINE, 1) if result.restore[0] else result.state
        resets.append(bool(result.restore[0]))
    assert resets == [turn % 3 == 2 for turn in range(8)]


def test_sar_follows_torch() -> None:
    plain, kept = Plain(), []
    sgd = torch.optim.SGD([plain.theta], lr=0.05, momentum=0.9)

    def selected(session: Plain, x: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = entropies(session.logits(x, theta))
        return loss, loss.detach() < MARGIN_NATS

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        logits = session.logits(x)
        loss, first = selected(session, x, session.theta)
        (slope,) = torch.autograd.grad(loss[first].mean(), session.theta)
        there = (session.theta.detach() + 0.05 * slope / slope.norm()).requires_grad_(True)
        loss, second = selected(session, x, there)
        kept.append(int((first & second).sum()))
        (session.theta.grad,) = torch.autograd.grad(loss[first & second].mean(), there)
        sgd.step()
        return logits

    against("sar", plain, plain_step, {"lr": 0.05, "rho": 0.05, "floor": 0, "prior": PRIOR})
    assert 0 < min(kept) <= max(kept) < ROWS


def test_lame_follows_torch() -> None:
    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.follow(tensor(inputs))
        logits = session.logits(tensor(inputs)).detach()
        p, gamma = logits.softmax(1), session.theta.detach()[:6]
        hidden = (
            gamma * (tensor(inputs) - session.mean) / torch.sqrt(session.var + EPSILON) + session.theta.detach()[6:]
        )
        places = torch.nn.functional.normalize(hidden)
        distance = torch.cdist(places, places).fill_diagonal_(torch.inf)
        affinity = torch.zeros_like(distance).scatter_(1, distance.topk(3, largest=False).indices, 1.0)
        answer = p
        for _ in range(300):
            answer = (p.log() + affinity @ answer).softmax(1)
        return answer.log()

    against("lame", Plain(), plain_step, {"neighbours": 3, "prior": PRIOR})


def test_label_shift_follows_torch() -> None:
    base = tensor(ENGINE.source.class_prior)
    held = {"prior": base}

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.follow(tensor(inputs))
        corrected = session.logits(tensor(inputs)).detach() + torch.log((0.8 * held["prior"] + 0.2 * base) / base)
        gain = ROWS / (ROWS + 50)
        held["prior"] = (1 - gain) * held["prior"] + gain * corrected.softmax(1).mean(0)
        return corrected

    against("label_shift", Plain(), plain_step, {"memory": 50, "smoothing": 0.2, "prior": PRIOR})
    assert (held["prior"] - base).abs().max() > 0.01


def test_tempo_with_feedback_follows_torch() -> None:
    """The critic's constants are those of the step, which `test_critic.py` holds to arithmetic."""
    chosen = recipe(
        "tempo", ENGINE, OPEN, batch_rows=ROWS, lr=1e-2, epsilon=1, beta=0.1, calibrate_every=2, prior=PRIOR
    )
    state, plain = fresh(chosen, ENGINE, 1), Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    draws, temperatures, told_so_far, bold, rate = np.random.default_rng(0), set(), 0, False, 0.0
    for turn in range(TURNS):
        inputs = stream(turn, ROWS, features=6)
        labels = np.where(np.arange(ROWS) % 3 == 0, draws.integers(0, CLASSES, ROWS), -1)
        margin, temperature = float(state[MARGIN][0]), float(state[TEMPERATURE][0])
        reliability = tensor(state[RELIABILITY][0])
        temperatures.add(temperature)
        x, given = tensor(inputs), torch.tensor(labels)
        # From eight labels on, gradients flow through the batch's statistics, and steps are longer: four times from two
        # labels a step on.
        if told_so_far >= 8 and not bold:
            bold, adam = True, torch.optim.Adam([plain.theta])
        if bold:
            adam.param_groups[0]["lr"] = 1e-2 * (1 + 3 * min(rate / 2, 1))
        flowing = plain.blend(x, ROWS / (ROWS + PRIOR))
        plain.follow(x)
        logits = plain.logits(x, stats=flowing if bold else None)
        own = entropies(logits / temperature)
        # The weight of EATA's filter is exp(E0 - H); the critic's margin takes the place of E0.
        keep, known = own.detach() < margin, given >= 0
        plainly = torch.where(keep, torch.exp(margin - own.detach()), 0.0)
        trust = plainly * reliability[logits.argmax(1)]
        trust = trust * plainly.sum() / trust.sum().clamp(min=1e-300)
        weight = torch.where(known, 0.3 * math.exp(MARGIN_NATS), trust)
        told = torch.nn.functional.cross_entropy(logits, given.clamp(min=0), reduction="none")
        loss = torch.where(known, told, own)
        pull = 0.1 * ((plain.theta - plain.source) ** 2).sum()
        descend(adam, (weight * loss).sum() / (weight > 0).sum() + pull)
        state = step(chosen, state, inputs, ZEROS, ENGINE, labels=labels).state
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)
        told_so_far += int((labels >= 0).sum())
        rate += ((labels >= 0).sum() - rate) / 16
    assert told_so_far == (state[LABEL][0] >= 0).sum() == TURNS * 6
    assert len(temperatures) > 1, "the critic was never recalibrated"


def test_auto_follows_torch() -> None:
    """Batch-normalised descent, the domain's average, and the least blend whose answers hold the most information."""
    blends, plain, selective = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0), Plain(), Selective(1.1, beta=0.1)
    adam = torch.optim.Adam([plain.theta], lr=1e-2 * ROWS / 64)
    # Eager for ever, and with no drift to be seen: every batch is a step, and every step a descent.
    eager = {"surprise": 1e6, "eager": 1e6, "alarm": 1e6}
    chosen = recipe("auto", ENGINE, OPEN, batch_rows=ROWS, lr=1e-2, epsilon=1, beta=0.1, **eager)
    state, home, choices = fresh(chosen, ENGINE, 1), Plain(), []
    start = torch.cat([home.mean, home.var])
    domain, count = start, 0.0
    entropy, marginal = torch.zeros(6, dtype=torch.float64), torch.zeros(6, CLASSES, dtype=torch.float64)
    for turn in range(8):
        inputs = stream(turn, ROWS, features=6, shift=0.4, scale=1.3)
        x = tensor(inputs)
        batch = torch.cat(plain.blend(x, 1.0))
        domain = domain + ROWS / (ROWS + min(count, 512)) * (batch - domain)
        # The first batch counts a quarter.
        count = min(count, 512) + ROWS if turn else ROWS / 4
        with torch.no_grad():
            answers = [plain.logits(x, stats=(start + b * (domain - start)).chunk(2)) for b in blends]
        tried = range(6) if turn == 0 else [choices[-1], choices[-1] + (1 if turn % 2 == 0 else -1)]
        information = torch.full((6,), -torch.inf, dtype=torch.float64)
        for k in tried:
            if not 0 <= k < 6:
                continue
            part, keep = answers[k], 0.7 if turn else 0.0
            entropy[k] = keep * entropy[k] + (1 - keep) * entropies(part).mean()
            marginal[k] = keep * marginal[k] + (1 - keep) * part.softmax(1).mean(0)
            information[k] = -(marginal[k] * marginal[k].log()).sum() - entropy[k]
        choices.append(int((information >= information.max() - 0.03).int().argmax()))
        selective(plain, plain.logits(x, stats=batch.chunk(2)), adam)
        result = step(chosen, state, inputs, ZEROS, ENGINE)
        state = result.state
        assert state[CHOICE][0] == choices[-1]
        np.testing.assert_allclose(result.logits, answers[choices[-1]], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state[DOMAIN][0], domain, rtol=1e-4, atol=1e-5)
        blended = start + blends[choices[-1]] * (domain - start)
        np.testing.assert_allclose(state[STATS][0], blended, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)
    assert 0 < sum(selective.kept) < 8 * ROWS


class Search:
    """The tutorial's figure 6 for one search, line by line."""

    def __init__(self, n: int, population: int) -> None:
        self.n, self.mu = n, population // 2
        raw = [math.log((population + 1) / 2) - math.log(i + 1) for i in range(self.mu)]
        self.w = np.array(raw) / sum(raw)
        self.mueff = 1 / (self.w**2).sum()
        self.cs = (self.mueff + 2) / (n + self.mueff + 5)
        self.ds = 1 + 2 * max(0, math.sqrt((self.mueff - 1) / (n + 1)) - 1) + self.cs
        self.cc = (4 + self.mueff / n) / (n + 4 + 2 * self.mueff / n)
        self.c1 = 2 / ((n + 1.3) ** 2 + self.mueff)
        self.cmu = min(1 - self.c1, 2 * (self.mueff - 2 + 1 / self.mueff) / ((n + 2) ** 2 + self.mueff))
        self.chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        self.m, self.sigma, self.c = np.zeros(n), 1.0, np.eye(n)
        self.ps, self.pc, self.g = np.zeros(n), np.zeros(n), 0

    def ask(self, z: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(self.c)
        self.root = vectors @ np.diag(values**-0.5) @ vectors.T
        return np.array([self.m + self.sigma * (vectors @ (np.sqrt(values) * one)) for one in z])

    def tell(self, points: np.ndarray, fitness: np.ndarray) -> None:
        y = (points[np.argsort(fitness, kind="stable")[: self.mu]] - self.m) / self.sigma
        yw = self.w @ y
        self.m, self.g = self.m + self.sigma * yw, self.g + 1
        self.ps = (1 - self.cs) * self.ps + math.sqrt(self.cs * (2 - self.cs) * self.mueff) * self.root @ yw
        length = np.linalg.norm(self.ps)
        settled = length / math.sqrt(1 - (1 - self.cs) ** (2 * self.g)) < (1.4 + 2 / (self.n + 1)) * self.chi
        self.pc = (1 - self.cc) * self.pc + settled * math.sqrt(self.cc * (2 - self.cc) * self.mueff) * yw
        lost = 0.0 if settled else self.c1 * self.cc * (2 - self.cc)
        self.c = (1 - self.c1 - self.cmu + lost) * self.c + self.c1 * np.outer(self.pc, self.pc)
        self.c += self.cmu * sum(w * np.outer(one, one) for w, one in zip(self.w, y, strict=True))
        self.sigma *= math.exp(min(self.cs / self.ds * (length / self.chi - 1), 1))


def test_foa_follows_the_tutorials_search() -> None:
    search, source = Search(3, 10), tensor(ENGINE.source.theta)
    basis = tensor(normal(keys(0, evolution.BASIS, np.arange(3)), 12)) / math.sqrt(3)
    improved = []

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        draws = normal(keys(0, evolution.CANDIDATE, turn), 30).reshape(10, 3)
        points = search.ask(draws.astype(np.float64))
        with torch.no_grad():
            thetas = [source + 0.2 * tensor(point) @ basis for point in points]
            # The statistics of this engine's only layer do not depend on theta, so their term is the same for all.
            fitness = [entropies(session.logits(x, theta)).mean().item() for theta in thetas]
            best = int(np.argmin(fitness))
            improved.append(fitness[best] < entropies(session.logits(x)).mean().item())
            if improved[-1]:
                session.theta.copy_(thetas[best])
            search.tell(points, np.array(fitness))
            return session.logits(x)

    settings = {"dimensions": 3, "population": 10, "radius": 0.2, "prior": PRIOR}
    state, result = against("foa", Plain(), plain_step, settings)
    assert any(improved)
    assert result.asked.backward == 0
    assert state[STEPS][0] == TURNS
