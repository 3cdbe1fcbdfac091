"""The parts of `docs/recipes.md` that hold for every recipe: what brings sessions back, and what tells drift."""

from __future__ import annotations

import dataclasses

from acclimate.adapters.restoration.policy import PARTS, PREFIX, Policy
from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.watch import DEFAULTS, SENSITIVITY

TEXTS: dict[str, str] = {
    "pull": "strength of a pull of theta toward the source, weighted by its Fisher (Niu et al. 2022, eq. 8); "
    "a proximal step, beside the pull that a recipe has itself (`beta`)",
    "stochastic": "probability with which each parameter goes back at a step (Wang et al. 2022, eq. 8)",
    "masked": "share of the parameters, of least squared gradient, that goes back at a step (Brahma and Rai 2023, "
    "eq. 9)",
    "radius": "theta is put back onto this relative distance of the source; 0: the guard's trust region alone",
    "every": "the session goes back at each such step (Press et al. 2023); reason `periodic`",
    "on_drift": "1: it goes back when its stream changes; reason `drift`",
    "on_canary": "1: it goes back at the first step that the canary guard refuses; reason `canary`",
    "on_collapse": "1: it goes back at the first step that the collapse guard refuses; reason `collapse`",
    "rollbacks": "refusals in a row after which it goes back; 0: `adaptation.max_consecutive_rollbacks`; reason "
    "`strikes`",
    "ring": "checkpoints kept to go back to, the one that answered the canaries best; 0: back to the source",
    "ring_every": "steps between two checkpoints",
}
SIGNAL_TEXTS: dict[str, str] = {
    "entropy": "mean entropy of a step's answers, as a share of ln C",
    "confidence": "how far their mean confidence is from certain, as a share of what it is at chance",
    "statistics": "ln(1 + d), d the distance of the batch's statistics from the source's in its variances",
    "predictions": "Jensen-Shannon divergence of their mean prediction from the class prior and from a slow average, "
    "the mean of both as a share of ln 2",
    "parameters": "ln(1 + d), d the distance of theta from the source in units of its Fisher",
}


def restoration_section() -> str:
    """What brings a session back, one row a parameter."""
    rows = [
        f"| `{PREFIX}{field.name}` | {getattr(Policy(), field.name):g} | {'theta' if field.name in PARTS else 'all'} "
        f"| {TEXTS[field.name]} |"
        for field in dataclasses.fields(Policy)
    ]
    return _RESTORATION + "\n".join(rows) + "\n"


def drift_section() -> str:
    """What tells drift, one row a signal."""
    rows = [
        f"| `{signal}` | {SIGNAL_TEXTS[signal]} | `{DEFAULTS[signal]}` | {SENSITIVITY[signal][0]:g}, "
        f"{SENSITIVITY[signal][1]:g} |"
        for signal in SIGNALS
    ]
    return _DRIFT + "\n".join(rows) + "\n"


_RESTORATION = """## What brings a session back

Every recipe but `source` takes these parameters too, with the same meaning; `restoration.*` of the configuration sets
what they are for sessions that do not choose. Those marked *theta* act on the parameters within a step and are taken by
the recipes that descend on what they serve. The others say when a session goes back as a whole: to the best checkpoint
of its ring, or to the source where it has none. Each return is told by an event with its reason and the version gone
back to; the ring is counted in the session's bytes.

| parameter | default | for | meaning |
|---|--:|---|---|
"""

_DRIFT = """## What tells drift

Each step of a session reads these levels and feeds each to the detector that `drift.*` of the configuration chooses:
`page_hinkley` (tolerance and threshold below, for 32 samples a step; the signal of a smaller step counts for less),
`adwin` (delta 0.002; slower, and it adapts to the signal's noise) or `none`. A change is told by an event that names
the signal; the levels are in the session and, at their highest, in `acclimate_drift_level_max_ratio`. Alone it changes
nothing but `auto`'s rest: see `restoration.on_drift`.

| signal | level | detector | tolerance, threshold |
|---|---|---|---|
"""
