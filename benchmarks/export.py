"""Architectures through the export compiler: does each become graphs, and do the graphs agree with torch?

A row per architecture, at the published depth and width but on small pictures and short texts (see
`_architectures.py`), each in a process of its own. Weights are random unless the row says that they are real.
`forward_rel_error` compares the float graph with torch; `vjp_rel_error` is that of the worst row of the gradient
against float64 autograd, and `vjp_other_sides` how many units lay nearer to a rectifier's kink than float32 tells,
which are then compared on the graph's side; `int8_drop_points` is accuracy lost on held-out images, where there are
labels; `bytes_ratio` is all graphs and weights of the bundle over the weights in float32. What cannot be exported
says why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

from benchmarks._report import Report, emit, parser

Row = dict[str, Any]


def main() -> None:
    """Print the table or, with `--json`, one JSON object."""
    arguments = _parser().parse_args()
    rows = []
    for name in _chosen(arguments.models):
        rows.append(_in_own_process(name))
        print(f"{name}: {rows[-1]['refused'] or 'done'} ({rows[-1]['seconds']} s)", file=sys.stderr)
    emit(Report("export", figures(rows), rows), as_json=arguments.json)


def _in_own_process(name: str) -> Row:
    """The row, measured where an earlier model's memory is not in the way."""
    from benchmarks._export_rows import MEASURED, row

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(row, name).result()
        except BrokenProcessPool:
            reason = "its process was killed; most likely memory ran out"
            return {"model": name, "weights": "", **dict.fromkeys(MEASURED), "refused": reason, "seconds": 0.0}


def figures(rows: list[Row]) -> Mapping[str, float]:
    """How many architectures stand, and every error by model."""
    exported = [found for found in rows if not found["refused"]]
    counts = {
        "models": len(rows),
        "exported": len(exported),
    }
    keys = ("forward_rel_error", "vjp_rel_error", "int8_drop_points", "bytes_ratio", "seconds")
    measured = ((found, key) for found in exported for key in keys if found[key] is not None)
    return counts | {f"{found['model']}_{key}": found[key] for found, key in measured}


def _chosen(names: str | None) -> list[str]:
    if find_spec("transformers") is None:
        print("skipped: the models are those of transformers; pip install '.[bench]'", file=sys.stderr)
        raise SystemExit(0)
    from benchmarks._architectures import ARCHITECTURES

    known = [architecture.name for architecture in ARCHITECTURES]
    wanted = names.split(",") if names else known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"--models: {unknown} are not known; choose from {sorted(known)}")
    return wanted


def _parser() -> Any:
    made = parser(__doc__)
    made.add_argument("--models", help="names, separated by commas; all by default")
    return made


if __name__ == "__main__":
    main()
