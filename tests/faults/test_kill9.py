"""kill -9 under load, again and again: every session opens, checksums hold, the loss is within the bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._killing import Loss, rounds

COMMITS, SECONDS = 32, 1.0


def hold(losses: list[Loss], count: int, sessions: int) -> None:
    assert len(losses) == count
    for loss in losses:
        assert loss.damaged == 0, loss
        assert loss.opened == loss.sessions == sessions, loss
        assert loss.commits >= 10, loss
        assert loss.lost_commits <= COMMITS, loss
        assert loss.lost_seconds <= SECONDS, loss


def test_a_few_kills_cost_no_more_than_the_bound(bundle_path: Path, tmp_path: Path) -> None:
    hold(list(rounds(tmp_path, bundle_path, 2, sessions=6, seed=1)), 2, 6)


@pytest.mark.slow
def test_the_bound_is_what_is_configured(bundle_path: Path, tmp_path: Path) -> None:
    (loss,) = rounds(tmp_path, bundle_path, 1, sessions=6, seed=2, store="loss_commits = 1")
    assert loss.lost_commits <= 1
    assert loss.opened == loss.sessions == 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_cost_no_more_than_the_bound(bundle_path: Path, tmp_path: Path) -> None:
    hold(list(rounds(tmp_path, bundle_path, 100, sessions=8)), 100, 8)
