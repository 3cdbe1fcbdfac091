"""A real Prometheus on loopback with the configuration and the rules of ops/, in a hurry; and what it would read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.runtime.client.local import LocalDaemon
from benchmarks._report import ROOT

OPS = ROOT / "ops" / "prometheus"
TARGET = "127.0.0.1:8002"
LISTENING = re.compile(r'msg="Listening on" address=(\S+)')
DURATION = re.compile(r"(?<=\[|\s)(\d+)(s|m|h|d)(?=\]|$)", re.MULTILINE)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LEAST_SECONDS, STOP_SECONDS = 4, 30


def installed() -> str | None:
    """Where the daemon of Prometheus is, or None."""
    return shutil.which("prometheus")


def scraped(daemon: LocalDaemon) -> str:
    """A daemon's metrics, as they are now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/metrics", timeout=30) as page:
        text: str = page.read().decode()
    return text


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that listens at `url`, and the file that it writes its log to."""

    url: str
    log: Path

    def api(self, path: str, **parameters: str | float) -> Any:
        """`data` of a call of the HTTP API.

        Raises:
            RuntimeError: Prometheus refuses it, and says why.
        """
        given = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{given}", timeout=30) as reply:  # noqa: S310 - ours
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"Prometheus refuses {path} {parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query that have a value now."""
        result = self.api("query", query=expr)["result"]
        return [series for series in result if series["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"}


def hurried(text: str, hurry: float) -> str:
    """Rules whose windows and waits are so many times shorter, but none below a few scrapes."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[1]) * SECONDS[found[2]]
        return f"{max(LEAST_SECONDS, round(seconds / hurry))}s"

    return DURATION.sub(shorter, text)


@contextmanager
def prometheus(target: str, folder: Path, hurry: float) -> Iterator[Prometheus]:
    """Scrapes `target` every second, with ops' rules `hurry` times as fast; its files are in `folder`, its end ours.

    Raises:
        FileNotFoundError: there is no Prometheus here. RuntimeError: it does not start; its log says why.
    """
    program = installed()
    if program is None:
        raise FileNotFoundError("prometheus is not on the path; Debian's package of that name has it")
    (folder / "rules").mkdir(parents=True)
    for file in (OPS / "rules").glob("*.yml"):
        (folder / "rules" / file.name).write_text(hurried(file.read_text("utf-8"), hurry), "utf-8")
    config = (OPS / "prometheus.yml").read_text("utf-8").replace(TARGET, target)
    (folder / "prometheus.yml").write_text(re.sub(r"(_interval|_timeout): \d+s", r"\1: 1s", config), "utf-8")
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("w") as written, subprocess.Popen(command, stdout=written, stderr=written) as process:
        try:
            yield Prometheus(f"http://{_address(process, log)}", log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        found = LISTENING.search(log.read_text("utf-8"))
        if found:
            return found[1]
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise RuntimeError(f"Prometheus ended with code {process.returncode}: {log.read_text('utf-8')[-2000:]}")
