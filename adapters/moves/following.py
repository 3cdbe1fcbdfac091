"""The last part of most moves: from weighted cotangents to a gradient per session, and one step of the optimiser."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.asking import ask_gradients
from acclimate.adapters.bank import State
from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where, weighted_share
from acclimate.adapters.numerics import group_sum
from acclimate.adapters.objectives import Value
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.requests import Gradient, Index, Reply, Request, Rows
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class Following:
    """How theta follows a weighted loss.

    Attributes:
        optimiser: how theta follows the gradient.
        pull: regularisation toward the source, or None.
        through_statistics: whether gradients flow through the batch statistics; then every row takes part in the
            backward pass, selected or not, as in the authors' code. Otherwise only the selected rows do.
    """

    optimiser: Optimiser
    pull: FisherPull | None = None
    through_statistics: bool = False

    def template(self, source: Source) -> State:
        """What the optimiser remembers."""
        return self.optimiser.template(source.parameters.size)

    def descend(
        self,
        source: Source,
        state: State,
        seen: Seen,
        value: Value,
        weight: Float,
        through: NDArray[np.bool_] | None = None,
    ) -> Generator[Request, Reply, Moved]:
        """One step on the mean, over a session's rows of positive weight `[B]`, of weight times loss.

        Sessions without such rows keep theta and the optimiser's state. `through [S]` says of each session whether its
        gradients flow through the batch statistics, where that differs between them.
        """
        group = seen.rows.group
        share, selected = weighted_share(weight, group, seen.sessions)
        loss = group_sum(np.where(share > 0, share * value.loss, 0).astype(np.float32), group, seen.sessions)
        keep = np.flatnonzero(weight > 0)
        if len(keep) == 0:
            return Moved({}, loss, selected, gradient=np.zeros_like(state[THETA]))
        cotangent = np.where(share[:, np.newaxis] > 0, value.cotangent * share[:, np.newaxis], 0).astype(np.float32)
        rows, keep = self._taking_part(seen, weight, through)
        cotangent = cotangent[keep]
        if value.of_features:
            request = Gradient(rows, np.zeros((len(rows), source.classes), np.float32), cotangent)
        else:
            request = Gradient(rows, cotangent)
        reply = yield from ask_gradients(request)
        gradient = group_sum(reply.grad_theta, rows.group, seen.sessions)
        if self.pull is not None:
            gradient = gradient + self.pull.gradient(state[THETA], source.theta, source.fisher)
        theta, memory = self.optimiser.next(state, state[THETA], gradient)
        moved = only_where(selected > 0, {THETA: theta} | memory, state)
        return Moved(moved, loss, selected, gradient=gradient)

    def _taking_part(self, seen: Seen, weight: Float, through: NDArray[np.bool_] | None) -> tuple[Rows, Index]:
        """Rows of the backward pass, and where in the batch they are."""
        if through is None or through.all() or not through.any():
            flows = self.through_statistics if through is None else bool(through.any())
            keep = np.arange(len(weight)) if flows else np.flatnonzero(weight > 0)
            return (seen.rows if flows else seen.still()).take(keep), keep
        moving = through[seen.rows.group]
        keep = np.flatnonzero((weight > 0) | moving)
        rows, still = seen.rows, seen.still()
        stats = np.where(moving[:, np.newaxis], rows.stats, still.stats)
        alpha = np.where(moving, rows.alpha, still.alpha)
        return replace(rows, stats=stats, alpha=alpha).take(keep), keep
