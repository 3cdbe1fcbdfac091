"""Sessions that adapt low-rank updates, norms and biases through the daemon: they learn, stay within guards, leave.

The model is a real one, if a small one: trained here for a second to tell where in a picture the bright patch is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from acclimate.adapters.guards import Guards
from acclimate.export import BundleSpec, CalibrationData, compile_model
from acclimate.export.adaptation import Adaptation, Biases, LowRank, Norms
from acclimate.export.session import first_output, session
from acclimate.runtime.client import Client, Session
from tests.end_to_end.daemons import Daemon, running
from tests.export.commandline import acclimate

SIZE, PATCH = 12, 4
PLACES = ((0, 0), (0, 8), (8, 0), (8, 8))
CLASSES = ("north west", "north east", "south west", "south east")
KINDS: dict[str, tuple[Adaptation, ...]] = {
    "updates": (LowRank(4),),
    "everything": (Norms(), LowRank(2, 4.0), Biases()),
}


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a brighter patch in one corner, uint8 `[count, 1, 12, 12]`, and which corner."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(PLACES), count)
    pictures = generator.normal(60, 25, (count, 1, SIZE, SIZE))
    for picture, label in zip(pictures, labels, strict=True):
        row, column = PLACES[label]
        picture[0, row : row + PATCH, column : column + PATCH] += generator.uniform(50, 120)
    return np.clip(pictures, 0, 255).astype(np.uint8), labels


def foggy(pictures: np.ndarray) -> np.ndarray:
    """The same scenes with less contrast, and brighter."""
    return np.clip(0.6 * pictures + 70, 0, 255).astype(np.uint8)


class Corners(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.down, self.norm2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12)
        self.mix, self.head = nn.Conv2d(12, 8, 1), nn.Linear(8 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.norm2(self.down(x)))
        logits: Tensor = self.head(nn.functional.avg_pool2d(torch.relu(self.mix(x)), 2).flatten(1))
        return logits


@cache
def trained() -> nn.Module:
    torch.manual_seed(0)
    model = Corners().train()
    pictures, labels = scenes(512, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(60):
        rows = np.arange(64) + 64 * (step % 8)
        answers = model(torch.from_numpy(pictures[rows]).float() / 255)
        loss = nn.functional.cross_entropy(answers, torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lora")
    pictures, labels = scenes(200, seed=2)
    for name, adapt in KINDS.items():
        spec = BundleSpec(name=name, classes=CLASSES, adapt=adapt)
        compile_model(trained(), CalibrationData(pictures, labels), spec, folder / name)
    return {name: folder / name for name in KINDS}


@pytest.fixture(scope="module")
def daemon(bundles: dict[str, Path]) -> Iterator[Daemon]:
    with running(*bundles.values(), synchronous=True) as found:
        yield found


def stream(session: Session, pictures: np.ndarray) -> np.ndarray:
    """The session's answers to the scenes, 64 at a time, each given before it learns from them."""
    parts = [session.predict(foggy(pictures[i : i + 64])).labels for i in range(0, len(pictures), 64)]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("recipe", "parameters"), [("tent", {}), ("eata", {"epsilon": 0.99, "lr": 0.005}), ("auto", {"epsilon": 0.99})]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_learns_within_its_guards(
    daemon: Daemon, kind: str, recipe: str, parameters: dict[str, float]
) -> None:
    pictures, labels = scenes(64 * 20, seed=3)
    with Client(daemon.target) as client:
        opened = client.create_session(kind, recipe, recipe=recipe, recipe_parameters=parameters)
        adapted = (stream(opened, pictures)[-256:] == labels[-256:]).mean()
        frozen = (client.predict(kind, foggy(pictures[-256:])).labels == labels[-256:]).mean()
        view, state = opened.get(), opened.export()
    assert frozen < 0.95, "the fog harms nothing, so nothing could be learnt"
    assert adapted > frozen
    assert view.updates > 0
    assert 0 < view.theta_distance <= Guards().trust_radius
    moved = [tensor.name for tensor in state.parameters if "lora_B" in tensor.name and tensor.values.any()]
    assert len(moved) == 4, "every layer's B has left zero"


def test_a_step_too_far_is_taken_back(daemon: Daemon) -> None:
    pictures, _ = scenes(64 * 4, seed=4)
    with Client(daemon.target) as client:
        opened = client.create_session("updates", "wild", recipe="tent", recipe_parameters={"lr": 1.0})
        stream(opened, pictures)
        view = opened.get()
        assert view.rollbacks > 0
        assert view.theta_distance <= Guards().trust_radius


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_answers_as_the_session(
    daemon: Daemon, bundles: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    inputs, _ = scenes(40, seed=5)
    with Client(daemon.target) as client:
        opened = client.create_session(kind, "leaving", recipe="tent")
        stream(opened, scenes(64 * 4, seed=6)[0])
        options = ("--target", daemon.target, "--model", kind, "--bundle", str(bundles[kind]))
        result = acclimate(tmp_path, "session", "export", "leaving", *options, "--format", "onnx", "--out", "m.onnx")
        assert result.returncode == 0, result.stderr
        answer, plain = opened.predict(inputs, adapt=False), client.predict(kind, inputs)
    merged = session((tmp_path / "m.onnx").read_bytes())
    assert [entry.name for entry in merged.get_inputs()] == ["image"]
    np.testing.assert_array_equal(first_output(merged, inputs), answer.logits)
    assert not np.array_equal(plain.logits, answer.logits), "the session has learnt nothing, so nothing was shown"
    graph = onnx.load(tmp_path / "m.onnx").graph
    # The updates' weights are constants of their own, and the rest is what the plain model has.
    constants = {entry.name for entry in graph.initializer}
    assert all(node.input[1] in constants for node in graph.node if node.op_type == "Conv")
    assert sum(node.op_type == "Conv" for node in graph.node) == 2 * 3
