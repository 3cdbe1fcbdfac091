"""A harmful stream, the alert that it sets off, and the roll-back that follows: a real daemon, a real Prometheus.

    python -m benchmarks.drift_alert [--plot PATH] [--json]

One camera shows the digits of ten classes as they come, then one class after the other: labels come in runs, and a
session that normalises with what it sees lately answers them worse than the frozen model does, while nothing is wrong
with the pictures. Prometheus scrapes the daemon, with the rules of ops/ sixty times as fast (5 minutes are 5 seconds).
When AcclimateDriftRising fires, the camera's session is taken back to a snapshot of before and paused, as the runbook
says; a fork of it, which sees the same pictures, is left alone.

alert_fired, alert_seconds        whether it fired, and how long after the stream turned
accuracy_before                   of the session, before the stream turned
accuracy_at_worst                 of the session over the worst 5 seconds until it was taken back
accuracy_after                    of the session, once taken back, on the stream that goes on as it was
fork_accuracy_after               of the fork that was left alone, on the same pictures
frozen_accuracy                   of the frozen model since the stream turned; frozen_accuracy_before until then
harmful_alert_seconds             when AcclimateAdaptationHarmful fired, -1 if it did not until the roll-back
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from acclimate.examples.digits.data import load
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Budget, Client, Session
from acclimate.runtime.client.local import local_daemon
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks._alert_plot import Moment, draw
from benchmarks._prometheus import Prometheus, prometheus
from benchmarks._report import ROOT, Report, emit, parser

BUNDLE = ROOT / "examples" / "digits" / "bundle"
RECIPE, ALERT, HARMFUL = "eata", "AcclimateDriftRising", "AcclimateAdaptationHarmful"
LEVEL = 'model_signal:acclimate_drift_level_ratio:max_avg5m{signal="entropy"}'
HURRY, PERIOD_SECONDS, ROWS, RUN_ROWS, WINDOW_SECONDS = 60.0, 0.1, 8, 96, 5.0
SETTINGS = '[logging]\nlevel = "error"\n[metrics]\nshadow_every = 4\n[engine]\nintra_op_threads = 1\n'


@dataclass
class Camera:
    """Pictures at a steady pace to a session and its fork, the frozen model beside, and what each answered right."""

    engine: OnnxEngine
    session: Session
    fork: Session | None = None
    moments: list[Moment] = field(default_factory=list)
    began: float = 0.0

    def __post_init__(self) -> None:
        self._digits, self._generator, self._shown = load().stream, np.random.default_rng(0), 0
        self.began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the first picture."""
        return time.monotonic() - self.began

    def show(self, *, runs: bool) -> None:
        """Pictures of one period, of any class or of the one whose turn it is."""
        labels = self._digits.labels
        pool = np.flatnonzero(labels == self._shown // RUN_ROWS % 10) if runs else np.arange(len(labels))
        chosen = self._generator.choice(pool, ROWS)
        self._shown += ROWS if runs else 0
        images, truth = self._digits.images[chosen], labels[chosen]
        answer = self.session.predict(images)
        # One label in eight arrives, so that what is estimated can be measured too.
        self.session.feedback(answer.request_id, int(truth[0]))
        fork = None if self.fork is None else self.fork.predict(images)
        frozen = self.engine.frozen(images).argmax(axis=1)
        self.moments.append(
            Moment(
                self.now,
                float((answer.labels == truth).mean()),
                float("nan") if fork is None else float((fork.labels == truth).mean()),
                float((frozen == truth).mean()),
            )
        )
        time.sleep(max(0.0, len(self.moments) * PERIOD_SECONDS - self.now))


def main(arguments: Sequence[str] | None = None) -> None:
    """Play it, then print and draw."""
    chosen = _parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "acclimate.toml").write_text(SETTINGS, "utf-8")
        with (
            local_daemon([BUNDLE], "--config", str(folder / "acclimate.toml")) as daemon,
            prometheus(f"127.0.0.1:{daemon.http_port}", folder / "prometheus", HURRY) as watcher,
            Client(daemon.target) as client,
        ):
            played = _play(client, watcher, chosen.seconds)
    if chosen.plot is not None:
        draw(played.moments, played.turned, played.alerted, played.levels, chosen.plot)
    emit(Report("drift_alert", _figures(played), [played.row]), as_json=chosen.json)


@dataclass(frozen=True)
class Played:
    """What happened when, in seconds since the first picture; `alerted` is when the session was taken back."""

    moments: list[Moment]
    turned: float
    alerted: float
    fired: bool
    harmful: float
    levels: list[tuple[float, float]]

    @property
    def row(self) -> dict[str, float]:
        """The course of it."""
        return {"turned_s": self.turned, "taken_back_s": self.alerted, "ended_s": self.moments[-1].at}


def _play(client: Client, watcher: Prometheus, seconds: float) -> Played:
    engine = OnnxEngine(read_bundle(BUNDLE), OnnxOptions(intra_op_threads=1))
    budget = Budget(refill_ms_per_s=1000.0, capacity_ms=5000.0)
    camera = Camera(engine, client.create_session("digits", "camera", recipe=RECIPE, budget=budget))
    began = time.time() - camera.now
    while camera.now < seconds:
        camera.show(runs=False)
    camera.session.snapshot("before")
    camera.fork = camera.session.fork("left-alone")
    turned, fired, harmful = camera.now, False, -1.0
    while not fired and camera.now < turned + 4 * seconds:
        camera.show(runs=True)
        firing = watcher.firing() if len(camera.moments) % 5 == 0 else set()
        harmful = camera.now - turned if harmful < 0 and HARMFUL in firing else harmful
        # One that watches has to look, and to decide: the alert is left standing for a moment.
        fired = ALERT in firing and camera.now > turned + WINDOW_SECONDS
    alerted = camera.now
    camera.session.restore("before")
    camera.session.pause()
    while camera.now < alerted + seconds:
        camera.show(runs=True)
    found = watcher.api("query_range", query=LEVEL, start=began, end=time.time(), step=1)["result"]
    levels = [(float(at) - began, float(value)) for series in found for at, value in series["values"]]
    return Played(camera.moments, turned, alerted, fired, harmful, levels)


def _figures(played: Played) -> dict[str, float]:
    at = np.array([moment.at for moment in played.moments])
    session, fork, frozen = (
        np.array([getattr(moment, name) for moment in played.moments]) for name in ("session", "fork", "frozen")
    )
    before, during, after = at < played.turned, (at >= played.turned) & (at < played.alerted), at >= played.alerted
    ends = at[during & (at >= min(played.turned + WINDOW_SECONDS, at[during][-1]))]
    windows = [session[during & (at > end - WINDOW_SECONDS) & (at <= end)].mean() for end in ends]
    return {
        "alert_fired": float(played.fired),
        "alert_seconds": played.alerted - played.turned,
        "accuracy_before": float(session[before].mean()),
        "accuracy_at_worst": float(min(windows)),
        "accuracy_after": float(session[after].mean()),
        "fork_accuracy_after": float(fork[after].mean()),
        "frozen_accuracy_before": float(frozen[before].mean()),
        "frozen_accuracy": float(frozen[~before].mean()),
        "harmful_alert_seconds": played.harmful,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--plot", type=Path, help="draw it into this PNG")
    options.add_argument("--seconds", type=float, default=20.0, help="before the stream turns, and after the roll-back")
    chosen = options.parse_args(arguments)
    if chosen.seconds < WINDOW_SECONDS:
        options.error(f"--seconds must be at least {WINDOW_SECONDS:g}")
    return chosen


if __name__ == "__main__":
    main()
