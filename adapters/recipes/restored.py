"""Any recipe with what brings its sessions back (`restoration/policy.py`)."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from acclimate.adapters.moves import Restoring
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration.policy import PARTS, PREFIX, Policy
from acclimate.adapters.watch import REASON

# Recipes that descend on the parameters they serve, so that part of those can be put back at a step. The others move
# none, or serve a teacher's or a candidate's: what is put back there, the next step would undo.
DESCENDING = frozenset({
    "auto",
    "cafa",
    "deyo",
    "eata",
    "eta",
    "ostta",
    "rdumb",
    "roid",
    "sar",
    "supervised",
    "tempo",
    "tent",
    "zoa",
})  # fmt: skip
NEVER_LEARNS = frozenset({"source"})


def applicable(name: str) -> dict[str, float]:
    """The defaults of the parameters `restoration.*` that a recipe of this name takes."""
    if name in NEVER_LEARNS:
        return {}
    defaults: dict[str, float] = {field.name: field.default for field in dataclasses.fields(Policy)}  # type: ignore[misc]
    taken = [key for key in defaults if name in DESCENDING or key not in PARTS]
    return {PREFIX + key: defaults[key] for key in taken}


def restored(recipe: Recipe, policy: Policy) -> Recipe:
    """The recipe, composed with the policy."""
    parts, move, guards = policy.parts(), recipe.move, recipe.guards
    if parts and move is not None:
        move = Restoring(move, parts)
    if policy.rollbacks:
        guards = replace(guards, max_strikes=policy.rollbacks)
    resets = (*policy.resets(REASON), *recipe.resets)
    return replace(recipe, move=move, guards=guards, resets=resets, ring=policy.checkpoints())
