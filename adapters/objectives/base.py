"""An objective turns logits into a per-sample loss and its gradient with respect to those logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from acclimate.adapters.layout import Float


@dataclass(frozen=True, slots=True)
class Value:
    """Per-sample loss `[B]` in nats and cotangent `[B, C]` = d loss / d logits; weights come later.

    With `of_features` the cotangent is `[B, D]` = d loss / d features instead.
    """

    loss: Float
    cotangent: Float
    of_features: bool = False


Objective = Callable[[Float], Value]
