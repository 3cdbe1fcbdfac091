"""From examples to the units of an epoch: windows, pairs, candidates as branches, lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acclimate.adapters.language import Ids
from acclimate.adapters.learning.units import NONE, Example, Tree, Unit


def documents(examples: Sequence[Example], _random: np.random.Generator, room: int) -> list[Unit]:
    """Everything there is to read, prompts and completions alike, in windows of at most `room` tokens."""
    units = []
    for example in examples:
        text = np.concatenate([example.prompt, example.completion])
        for start in range(0, len(text), room):
            window = Tree()
            window.add(text[start : start + room], weight=1.0)
            units.append(window.unit())
    return [unit for unit in units if unit.tokens > 1]


def pairs(examples: Sequence[Example], random: np.random.Generator, room: int) -> list[Unit]:
    """One unit an example: the loss is on the completion, or on all of a document.

    Candidates, where there are some, are branches of the prompt: one unit compares them all, and computes the prompt
    once. What exceeds `room` tokens loses the beginning of its prompt.
    """
    units: list[Unit] = []
    for example in examples:
        if len(example.completion) == 0:
            units += documents([example], random, room)
        else:
            units.append(_asked(example, room))
    return units


def demonstrations(examples: Sequence[Example], random: np.random.Generator, room: int, orders: int) -> list[Unit]:
    """All examples in line, in `orders` random orders, with the loss on every completion and on no prompt.

    Each order holds a leave-one-out task for every length of context: an answer is learnt given the demonstrations
    before it (Akyürek et al. 2025, "The surprising effectiveness of test-time training", arXiv 2411.07279, section 3;
    loss on inputs hurts there). Examples that do not fit into `room` are left out of an order.
    """
    units = []
    for _ in range(orders):
        line, length, last = Tree(), 0, NONE
        for at in random.permutation(len(examples)):
            example = examples[at]
            size = len(example.prompt) + len(example.completion)
            if length + size > room:
                continue
            last = line.add(example.prompt, last)
            last = line.add(example.completion, last, weight=1.0)
            length += size
        if length:
            units.append(line.unit())
    return units


def in_context(shown: Sequence[Example], held: Sequence[Example], room: int) -> list[Unit]:
    """Each held example after the shown ones, which are computed once: a tree with a branch for each."""
    units, tree, trunk = [], Tree(), NONE
    sizes = [len(example.prompt) + len(example.completion) for example in held]
    spare = room - max(sizes, default=0)
    context = _line(shown, spare)
    length = len(context)
    trunk = tree.add(context)
    for at, (example, size) in enumerate(zip(held, sizes, strict=True)):
        if size > room:
            continue
        if length + size > room and length > len(context):
            units.append(tree.unit())
            tree, length = Tree(), len(context)
            trunk = tree.add(context)
        last = tree.add(example.prompt, trunk, branch=at)
        tree.add(example.completion, last, weight=1.0, branch=at)
        length += size
    return [*units, tree.unit()] if length > len(context) else units


def question(context: Ids, prompt: Ids, candidates: Sequence[Ids], gold: int = 0) -> Unit:
    """What is asked once for all candidates: context, prompt, and a branch for each candidate."""
    tree = Tree()
    trunk = tree.add(prompt, tree.add(context))
    for at, candidate in enumerate(candidates):
        tree.add(candidate, trunk, weight=float(at == gold), branch=at)
    return tree.unit(gold)


def _asked(example: Example, room: int) -> Unit:
    longest = max((len(candidate) for candidate in example.candidates), default=len(example.completion))
    prompt = example.prompt[-max(room - longest, 1) :]
    if example.answer != NONE:
        return question(np.zeros(0, np.int64), prompt, example.candidates, example.answer)
    tree = Tree()
    tree.add(example.completion[: max(room - len(prompt), 1)], tree.add(prompt), weight=1.0)
    return tree.unit(advantage=example.advantage)


def _line(examples: Sequence[Example], room: int) -> Ids:
    """Examples in line, the last that fit."""
    parts: list[Ids] = []
    length = 0
    for example in reversed(examples):
        length += len(example.prompt) + len(example.completion)
        if length > room:
            break
        parts += [example.completion, example.prompt]
    return np.concatenate(parts[::-1]) if parts else np.zeros(0, np.int64)
