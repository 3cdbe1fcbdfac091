"""The page of recipes is current, and what it says a recipe asks for is what it asks for."""

import numpy as np
import pytest

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes import BOUNDS, RECIPES, values
from acclimate.adapters.recipes.page import CARDS, markdown
from acclimate.adapters.requests import Gradient
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, rows_of, step, stream
from tests.house.tree import ROOT

ENGINE = reference_engine()


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8") == markdown(), (
        "python -m acclimate.adapters.recipes.page > docs/recipes.md"
    )


def test_every_recipe_has_a_card_and_every_bound_a_parameter() -> None:
    assert set(CARDS) == set(RECIPES)
    assert set(BOUNDS) == {parameter for name in RECIPES for parameter in values(name, {})}


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"source"}))
def test_a_step_asks_for_what_its_card_says(name: str) -> None:
    """At the recipe's own batch size; the guards ask the quantized model only."""
    chosen, asked = recipe(name, ENGINE, Guards(canary_every=0)), []
    rows = chosen.batch_rows
    inputs, group = stream(0, rows), np.zeros(rows, np.intp)
    result = step(chosen, fresh(chosen, ENGINE, 1), inputs, group, asked=asked)
    card, forwards, gradients = CARDS[name], result.asked.forward, result.asked.backward
    assert sum(rows_of(asked, Gradient)) == gradients
    if card.selective:
        assert 0 < gradients <= card.gradients * rows
        assert (card.forwards - 1) * rows <= forwards <= card.forwards * rows
    else:
        assert (forwards, gradients) == (card.forwards * rows, card.gradients * rows)
