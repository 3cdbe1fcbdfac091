"""From examples to the units of an epoch: windows, pairs, candidates as branches, lines."""

from __future__ import annotations

from collections import Counter
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
    """Each held example after the shown ones, which are computed once: a tree with a branch for each.

    Where its answer can be told from others, they are branches as well, see `Unit.rivals`: its candidates, or in a task
    with few answers those that several examples share.
    """
    units, tree, trunk = [], Tree(), NONE
    known = _shared([*shown, *held])
    asked = [(example, _rivals(example, known, room)) for example in held]
    sizes = [len(one.prompt) + len(one.completion) + sum(map(len, others)) for one, others in asked]
    width = 1 + max((len(others) for _, others in asked), default=0)
    context = _line(shown, room - max(sizes, default=0))
    length, questions = len(context), 0
    trunk = tree.add(context)
    for (example, others), size in zip(asked, sizes, strict=True):
        if size > room:
            continue
        if length + size > room and questions:
            units.append(tree.unit(rivals=width if width > 1 else 0))
            tree, length, questions = Tree(), len(context), 0
            trunk = tree.add(context)
        last = tree.add(example.prompt, trunk)
        tree.add(example.completion, last, weight=1.0, branch=questions * width)
        for place, other in enumerate(others, 1):
            tree.add(other, last, branch=questions * width + place)
        length, questions = length + size, questions + 1
    return [*units, tree.unit(rivals=width if width > 1 else 0)] if questions else units


def question(context: Ids, prompt: Ids, candidates: Sequence[Ids], gold: int = 0) -> Unit:
    """What is asked once for all candidates: context, prompt, and a branch for each candidate."""
    tree = Tree()
    trunk = tree.add(prompt, tree.add(context))
    for at, candidate in enumerate(candidates):
        tree.add(candidate, trunk, weight=float(at == gold), branch=at)
    return tree.unit(gold)


def _shared(examples: Sequence[Example]) -> list[Ids]:
    """Completions that more than one example has, where those of most examples are such: a task with few answers."""
    times = Counter(example.completion.tobytes() for example in examples)
    shared = {ids: count for ids, count in times.items() if count > 1 and ids}
    return [np.frombuffer(ids, np.int64) for ids in shared] if 2 * sum(shared.values()) > len(examples) else []


def _rivals(example: Example, shared: Sequence[Ids], room: int) -> list[Ids]:
    """What the example's completion is compared with; nothing where there is no room for all of it."""
    known = example.candidates if example.answer != NONE else shared
    others = [other for other in known if len(other) and not np.array_equal(other, example.completion)]
    fits = len(example.prompt) + len(example.completion) + sum(map(len, others)) <= room
    return others if fits else []


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
