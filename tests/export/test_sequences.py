"""Splits, which torch writes as sequences of tensors, and token ids from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acclimate.adapters.manifest import Manifest
from acclimate.export.cli import app
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessing, traced

WORDS, LENGTH = 40, 6


class Gated(nn.Module):
    """Chunks, the last one shorter, and parts of given sizes, over token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(WORDS, 10), nn.LayerNorm(10)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids)).mean(1)
        first, second, third = x.chunk(3, dim=-1)
        left, right = torch.split(first, [1, 3], dim=-1)
        gated = torch.cat([left * right, second[:, :1] * 2, third], 1)
        logits: Tensor = self.head(gated)
        return logits


def gated() -> nn.Module:
    torch.manual_seed(0)
    return Gated().eval()


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH))


def test_parts_of_a_split_become_slices() -> None:
    graph = traced(gated(), Preprocessing(), (LENGTH,), np.int64)
    assert not [node.op for node in graph.nodes if "Sequence" in node.op]
    inputs = tokens(5)
    with torch.no_grad():
        expected = gated()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(first_output(session(graph), inputs), expected, rtol=1e-5, atol=1e-6)
    assert [entry.name for entry in with_sites(graph).parameters.slices] == ["norm.weight", "norm.bias"]


def test_a_torch_module_of_token_ids_comes_in_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(gated().state_dict(), "w.safetensors")
    inputs = tokens(300)
    with torch.no_grad():
        logits = gated()(torch.from_numpy(inputs)).numpy()
    clear = np.argsort(np.diff(np.sort(logits, 1))[:, -1])[-100:]
    np.savez("c.npz", x=inputs[clear].astype(np.int32), y=logits[clear].argmax(1))
    with pytest.raises(SystemExit) as ended:
        given = ["--weights", "w.safetensors", "--calibration", "c.npz", "--out", "words"]
        app(args=["torch", f"{__name__}:gated", *given], prog_name="acclimate export")
    assert ended.value.code == 0
    described = Manifest.from_json(json.loads(Path("words/manifest.json").read_text()))
    assert described.task == "text-classification"
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("input_ids", "INT64", (-1, LENGTH))
    ]
    assert json.loads(Path("words/report.json").read_text())["parity"]["float_accuracy"] == 1.0
