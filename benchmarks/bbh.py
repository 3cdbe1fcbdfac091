"""Test-time training on BIG-Bench Hard: zero-shot, in context, and after `ttt`, task by task.

    python -m benchmarks.bbh --data ../shared/data/bbh --json

Each task (Suzgun et al. 2022, arXiv 2210.09261) gives ten demonstrations; of the rest, `--limit` are asked. Answers of
a closed set are chosen by log-probability, others written greedily and compared word for word. `ttt` is asked as
`in_context` is, with what was learnt of the demonstrations; where the guard kept the source, its answers are those of
`in_context`, and are not computed again. `--unguarded` asks with what was learnt, kept or not: what the guard is good
for. `--ways` asks each question several times, with demonstrations and lettered options in other orders, and takes a
vote: for `in_context` and `ttt` alike. With `--keep FILE` a run that was cut off goes on where it ended: tasks that the
file has are not measured again. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acclimate.adapters.learning.recipes import language_lesson
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.foundation import Foundation, foundation
from acclimate.runtime.language.jobs import Job, LearningBudget, Learnt
from acclimate.runtime.language.learning import learn
from benchmarks import _bbh as tasks
from benchmarks._language import add_model, add_parameters, engine_of
from benchmarks._report import ROOT, Report, Value, emit, parser

DATA = ROOT.parent / "shared" / "data" / "bbh"


def main() -> None:
    """Every task in the table; means, and what the guard held, in the figures."""
    chosen = _parse()
    names = tasks.names(chosen.data, chosen.tasks)
    engine = engine_of(chosen)
    base = foundation(engine)
    rows = tasks.Kept(chosen.keep, _settings(chosen)).all(
        names, lambda name: _measured(engine, base, tasks.read(chosen.data, name, chosen), chosen)
    )
    columns = ["zero_shot", "in_context", "ttt", *(["unguarded"] if chosen.unguarded else [])]
    figures = {name: float(np.mean([float(row[name]) for row in rows])) for name in columns}
    changes = [float(row["ttt"]) - float(row["in_context"]) for row in rows]
    figures |= {"tasks": len(rows), "kept": sum(row["verdict"] == "learnt" for row in rows)}
    figures |= {"worst_change_points": min(changes), "best_change_points": max(changes)}
    figures |= {"fell": sum(change < 0 for change in changes), "rose": sum(change > 0 for change in changes)}
    if chosen.unguarded:
        unguarded = [float(row["unguarded"]) - float(row["in_context"]) for row in rows]
        figures |= {"unguarded_fell": sum(change < 0 for change in unguarded)}
        figures |= {"unguarded_rose": sum(change > 0 for change in unguarded)}
        figures |= {"unguarded_worst_change_points": min(unguarded)}
    figures["learn_seconds_per_task"] = float(np.mean([float(row["learn_seconds"]) for row in rows]))
    emit(Report("bbh", figures, rows), as_json=chosen.json)


def _measured(
    engine: LanguageEngine, base: Foundation, task: tasks.Task, chosen: argparse.Namespace
) -> Mapping[str, Value]:
    """One task's accuracies, and what became of its lesson."""
    began = time.process_time()
    lesson = language_lesson("ttt", dict(chosen.parameter))
    budget = LearningBudget(milliseconds=1e3 * chosen.learn_seconds)
    job = Job(task.name, engine.source.theta, tasks.examples(engine, task), budget=budget, seed=chosen.seed)
    (learnt,) = (r for r in learn(engine, lesson, [job], base, time.process_time) if isinstance(r, Learnt))
    seconds = time.process_time() - began
    row: dict[str, Value] = {"task": task.name, "asked": len(task.asked)}
    source = engine.source.theta
    row["zero_shot"] = tasks.accuracy(engine, task, source, in_context=False, ways=chosen.ways)
    row["in_context"] = tasks.accuracy(engine, task, source, in_context=True, ways=chosen.ways)
    row["ttt"] = row["in_context"]
    if learnt.kept:
        row["ttt"] = tasks.accuracy(engine, task, learnt.theta, in_context=True, ways=chosen.ways)
    if chosen.unguarded:
        row["unguarded"] = tasks.accuracy(engine, task, learnt.reached, in_context=True, ways=chosen.ways)
    row |= {"steps": learnt.steps, "tokens": learnt.tokens, "learn_seconds": seconds}
    row |= {"held_out_before": learnt.held_out_before or 0.0, "held_out_after": learnt.held_out_after or 0.0}
    row |= {"demonstrations_right_before": _percent(learnt.accuracy_before)}
    row |= {"demonstrations_right_after": _percent(learnt.accuracy_after)}
    row |= {"canary_ratio": learnt.canary_ratio, "verdict": str(learnt.verdict), "stopped": str(learnt.stopped)}
    print(row, file=sys.stderr, flush=True)
    return row


def _percent(share: float | None) -> float | str:
    return "-" if share is None else 100 * share


def _settings(chosen: argparse.Namespace) -> dict[str, str]:
    """What a kept row depends on."""
    named = ("model", "precision", "rank", "limit", "demonstrations", "ways", "seed", "learn_seconds", "unguarded")
    return {name: str(getattr(chosen, name)) for name in named} | {"parameter": str(sorted(chosen.parameter))}


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    add_model(options)
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--tasks", nargs="*", default=[], help="some of them by name (default: all)")
    options.add_argument("--limit", type=int, default=20, help="questions asked of each task (default: %(default)s)")
    options.add_argument("--demonstrations", type=int, default=10)
    options.add_argument("--ways", type=int, default=1, help="orders in which to ask, and vote (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--learn-seconds", type=float, default=600.0, help="processor time to learn a task (default: %(default)s)"
    )
    options.add_argument("--unguarded", action="store_true", help="ask also with what was learnt where it is refused")
    options.add_argument("--keep", type=Path, metavar="FILE", help="where measured tasks are kept, to go on later")
    add_parameters(options)
    return options.parse_args()


if __name__ == "__main__":
    main()
