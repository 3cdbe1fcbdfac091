"""Does personalisation pay? Users with eight intents each and a few examples: accuracy before and after learning them.

    python -m benchmarks.intents --data ../shared/data/intents --json

A session is one user of BANKING77 with 8 intents, 4 examples of each and 80 queries; the intents are scored by
log-probability. `zero_shot`: the model as it is. `in_context`: with all examples before the query. `trained`: after
the recipe `supervised` has learnt them; `trained_in_context`: with both. `..._calibrated` subtracts from an intent's
score its mean over the user's own examples, which takes no gradient: the cheapest way to use them, and the one to beat.
`gain_points`: the best trained variant less the better of zero-shot and in-context.
Sessions are learnt `--together` at a time; `batched_speedup_8` compares one epoch of eight in one batch with one after
another. `--plot FILE` measures how it goes with the number of examples instead, for `--plot-sessions` users.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.adapters.learning.lesson import Lesson
from acclimate.adapters.learning.recipes import language_lesson
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.foundation import Foundation, foundation
from acclimate.runtime.language.jobs import Job, Learnt
from acclimate.runtime.language.learning import learn
from benchmarks import _intents as intents
from benchmarks import _intents_plot
from benchmarks._language import add_model, add_parameters, engine_of
from benchmarks._report import ROOT, Report, Value, emit, parser

DATA = ROOT.parent / "shared" / "data" / "intents"


def main() -> None:
    """Every user by itself in the table, means in the figures."""
    chosen = _parse()
    intents.require(chosen.data)
    engine = engine_of(chosen)
    base = foundation(engine)
    lesson = language_lesson("supervised", dict(chosen.parameter))
    if chosen.plot:
        emit(_by_shots(engine, base, lesson, chosen), as_json=chosen.json)
        return
    users = intents.users(chosen.data, chosen.users, chosen.first + chosen.sessions, chosen.shots, chosen.seed)
    users = users[chosen.first :]
    rows: list[Mapping[str, Value]] = []
    for start in range(0, len(users), chosen.together):
        some = users[start : start + chosen.together]
        rows += _measured(engine, base, lesson, some, chosen, chosen.first + start)
    figures = {
        name: float(np.mean([float(row[name]) for row in rows])) for name in rows[0] if name not in ("user", "verdict")
    }
    figures["sessions"] = len(rows)
    figures["kept"] = sum(row["verdict"] == "learnt" for row in rows)
    best = max(figures[name] for name in ("trained", "trained_calibrated", "trained_in_context") if name in figures)
    figures["gain_points"] = best - max(figures["zero_shot"], figures.get("in_context", 0.0))
    if not chosen.skip_speed:
        figures |= _speed(engine, base, lesson, chosen)
    emit(Report("intents", figures, rows), as_json=chosen.json)


def _measured(
    engine: LanguageEngine,
    base: Foundation,
    lesson: Lesson,
    users: Sequence[intents.User],
    chosen: argparse.Namespace,
    first: int,
) -> list[Mapping[str, Value]]:
    """Accuracies of some users, learnt in one batch."""
    source = np.repeat(engine.source.theta[np.newaxis], len(users), axis=0)
    began = time.perf_counter()
    learnt = learn_all(engine, base, lesson, users, chosen.seed, first)
    seconds = (time.perf_counter() - began) / len(users)
    theta = np.stack([one.theta for one in learnt])
    columns: dict[str, list[float]] = {}
    for name, own in (("zero_shot", source), ("trained", theta)):
        scores = intents.label_scores(engine, users, own, in_context=False)
        columns[name] = intents.accuracies(users, scores)
        columns[f"{name}_calibrated"] = intents.accuracies(users, intents.calibrated(engine, users, own, scores))
    if not chosen.skip_in_context:
        for name, own in (("in_context", source), ("trained_in_context", theta)):
            columns[name] = intents.accuracies(users, intents.label_scores(engine, users, own, in_context=True))
    rows: list[Mapping[str, Value]] = []
    for at, one in enumerate(learnt):
        row: dict[str, Value] = {"user": str(first + at)}
        row |= {name: values[at] for name, values in columns.items()}
        row |= {"learn_seconds_per_session": seconds, "steps": one.steps, "tokens": one.tokens}
        row |= {"canary_ratio": one.canary_ratio, "verdict": str(one.verdict)}
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def learn_all(
    engine: LanguageEngine, base: Foundation, lesson: Lesson, users: Sequence[intents.User], seed: int, first: int = 0
) -> list[Learnt]:
    """What each user's session has learnt of its examples, all in one batch."""
    jobs = [
        Job(str(first + at), engine.source.theta, intents.lesson_of(engine, user), seed=seed + first + at)
        for at, user in enumerate(users)
    ]
    records = learn(engine, lesson, jobs, base, time.perf_counter)
    found = {record.session: record for record in records if isinstance(record, Learnt)}
    return [found[job.session] for job in jobs]


def _speed(engine: LanguageEngine, base: Foundation, lesson: Lesson, chosen: argparse.Namespace) -> dict[str, float]:
    """An epoch of eight users' lessons in one batch, and one after another."""
    short = replace(lesson, descent=replace(lesson.descent, epochs=1))
    users = intents.users(chosen.data, "tuning", 8, chosen.shots, chosen.seed)
    learn_all(engine, base, short, users[:1], chosen.seed)
    began = time.perf_counter()
    learn_all(engine, base, short, users, chosen.seed)
    together = time.perf_counter() - began
    began = time.perf_counter()
    for at, user in enumerate(users):
        learn_all(engine, base, short, [user], chosen.seed, at)
    return {"batched_speedup_8": (time.perf_counter() - began) / together}


def _by_shots(engine: LanguageEngine, base: Foundation, lesson: Lesson, chosen: argparse.Namespace) -> Report:
    """Accuracies by examples of each intent, before and after learning, and their picture."""

    def users_of(shots: int) -> list[intents.User]:
        return intents.users(chosen.data, chosen.users, chosen.plot_sessions, shots, chosen.seed)

    def teach(users: Sequence[intents.User]) -> Float:
        return np.stack([one.theta for one in learn_all(engine, base, lesson, users, chosen.seed)])

    rows = _intents_plot.measured(engine, users_of, teach)
    _intents_plot.draw(rows, chosen.plot)
    names = (*_intents_plot.LINES,)
    return Report("intents", {f"{name}_{row['examples']}": float(row[name]) for row in rows for name in names}, rows)


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    add_model(options)
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--sessions", type=int, default=10, help="users (default: %(default)s)")
    options.add_argument("--first", type=int, default=0, help="number of the first of them (default: %(default)s)")
    options.add_argument("--together", type=int, default=5, help="sessions in one batch (default: %(default)s)")
    options.add_argument("--shots", type=int, default=4, help="examples of each intent (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--users", choices=("reported", "tuning"), default="reported", help="whose intents")
    options.add_argument(
        "--plot", type=Path, help="measure 1, 2, 4 and 8 examples of each intent instead, and draw them into this file"
    )
    options.add_argument("--plot-sessions", type=int, default=3, help="users of the plot (default: %(default)s)")
    options.add_argument("--skip-in-context", action="store_true", help="leave out what takes longest")
    options.add_argument("--skip-speed", action="store_true", help="leave batched_speedup_8 out")
    add_parameters(options)
    return options.parse_args()


if __name__ == "__main__":
    main()
