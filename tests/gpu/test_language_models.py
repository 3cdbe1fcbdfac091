"""Language models on CUDA against the processor: scores, gradients of many sessions, texts.

All of it has passed on an H100 (torch 2.11 for CUDA 13, bitsandbytes 0.50.2).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.engines.language import Sampling

torch = pytest.importorskip("torch", reason="language models need torch; pip install 'acclimate[llm]'")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

LIMITS = {"fp32": 1e-3, "bf16": 5e-2, "nf4": 5e-2, "int8": 5e-2, "int4": 5e-2}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runtime.engines.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("precision", LIMITS)
def test_scores_and_gradients_agree_with_the_processors(model_path: Path, precision: str) -> None:
    from tests.runtime.engines.tiny import cotangents, engine_of, relative, some_rows, thetas

    here, there = (engine_of(model_path, precision=precision, device=device) for device in ("cpu", "cuda"))
    rows, theta = some_rows([0, 1, 0, 2, 1]), thetas(here, 3)
    (expected, expected_back), (got, got_back) = (engine.vjp(rows, theta, cotangents(rows)) for engine in (here, there))
    assert relative(got.logprob, expected.logprob) < LIMITS[precision]
    assert relative(got_back, expected_back) < LIMITS[precision]


@pytest.mark.parametrize("precision", LIMITS)
def test_texts_are_generated_together(model_path: Path, precision: str) -> None:
    from tests.runtime.engines.tiny import engine_of, thetas

    engine = engine_of(model_path, precision=precision, device="cuda")
    decoder = engine.decoder(4)
    for number, theta in enumerate(thetas(engine, 4)):
        decoder.admit(np.arange(2, 6 + number), theta, Sampling(8))
    said: dict[int, int] = {}
    while decoder.free < 4:
        for token in decoder.step():
            said[token.slot] = said.get(token.slot, 0) + 1
            assert np.isfinite(token.logprob)
    assert len(said) == 4
