"""A daemon of one's own: started as a child process on free ports, stopped at the end of a `with` block."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# How long a daemon may take to drain before it is ended by force, in seconds.
STOP_SECONDS = 30.0
SERVE = "from acclimate.runtime.cli import main; main()"


@dataclass(frozen=True, slots=True)
class LocalDaemon:
    """A daemon that said it is ready, `ready_seconds` after its process was started."""

    pid: int
    grpc_port: int
    http_port: int
    ready_seconds: float

    @property
    def target(self) -> str:
        """Where its gRPC services listen."""
        return f"127.0.0.1:{self.grpc_port}"


@contextmanager
def local_daemon(bundles: Sequence[Path], *arguments: str) -> Iterator[LocalDaemon]:
    """Run `acclimate serve` over bundle directories, with more arguments if wanted. Its log goes to our stderr.

    Raises:
        RuntimeError: it ended without saying that it is ready; its log says why.
    """
    command = [sys.executable, "-c", SERVE, "serve", "--grpc-port", "0", "--http-port", "0"]
    command += [part for bundle in bundles for part in ("--bundle", str(bundle))]
    started = time.perf_counter()
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            yield _ready(process, started)
        finally:
            _stop(process)


def _ready(process: subprocess.Popen[str], started: float) -> LocalDaemon:
    for line in process.stdout or ():
        seconds = time.perf_counter() - started
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "ready":
            return LocalDaemon(process.pid, event["grpc_port"], event["http_port"], seconds)
    raise RuntimeError(f"`acclimate serve` ended with code {process.wait()} before it was ready")


def _stop(process: subprocess.Popen[str]) -> None:
    """End a daemon as an operator would, and by force if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
