"""A real Prometheus over a real daemon whose sessions drift, with ops' rules: every panel has something to show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.client import Budget, Client, Session
from benchmarks._prometheus import Prometheus, prometheus
from tests.conftest import ROOT
from tests.end_to_end.daemons import Daemon, running
from tests.ops.documents import alerts, boards, panels
from tests.polling import until
from tests.runtime.digits import dev, picture

pytestmark = pytest.mark.slow

BUNDLE = ROOT / "examples" / "digits" / "bundle"
HURRY = 60.0
# Where nothing tells how much energy is used there is nothing to show, and docs/metrics.md says so.
UNTOLD = "acclimate_energy_joules_total"
VARIABLES = {"$model": ".*", "$session": ".*", "$__rate_interval": "10s"}
PLENTY = Budget(refill_ms_per_s=1e4, capacity_ms=1e5)


@dataclass
class Watched:
    """A daemon under a drifting load, and what scrapes it."""

    daemon: Daemon
    prometheus: Prometheus
    sessions: tuple[Session, ...]
    turn: int = 0

    def drift(self) -> None:
        """Some more pictures that get worse, with their labels now and then."""
        self.turn += 1
        for session in self.sessions:
            images = picture(self.turn, 16, "noise", min(1.0, self.turn / 20))
            answer = session.predict(images)
            session.feedback(answer.request_id, int(answer.labels[0]))

    def lacking(self, queries: dict[str, str]) -> list[str]:
        """Names of the queries that return nothing now."""
        return [name for name, expr in queries.items() if not self.prometheus.query(expr)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on the path; Debian's package of that name has it")
    folder: Path = tmp_path_factory.mktemp("watched")
    config = folder / "acclimate.toml"
    config.write_text(f'[store]\npath = "{folder / "s.db"}"\n[metrics]\nshadow_every = 1\n', "utf-8")
    with running(BUNDLE, config=config) as daemon:
        address = f"127.0.0.1:{daemon.ready['http_port']}"
        with prometheus(address, folder / "prometheus", HURRY) as watcher, Client(daemon.target) as client:
            sessions = tuple(
                client.create_session("digits", f"camera-{n}", recipe="tent", budget=PLENTY) for n in range(2)
            )
            yield Watched(daemon, watcher, sessions)


def queries() -> dict[str, str]:
    """Every query of every panel, variables filled in."""
    found = {}
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                expr = target["expr"]
                for variable, value in VARIABLES.items():
                    expr = expr.replace(variable, value)
                found[f"{name}: {panel['title']} {target['refId']}"] = expr
    return found


def test_every_panel_of_every_board_has_data(watched: Watched) -> None:
    measured = any(name == UNTOLD for name, _ in watched.daemon.metrics())
    told = {name: expr for name, expr in queries().items() if measured or UNTOLD not in expr}
    assert len(told) >= 60
    empty = list(told)

    def shown() -> bool:
        watched.drift()
        empty[:] = watched.lacking({name: told[name] for name in empty})
        return not empty

    try:
        until(shown, "every panel to have data", 120)
    except AssertionError:
        pytest.fail(f"nothing is shown by {empty}")


def test_prometheus_scrapes_it_and_holds_every_rule(watched: Watched) -> None:
    until(lambda: watched.prometheus.query('up{job="acclimate"} == 1'), "a scrape")
    groups = watched.prometheus.api("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"] if rule["type"] == "alerting"} == set(alerts())

    def evaluated() -> bool:
        rules = [rule for group in watched.prometheus.api("rules")["groups"] for rule in group["rules"]]
        return all(rule["health"] == "ok" for rule in rules)

    until(evaluated, "every rule to be evaluated without an error")


def test_an_exemplar_names_a_request(watched: Watched) -> None:
    answer = watched.sessions[0].predict(dev().images[:1])

    def named() -> set[str]:
        found = watched.prometheus.api(
            "query_exemplars", query="acclimate_request_duration_seconds_bucket", start=0, end=4e9
        )
        return {one["labels"]["request_id"] for series in found for one in series["exemplars"]}

    until(lambda: answer.request_id in named(), "the exemplar")


def test_the_drift_alert_fires_and_ends_with_the_drift(watched: Watched) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 1, 28, 28)).astype(np.uint8)

    def firing() -> bool:
        for session in watched.sessions:
            session.predict(noise)
        return "AcclimateDriftRising" in watched.prometheus.firing()

    until(firing, "AcclimateDriftRising", 120)
    for session in watched.sessions:
        session.reset()
        session.pause()
    until(lambda: "AcclimateDriftRising" not in watched.prometheus.firing(), "the end of the alert", 120)
