"""What kill -9 costs: rounds of killing a daemon under load, and what the next one still has.

    python -m benchmarks.kill9 [--json] [--rounds N] [--sessions N] [--bundle DIR]

worst_lost_commits    commits that watchers had seen and the next daemon did not have, at most in one round
worst_lost_seconds    from the first of them to the last: the learning that has to be done again, at most
worst_age_seconds     how old the oldest of them was when the daemon was killed, at most
sessions_opened       stored sessions that the next daemon opened, over all rounds
sessions_not_opened   those that it did not
records_damaged       records or pages whose checksum did not hold after a kill
commits               commits seen, over all rounds
restart_seconds       until the next daemon was ready, median

The bound is the default of the configuration: 1 s, 32 commits (docs/persistence.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks._killing import rounds
from benchmarks._report import ROOT, Report, Value, emit, parser

BUNDLE = ROOT / "examples" / "digits" / "bundle"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=20, help="kills (default 20)")
    options.add_argument("--sessions", type=int, default=8, help="sessions under load (default 8)")
    options.add_argument("--seed", type=int, default=0, help="of the moments to kill at (default 0)")
    options.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle to serve (default: the digits)")
    chosen = options.parse_args(arguments)
    if chosen.rounds < 1 or chosen.sessions < 1:
        options.error("--rounds and --sessions must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        losses = list(rounds(Path(folder), chosen.bundle, chosen.rounds, sessions=chosen.sessions, seed=chosen.seed))
    rows: list[Mapping[str, Value]] = [{"round": number, **asdict(loss)} for number, loss in enumerate(losses)]
    figures = {
        "rounds": float(len(losses)),
        "worst_lost_commits": float(max(loss.lost_commits for loss in losses)),
        "worst_lost_seconds": max(loss.lost_seconds for loss in losses),
        "worst_age_seconds": max(loss.age_seconds for loss in losses),
        "sessions_opened": float(sum(loss.opened for loss in losses)),
        "sessions_not_opened": float(sum(loss.sessions - loss.opened for loss in losses)),
        "records_damaged": float(sum(loss.damaged for loss in losses)),
        "commits": float(sum(loss.commits for loss in losses)),
        "restart_seconds": median(loss.restart_seconds for loss in losses),
    }
    emit(Report("kill9", figures, rows), as_json=chosen.json)


if __name__ == "__main__":
    main()
