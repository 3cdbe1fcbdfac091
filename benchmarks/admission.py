"""What a request pays before it is looked at: metadata, token, role, quota; and for the bounds on its parts.

    python -m benchmarks.admission [--json] [--repeat N]

admit_token_us    a request with a token, its tenant held to a rate
admit_open_us     a request to a daemon without tokens
limits_us         walking over an inference request to bound its parts
Least of the repetitions, each the mean of 5000 calls, in one thread.
"""

from __future__ import annotations

import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path

from acclimate.runtime.clock import SystemClock
from acclimate.runtime.config import Config
from acclimate.runtime.config_security import Quotas, Security
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.runtime.security import setup, tokens
from acclimate.runtime.security.guard import Guard, Metadata
from benchmarks._report import Report, Value, emit, parser
from benchmarks._rpcs import OIP, infer

CALLS = 5000
METHOD = OIP + "ModelInfer"
ENTRIES = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=7, help="repetitions (default 7)")
    chosen = options.parse_args(arguments)
    message, limits = infer("camera-1"), MessageLimits()
    size = message.ByteSize()
    agent = (("user-agent", "grpc-python/1.81"),)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokens.json")
        token = _issue(file)
        settings = Config(security=Security(tokens=str(file)), quotas=Quotas(requests_per_s=1e9))
        guarded, everyone = (setup.guard(config, SystemClock()) for config in (settings, Config()))
        subjects: dict[str, Callable[[], object]] = {
            "admit_token_us": lambda: _admit(guarded, (*agent, ("authorization", f"Bearer {token}"))),
            "admit_open_us": lambda: _admit(everyone, agent),
            "limits_us": lambda: check(message, limits, size),
        }
        times = {name: timeit.repeat(call, number=CALLS, repeat=chosen.repeat) for name, call in subjects.items()}
    rows: list[dict[str, Value]] = [
        {"what": name, **{f"run_{n}": t / CALLS * 1e6 for n, t in enumerate(runs)}} for name, runs in times.items()
    ]
    emit(
        Report("admission", {name: min(runs) / CALLS * 1e6 for name, runs in times.items()}, rows), as_json=chosen.json
    )


def _admit(guard: Guard, metadata: Metadata) -> None:
    guard.check(metadata)
    guard.admit(METHOD, metadata)


def _issue(file: Path) -> str:
    """A file of many tokens; one of them."""
    made = [tokens.create("tenant", f"tenant-{n}", "", time.time(), None) for n in range(ENTRIES)]
    tokens.write(file, {entry.id: entry for _, entry in made})
    return made[-1][0]


if __name__ == "__main__":
    main()
