"""The daemon as its users run it: a process of its own, found through the line it prints when it is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_SECONDS = 60
COMMAND = (sys.executable, "-c", "from acclimate.runtime.cli import main; main()")


@dataclass(frozen=True)
class Daemon:
    """A daemon that said it is ready, and what it said."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def target(self) -> str:
        """Where gRPC listens."""
        return f"{self.ready['host']}:{self.ready['grpc_port']}"

    def get(self, path: str) -> str:
        """A page of the HTTP port."""
        url = f"http://{self.ready['host']}:{self.ready['http_port']}{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as reply:
            return reply.read().decode()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample of `/metrics`, by name and sorted labels."""
        families = text_string_to_metric_families(self.get("/metrics"))
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def arguments(*bundles: Path, **options: object) -> list[str]:
    """`serve` with these bundles, on free ports unless `options` name others."""
    named = {"grpc_port": 0, "http_port": 0} | options
    given = [part for bundle in bundles for part in ("--bundle", str(bundle))]
    for name, value in named.items():
        given += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return ["serve", *given]


@contextmanager
def started(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon that a command starts, for a block; whatever happened, it is gone afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the daemon ended with code {process.wait(PATIENCE_SECONDS)} before it was ready"
            yield Daemon(process, json.loads(line))
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def running(*bundles: Path, environment: dict[str, str] | None = None, **options: object) -> Iterator[Daemon]:
    """A daemon for a block, in this interpreter. Its log goes to our standard error."""
    with started([*COMMAND, *arguments(*bundles, **options)], environment) as daemon:
        yield daemon


def refused(*given: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, as for a daemon that cannot start."""
    return subprocess.run([*COMMAND, *given], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
