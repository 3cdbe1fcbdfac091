"""Token buckets of adaptation time, vectorised over sessions: what is not affordable is skipped and counted.

A bucket holds milliseconds of adaptation. It refills at `rate` milliseconds per second of wall time up to
`capacity`. The fields live in the session bank beside the parameters, but a reset leaves them alone: forgetting
what was learnt does not buy new budget.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State

PREFIX = "budget."
TOKENS = "budget.tokens_ms"
AT = "budget.at_s"
RATE = "budget.refill_ms_per_s"
CAPACITY = "budget.capacity_ms"
FIELDS = (TOKENS, AT, RATE, CAPACITY)


def template(refill_ms_per_s: float, capacity_ms: float, now: float) -> State:
    """A full bucket, as one session's fields; `now` in seconds."""
    values = {TOKENS: capacity_ms, AT: now, RATE: refill_ms_per_s, CAPACITY: capacity_ms}
    return {name: np.array(value, np.float64) for name, value in values.items()}


def available(state: State, now: float) -> NDArray[np.float64]:
    """Milliseconds `[S]` that each session may spend at `now`; a clock that jumps back adds nothing."""
    elapsed = np.maximum(now - state[AT], 0.0)
    result: NDArray[np.float64] = np.minimum(state[TOKENS] + elapsed * state[RATE], state[CAPACITY])
    return result


def affordable(state: State, cost_ms: float, now: float) -> NDArray[np.bool_]:
    """Which sessions `[S]` hold at least `cost_ms`."""
    result: NDArray[np.bool_] = available(state, now) >= cost_ms
    return result


def charge(state: State, cost_ms: NDArray[np.float64], now: float) -> State:
    """The bucket fields after spending `cost_ms [S]`; a step that cost more than estimated leaves a debt."""
    return {
        TOKENS: available(state, now) - cost_ms,
        AT: np.full_like(state[AT], now),
        RATE: state[RATE].copy(),
        CAPACITY: state[CAPACITY].copy(),
    }
