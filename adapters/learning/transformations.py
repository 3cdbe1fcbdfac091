"""Invertible transformations of a question with lettered options: the same question, its options in another order.

A model that learns from them, or votes over them, cannot answer by the letter alone (the invertible transformations of
Akyürek et al. 2025, arXiv 2411.07279, section 3.1, in the form that questions in words allow).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)


def options(prompt: str) -> list[str]:
    """The letters of the options, in order; empty where the question has none."""
    letters = [match.group(1) for match in OPTION.finditer(prompt)]
    return letters if letters == [chr(ord("A") + at) for at in range(len(letters))] else []


def reorder(prompt: str, order: Sequence[int]) -> str:
    """The question with option `order[k]` in place `k`, lettered anew.

    Raises:
        ValueError: `order` is no permutation of the question's options.
    """
    found = list(OPTION.finditer(prompt))
    if sorted(order) != list(range(len(found))):
        raise ValueError(f"order: {list(order)} is no permutation of the {len(found)} options of the question")
    pieces, end = [], 0
    for place, match in enumerate(found):
        pieces += [prompt[end : match.start(2)], found[order[place]].group(2)]
        end = match.end(2)
    return "".join([*pieces, prompt[end:]])


def answer_there(letter: str, order: Sequence[int]) -> str:
    """The letter that an option has after `reorder`, given the one it had."""
    return chr(ord("A") + list(order).index(ord(letter) - ord("A")))


def answer_back(letter: str, order: Sequence[int]) -> str:
    """The inverse of `answer_there`."""
    return chr(ord("A") + order[ord(letter) - ord("A")])
