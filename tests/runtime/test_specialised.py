"""Sessions that settle are answered by a graph of their own, with the same bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_special import ENOUGH, FOLDED, Settling, Specialiser, specialised
from tests.polling import until
from tests.runtime.digits import picture

BATCHES = (1, 3, 16)


@pytest.fixture
def engine(bundle_path: Path) -> Iterator[OnnxEngine]:
    engine = OnnxEngine(read_bundle(bundle_path), OnnxOptions(intra_op_threads=1, specialised_sessions=2))
    yield engine
    engine.close()


def fold(engine: OnnxEngine, seed: int) -> Folded:
    """A session's fold; no two seeds answer alike."""
    source, generator = engine.source, np.random.default_rng(seed)
    theta = source.theta * (1 + 0.2 * generator.standard_normal(source.theta.shape))
    return engine.fold(theta.astype(np.float32), source.stats)


def settled(engine: OnnxEngine, folded: Folded) -> bool:
    """Whether the fold has its graph; asking is what earns it, beside a source that is asked as well."""
    for _ in range(200):
        engine.predict(picture(0, 1), folded)
        engine.frozen(picture(0, 1))
    return folded.settling.graph is not None


def test_answers_before_and_after_are_the_same_bits(engine: OnnxEngine) -> None:
    folded, samples = fold(engine, 1), [picture(9, rows) for rows in BATCHES]
    before = [engine.predict(sample, folded) for sample in samples]
    assert engine.specialised.made == 0
    until(lambda: settled(engine, folded), "a graph of its own")
    for sample, expected in zip(samples, before, strict=True):
        np.testing.assert_array_equal(engine.predict(sample, folded), expected)
        assert not np.array_equal(engine.frozen(sample), expected), "the source answers the same; this shows nothing"
    assert (engine.specialised.count, engine.specialised.made, engine.specialised.evicted) == (1, 1, 0)


def test_a_graph_goes_with_its_fold(engine: OnnxEngine) -> None:
    folds = [fold(engine, 2)]
    until(lambda: settled(engine, folds[0]), "a graph of its own")
    folds.clear()
    assert engine.specialised.count == 0


def test_commits_under_way_never_mix_answers(engine: OnnxEngine) -> None:
    """Four threads ask while folds come, settle and go; every answer is that of the fold it was asked of."""
    sample = picture(4, 2)
    expected = {seed: engine.predict(sample, fold(engine, seed)).tobytes() for seed in range(6)}

    def job(worker: int) -> bool:
        for round_ in range(4):
            seed = (worker + round_) % 6
            folded = fold(engine, seed)
            for _ in range(150):
                if engine.predict(sample, folded).tobytes() != expected[seed]:
                    return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(job, range(4)))
    assert engine.specialised.made > 0, "no fold settled; the test shows nothing"


def test_the_least_recently_used_gives_way(engine: OnnxEngine) -> None:
    folds = [fold(engine, seed) for seed in range(3)]
    for folded in folds:
        until(lambda folded=folded: settled(engine, folded), "a graph of its own")  # type: ignore[misc]
    assert [folded.settling.graph is not None for folded in folds] == [False, True, True]
    assert (engine.specialised.count, engine.specialised.made, engine.specialised.evicted) == (2, 3, 1)
    until(lambda: settled(engine, folds[0]), "its graph again")


def test_a_graph_is_made_when_it_has_paid_and_not_before(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    folding = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1, specialised_sessions=0))
    own: Settling = fold(folding, 3).settling
    specialiser = Specialiser(bundle, OnnxOptions(), 5.0, FOLDED, folding._folded_forward)
    for seconds in (2.0, 1.0, *[3.0] * (ENOUGH - 2)):
        specialiser.constant(8, seconds)
    for _ in range(4):
        specialiser.answered(own, 8, 2.0)
    assert (own.missed, own.asked) == (4.0, False), "the least of 2 and 1 seconds is what a graph takes"
    specialiser.answered(own, 8, 9.0)
    assert (own.missed, own.asked) == (5.0, True), "the least of 2 and 9 seconds is what went without"
    until(lambda: own.graph is not None, "a graph of its own")
    specialiser.close()
    assert own.graph is None


def test_a_few_slow_answers_of_a_graph_do_not_keep_others_from_theirs(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    folding = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1, specialised_sessions=0))
    own: Settling = fold(folding, 3).settling
    specialiser = Specialiser(bundle, OnnxOptions(), 5.0, FOLDED, folding._folded_forward)
    for _ in range(ENOUGH - 1):
        specialiser.constant(8, 9.0)
    specialiser.answered(own, 8, 2.0)
    assert own.missed == 2.0, "the machine was busy while the few graphs there are were timed"
    specialiser.constant(8, 9.0)
    specialiser.answered(own, 8, 2.0)
    assert own.missed == 2.0, "by now it is known that graphs with constants are slower"
    specialiser.close()


def test_none_are_made_where_the_forward_graph_takes_theta(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    folding = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1, specialised_sessions=0))
    own: Settling = fold(folding, 3).settling
    specialiser = Specialiser(bundle, OnnxOptions(), 0.0, FOLDED | {"theta"}, folding._folded_forward)
    specialiser.answered(own, 1, 9.0)
    assert not own.asked


@pytest.mark.parametrize("options", [{"specialised_sessions": 0}, {"specialised_bytes": 2**20}])
def test_none_are_made_where_none_may_be(bundle_path: Path, options: dict[str, int]) -> None:
    engine = OnnxEngine(read_bundle(bundle_path), replace(OnnxOptions(intra_op_threads=1), **options))
    folded = fold(engine, 4)
    for _ in range(10):
        assert not settled(engine, folded)
    assert not folded.settling.asked
    engine.close()


def test_a_graph_that_answers_otherwise_is_refused(bundle_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = read_bundle(bundle_path)
    engine = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1, specialised_sessions=0))
    own: Settling = fold(engine, 5).settling
    specialiser = Specialiser(bundle, OnnxOptions(), 0.0, FOLDED, lambda inputs, _: engine.frozen(inputs))
    with caplog.at_level(logging.WARNING):
        specialiser.answered(own, 1, 1.0)
        until(lambda: bool(caplog.records), "a word about it")
    assert "answers otherwise" in caplog.text
    assert (own.graph, specialiser.figures.made) == (None, 0)
    specialiser.close()


def test_constants_must_be_those_of_the_graph(bundle_path: Path) -> None:
    """ONNX Runtime takes no constant of another shape or type than the graph's own."""
    bundle = read_bundle(bundle_path)
    engine = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1, specialised_sessions=0))
    own: Settling = fold(engine, 6).settling
    call = specialised(bundle, OnnxOptions(intra_op_threads=1), own.arrays)
    sample = picture(7, 5)
    np.testing.assert_array_equal(call(sample), engine.predict(sample, Folded((), own)))
    wrong = {**own.arrays, "bias": own.arrays["bias"].astype(np.float32)}
    with pytest.raises(Exception, match=r"frozen\.onnx"):
        specialised(bundle, OnnxOptions(), wrong)
