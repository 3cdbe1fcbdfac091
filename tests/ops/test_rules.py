"""The rules of ops/: Prometheus takes them, each alert fires when it should, and says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks._prometheus import hurried
from tests.conftest import ROOT
from tests.ops.documents import (
    PROMETHEUS,
    RULE_FILES,
    TEST_FILES,
    alerts,
    counters_read_raw,
    expressions,
    rules,
    unknown,
)

Promtool = Callable[..., str]


@pytest.fixture
def promtool() -> Promtool:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on the path; Debian's package `prometheus` has it")

    def run(*arguments: str | Path) -> str:
        result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def test_prometheus_takes_the_configuration_and_every_rule(promtool: Promtool) -> None:
    assert "rule files found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", *RULE_FILES)


@pytest.mark.slow
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_alerts_fire_where_they_should_and_nowhere_else(promtool: Promtool, file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_alert_has_a_case_where_it_fires_and_two_where_it_does_not() -> None:
    cases: dict[str, list[bool]] = {name: [] for name in alerts()}
    for file in TEST_FILES:
        for test in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                cases[case["alertname"]].append(bool(case["exp_alerts"]))
                assert f"{case['alertname']} {'fires' if case['exp_alerts'] else 'does not fire'}: " in test["name"]
    # AcclimateTargetMissing is about series that are absent: it has no third case.
    lacking = {
        name: found for name, found in cases.items()
        if found.count(True) < 1 or found.count(False) < (1 if name == "AcclimateTargetMissing" else 2)
    }  # fmt: skip
    assert not lacking


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (Acclimate\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alerts())
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert len(sections[name]) > 150, f"the runbook says next to nothing of {name}"


@pytest.mark.parametrize(("place", "expr"), expressions(), ids=lambda value: str(value)[:60])
def test_expressions_read_what_there_is(place: str, expr: str) -> None:
    assert unknown(expr) == set(), place
    assert counters_read_raw(expr) == set(), f"{place}: a counter means nothing without rate() or increase()"


def test_what_is_wrong_would_be_found() -> None:
    assert unknown("rate(acclimate_requests_total[5m]) / acclimate_nonsense") == {"acclimate_nonsense"}
    assert unknown("model:acclimate_requests:rate9m + model:acclimate_requests:rate5m") == {
        "model:acclimate_requests:rate9m"
    }
    raw = 'acclimate_requests_total{code="OK"} / sum(rate(acclimate_samples_total{model=~"$model"}[$__rate_interval]))'
    assert counters_read_raw(raw) == {"acclimate_requests_total"}


def test_recorded_names_say_level_metric_and_operations() -> None:
    for rule in rules():
        if "record" in rule:
            assert re.fullmatch(r"(model|signal|model_signal):acclimate_\w+:\w+", rule["record"]), rule["record"]


def test_rules_in_a_hurry_have_shorter_windows_and_the_same_names() -> None:
    text = "expr: rate(a:b:rate5m[5m]) > max_over_time(x[6h])\nfor: 2m\nrecord: a:b:rate1h\n"
    assert hurried(text, 60) == "expr: rate(a:b:rate5m[5s]) > max_over_time(x[360s])\nfor: 4s\nrecord: a:b:rate1h\n"
