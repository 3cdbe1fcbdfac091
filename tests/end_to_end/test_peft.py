"""Sessions into the real PEFT and out of it, and out as ONNX and as ONNX Runtime adapters: the outputs are compared.

The model has everything that travels: a batch norm, a layer norm, low-rank updates of a convolution and of linear
layers, and biases with and without an update beside them.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import peft
import pytest
import torch
from torch import Tensor, nn

from acclimate.adapters.requests import Forward, Rows
from acclimate.export import BundleSpec, CalibrationData, compile_model
from acclimate.export.adaptation import Biases, LowRank, Norms
from acclimate.export.trace import Preprocessing
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client, ClientError, ExportedSession, Session, read_seed, write_state
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.engines.onnx_exact import EXACT, saturates
from tests.end_to_end.daemons import Daemon, running
from tests.runtime.test_cli import failure, run

SHAPE = (2, 9, 9)
RANK, ALPHA = 2, 4
TARGETS = ("block.conv", "block.wide", "block.narrow")
PERMISSIVE = {"ACCLIMATE_ADAPTATION__TRUST_RADIUS": "100", "ACCLIMATE_ADAPTATION__CANARY_TOLERANCE": "1"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        y: Tensor = self.narrow(self.norm(torch.relu(self.wide(x))))
        return y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block, self.head = Block(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block(torch.relu(self.bn(self.stem(x)))))
        return y


def net() -> Net:
    """With weights that eight bits hold exactly: what is compared is adapters, not the rounding of frozen weights."""
    torch.manual_seed(3)
    made = Net().eval()
    with torch.no_grad():
        made.bn.running_var = torch.linspace(0.05, 0.2, 8)
        made.head.weight.mul_(4)
        for weight in [parameter for parameter in made.parameters() if parameter.ndim > 1]:
            step = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True) / 127
            weight.copy_((weight / step).round() * step)
    return made


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def answers(model: nn.Module, inputs: np.ndarray) -> np.ndarray:
    scaled = (torch.from_numpy(inputs).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        return model.eval()(scaled).numpy()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "low"
    spec = BundleSpec(
        name="low",
        classes=("a", "b", "c"),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.25,)),
        adapt=(Norms(), LowRank(RANK, ALPHA, TARGETS), Biases(("block.wide", "head"))),
    )
    compile_model(net(), CalibrationData(pictures(128, 0)), spec, out)
    return out


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[OnnxEngine]:
    made = OnnxEngine(read_bundle(bundle), OnnxOptions())
    yield made
    made.close()


@pytest.fixture(scope="module")
def daemon(bundle: Path) -> Iterator[Daemon]:
    with running(bundle, synchronous=True, environment=PERMISSIVE) as up:
        yield up


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.target) as connected:
        yield connected


def adapter(folder: Path, size: float = 0.3, **options: object) -> peft.PeftModel:
    """A PEFT model with a random adapter, saved to `folder` by PEFT itself."""
    chosen = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), "init_lora_weights": False}
    torch.manual_seed(11)
    made = peft.get_peft_model(copy.deepcopy(net()), peft.LoraConfig(**(chosen | options)))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.mul_(size)
            elif "modules_to_save" in name or (name.endswith("bias") and parameter.requires_grad):
                parameter.add_(torch.randn_like(parameter) * size * 0.2)
    made.save_pretrained(str(folder))
    return made


def floats(engine: OnnxEngine, exported: ExportedSession, inputs: np.ndarray) -> np.ndarray:
    """What the bundle's float graph answers at a session's parameters and statistics."""
    theta = engine.manifest.parameters.pack({entry.name: entry.values for entry in exported.parameters})
    stats = engine.manifest.statistics.pack({entry.name: entry.values for entry in exported.statistics})
    count = len(inputs)
    rows = Rows(
        inputs, np.tile(theta, (count, 1)), np.tile(stats, (count, 1)), np.arange(count), np.zeros(count, np.float32)
    )
    return engine.forward(Forward(rows)).logits


def learnt(client: Client, name: str) -> Session:
    session = client.create_session("low", name, recipe="tent", recipe_parameters={"lr": 0.02, "batch_rows": 16})
    for step in range(6):
        session.predict(pictures(16, 50 + step) // 2)
    assert session.get().updates > 0, session.get().skipped
    return session


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"modules_to_save": ["bn", "block.norm"]},
        {"bias": "lora_only", "target_modules": ["block.wide"]},
        {"use_rslora": True, "lora_alpha": ALPHA / RANK**0.5},
    ],
)
def test_a_peft_adapter_seeds_a_session(
    engine: OnnxEngine, daemon: Daemon, client: Client, tmp_path: Path, options: dict[str, object]
) -> None:
    model, inputs = adapter(tmp_path, **options), pictures(40, 7)
    made = run("session", "create", "low/seeded", "--from", str(tmp_path), "--target", daemon.target)
    assert made.returncode == 0, made.stderr
    with client.session("low", "seeded") as session:
        assert (session.get().state, session.get().version) == ("adapted", 1)
        exported, answer = session.export(), session.predict(inputs, adapt=False)
        source = client.predict("low", inputs).logits
    expected = answers(model, inputs)
    np.testing.assert_allclose(floats(engine, exported, inputs), expected, rtol=1e-4, atol=1e-4)
    noise = np.abs(source - answers(net(), inputs)).max()
    moved = np.abs(expected - answers(net(), inputs)).max()
    assert moved > 5 * noise, "the adapter changes too little to show anything"
    assert np.abs(answer.logits - expected).max() < 4 * noise


def test_a_session_becomes_a_peft_adapter(engine: OnnxEngine, daemon: Daemon, client: Client, tmp_path: Path) -> None:
    inputs, out = pictures(40, 8), tmp_path / "adapter"
    with learnt(client, "out") as session:
        made = run("session", "export", "low/out", "--format", "peft", "--out", str(out), "--target", daemon.target)
        assert made.returncode == 0, made.stderr
        assert "left out" not in made.stdout
        exported, answer = session.export(), session.predict(inputs, adapt=False)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(net()), str(out))
    expected = floats(engine, exported, inputs)
    np.testing.assert_allclose(answers(loaded, inputs), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - answers(net(), inputs)).max() > 0.1, "the session has learnt nothing"
    moved = {entry.kind for entry in exported.parameters if _moved(engine, entry.name, entry.values)}
    assert moved == {"norm.scale", "norm.shift", "lora.A", "lora.B", "bias"}
    with client.create_session("low", "back", seed=read_seed(out)) as back:
        np.testing.assert_array_equal(back.predict(inputs, adapt=False).logits, answer.logits)
    loaded.save_pretrained(str(tmp_path / "again"))
    again = read_seed(tmp_path / "again").tensors
    assert {name: values.tolist() for name, values in read_seed(out).tensors.items() if name in again} == {
        name: values.tolist() for name, values in again.items() if name in read_seed(out).tensors
    }


def _moved(engine: OnnxEngine, name: str, values: np.ndarray) -> bool:
    return not np.array_equal(engine.source.parameters.unpack(engine.source.theta)[name], values)


def test_merged_onnx_and_runtime_adapter_answer_the_daemons_bits(
    bundle: Path, engine: OnnxEngine, daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    inputs, options = pictures(33, 9), ("--bundle", str(bundle), "--target", daemon.target)
    with learnt(client, "bits") as session:
        for form, name in (("onnx", "s.onnx"), ("ort-adapter", "s.onnx_adapter"), ("safetensors", "s.safetensors")):
            out = str(tmp_path / name)
            made = run("session", "export", "low/bits", "--format", form, "--out", out, *options)
            assert made.returncode == 0, made.stderr
        answer, plain = session.predict(inputs, adapt=False), client.predict("low", inputs)
    host = ("--host", str(tmp_path / "host.onnx"), "--out", str(tmp_path / "again.onnx_adapter"))
    made = run("export", "adapter", str(bundle), str(tmp_path / "s.safetensors"), *host)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "again.onnx_adapter").read_bytes() == (tmp_path / "s.onnx_adapter").read_bytes()
    np.testing.assert_array_equal(_session(tmp_path / "s.onnx").run(None, {"image": inputs})[0], answer.logits)

    adapted = ort.LoraAdapter()
    adapted.Load(str(tmp_path / "s.onnx_adapter"))
    active = ort.RunOptions()
    active.add_active_adapter(adapted)
    host_session, forward = _session(tmp_path / "host.onnx"), _session(bundle / "forward.onnx")
    np.testing.assert_array_equal(host_session.run(None, {"image": inputs}, active)[0], answer.logits)
    source = engine.predict(inputs, engine.fold(engine.source.theta, engine.source.stats))
    np.testing.assert_array_equal(host_session.run(None, {"image": inputs})[0], source)
    feed = {"image": inputs} | {
        entry.name: np.zeros(entry.shape, np.int32 if "int32" in entry.type else np.float32)
        for entry in forward.get_inputs()
        if entry.name != "image"
    }
    np.testing.assert_array_equal(forward.run(None, feed, active)[0], answer.logits)
    assert not np.array_equal(answer.logits, plain.logits)
    read = ort.AdapterFormat.read_adapter(str(tmp_path / "s.onnx_adapter"))
    assert read.get_adapter_version() == answer.version
    assert set(read.get_parameters()) == set(feed) - {"image"}


def test_a_changed_file_of_weights_is_refused(bundle: Path, client: Client, tmp_path: Path) -> None:
    with client.create_session("low", "plain") as session:
        write_state(session.export(), tmp_path / "s.safetensors")
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    for command in ("adapted", "adapter"):
        out = ("--out", str(tmp_path / "out"))
        code, line = failure(run("export", command, str(damaged), str(tmp_path / "s.safetensors"), *out))
        assert (code, "weights.safetensors' was changed after export" in line) == (1, True), line
    assert not (tmp_path / "out").exists()


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if saturates():
        options.add_session_config_entry(EXACT, "1")
    return ort.InferenceSession(str(path), options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"r": 4}, "rank 4 and alpha 4; the model has rank 2 and alpha 4"),
        ({"lora_alpha": 32}, "rank 2 and alpha 32; the model has rank 2 and alpha 4"),
        ({"target_modules": ["head"]}, "'head.lora_A.weight' is not a parameter or statistic of model 'low'"),
        ({"modules_to_save": ["head"]}, "'head.weight' is not a parameter or statistic of model 'low'"),
    ],
)
def test_adapters_of_another_shape_are_refused(
    daemon: Daemon, client: Client, tmp_path: Path, options: dict[str, object], says: str
) -> None:
    adapter(tmp_path, **options)
    code, line = failure(run("session", "create", "low/x", "--from", str(tmp_path), "--target", daemon.target))
    assert (code, "INVALID_ARGUMENT" in line, says in line) == (1, True, True), line
    assert not list(client.list_sessions("low"))


def test_guards_as_configured_refuse_a_wild_adapter(bundle: Path, tmp_path: Path) -> None:
    adapter(tmp_path, size=30.0)
    with running(bundle, synchronous=True) as daemon, Client(daemon.target) as client:
        with pytest.raises(ClientError) as raised:
            client.create_session("low", "wild", seed=read_seed(tmp_path))
        assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "SEED_REFUSED")
        assert raised.value.metadata["guard"] == "trust_region"
        assert not list(client.list_sessions("low"))
