"""A transformers classifier with low-rank updates of its attention: into PEFT and out of it, as its users would."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from acclimate.adapters.requests import Forward, Rows
from acclimate.export import BundleSpec, CalibrationData, compile_model
from acclimate.export.adaptation import LowRank, Norms
from acclimate.export.hf_model import with_one_input
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client, ClientError, ExportedSession, read_seed, write_peft
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.end_to_end.daemons import Daemon, running

pytestmark = [
    pytest.mark.slow,
    # PEFT asks transformers by an older name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

RANK, ALPHA, LENGTH, WORDS = 4, 8, 16, 100
PERMISSIVE = {"ACCLIMATE_ADAPTATION__TRUST_RADIUS": "100", "ACCLIMATE_ADAPTATION__CANARY_TOLERANCE": "1"}


def bert() -> BertForSequenceClassification:
    """Two layers with random weights that eight bits hold exactly."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=WORDS, id2label=dict(enumerate("abcd")), **sizes)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(4)
                step = module.weight.abs().amax(1, keepdim=True) / 127
                module.weight.copy_((module.weight / step).round() * step)
    return model


def texts(count: int, seed: int) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(1, WORDS, (count, LENGTH))
    ids[: count // 2, LENGTH // 2 :] = 0
    return ids.astype(np.int64)


def answers(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        return model.eval()(input_ids=tokens, attention_mask=(tokens != 0).long()).logits.numpy()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bert"
    model = with_one_input(bert(), lambda ids: {"input_ids": ids, "attention_mask": (ids != 0).long()})
    spec = BundleSpec("bert", tuple("abcd"), adapt=(Norms(), LowRank(RANK, ALPHA, ("*query", "*value"))))
    compile_model(model, CalibrationData(texts(96, 0)), spec, out)
    return out


@pytest.fixture(scope="module")
def daemon(bundle: Path) -> Iterator[Daemon]:
    with running(bundle, synchronous=True, environment=PERMISSIVE) as up:
        yield up


def floats(bundle: Path, exported: ExportedSession, ids: np.ndarray) -> np.ndarray:
    engine = OnnxEngine(read_bundle(bundle), OnnxOptions())
    theta = engine.manifest.parameters.pack({entry.name: entry.values for entry in exported.parameters})
    count = len(ids)
    stats = np.zeros((count, 0), np.float32)
    rows = Rows(ids, np.tile(theta, (count, 1)), stats, np.arange(count), np.zeros(count, np.float32))
    return engine.forward(Forward(rows)).logits


def adapter(folder: Path, **options: object) -> peft.PeftModel:
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"], init_lora_weights=False, **options
    )
    torch.manual_seed(1)
    made = peft.get_peft_model(bert(), config)
    made.save_pretrained(str(folder))
    return made


def test_an_adapter_goes_in_and_comes_out_the_same(bundle: Path, daemon: Daemon, tmp_path: Path) -> None:
    model, ids = adapter(tmp_path / "given"), texts(30, 5)
    with Client(daemon.target) as client:
        with client.create_session("bert", "in", seed=read_seed(tmp_path / "given")) as session:
            exported, answer = session.export(), session.predict(ids, adapt=False).logits
        source = client.predict("bert", ids).logits
    expected, plain = answers(model, ids), answers(bert(), ids)
    np.testing.assert_allclose(floats(bundle, exported, ids), expected, rtol=1e-4, atol=1e-4)
    noise, moved = np.abs(source - plain).max(), np.abs(expected - plain).max()
    assert np.abs(answer - expected).max() < 4 * noise < moved
    assert write_peft(exported, tmp_path / "taken") == ()
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(bert()), str(tmp_path / "taken"))
    np.testing.assert_allclose(answers(loaded, ids), expected, rtol=1e-4, atol=1e-4)


def test_a_session_that_has_learnt_is_loaded_by_peft(bundle: Path, daemon: Daemon, tmp_path: Path) -> None:
    ids = texts(30, 6)
    with Client(daemon.target) as client:
        parameters = {"lr": 0.02, "batch_rows": 16}
        with client.create_session("bert", "out", recipe="tent", recipe_parameters=parameters) as session:
            for step in range(6):
                session.predict(texts(16, 20 + step))
            assert session.get().updates > 0
            exported = session.export()
    write_peft(exported, tmp_path / "taken")
    loaded = peft.PeftModel.from_pretrained(bert(), str(tmp_path / "taken"))
    expected = floats(bundle, exported, ids)
    np.testing.assert_allclose(answers(loaded, ids), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - answers(bert(), ids)).max() > 0.1


def test_an_adapter_that_trained_the_classifier_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    adapter(tmp_path, task_type="SEQ_CLS")
    with Client(daemon.target) as client, pytest.raises(ClientError) as raised:
        client.create_session("bert", "x", seed=read_seed(tmp_path))
    assert (raised.value.reason, "'classifier." in raised.value.message) == ("TENSOR_UNKNOWN", True)
