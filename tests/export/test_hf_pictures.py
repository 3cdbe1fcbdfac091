"""`acclimate export hf` for pictures: the bundle answers what transformers' own pipeline answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from acclimate.adapters.manifest import Manifest
from acclimate.adapters.requests import Forward, Rows
from acclimate.export import BundleSpec, CalibrationData, compile_hf
from acclimate.export.errors import ExportError, UnsupportedModel
from acclimate.export.hf import Checkpoint, evenly, read_checkpoint
from acclimate.export.hf_model import quiet
from acclimate.export.hf_pictures import PictureFormat, picture_format
from acclimate.export.trace import Preprocessed, Preprocessing
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.export import checkpoints
from tests.export.checkpoints import SIDE, answers, confident, pictures
from tests.export.commandline import acclimate

TASK = "image-classification"


def at_source(engine: Engine, inputs: np.ndarray) -> np.ndarray:
    """Float logits of rows at the source's parameters and running statistics."""
    count, source = len(inputs), engine.source
    theta, stats = np.tile(source.theta, (count, 1)), np.tile(source.stats, (count, 1))
    rows = Rows(inputs, theta, stats, np.zeros(count, np.intp), np.zeros(count, np.float32))
    return np.asarray(engine.forward(Forward(rows)).logits)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def torch_answers(checkpoint: Checkpoint, inputs: np.ndarray) -> np.ndarray:
    """Logits of the module that is compiled, with its preprocessing."""
    samples = checkpoint.samples
    pixels = samples.preprocessing if isinstance(samples, PictureFormat) else Preprocessing()
    with torch.no_grad():
        return Preprocessed(checkpoint.model, pixels)(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_the_module_that_is_compiled_answers_as_the_pipeline(family: str, tmp_path: Path) -> None:
    folder = getattr(checkpoints, family)(tmp_path / family)
    checkpoint, inputs = read_checkpoint(str(folder)), pictures(6, seed=3)
    assert isinstance(checkpoint.samples, PictureFormat)
    assert (checkpoint.samples.channels, checkpoint.samples.size) == (3, (SIDE, SIDE))
    assert relative(torch_answers(checkpoint, inputs), answers(folder, TASK, inputs)[0]) < 1e-5


def test_a_bundle_from_the_command_line_answers_as_the_pipeline(tmp_path: Path) -> None:
    folder = checkpoints.vit(tmp_path / "vit")
    candidates = pictures(300)
    logits, labels = answers(folder, TASK, candidates)
    chosen = confident(logits, 200)
    numbers = [("cat", "dog", "owl").index(labels[i]) for i in chosen]
    np.savez(tmp_path / "c.npz", x=candidates[chosen].transpose(0, 2, 3, 1), y=numbers)
    given = ("--task", TASK, "--calibration", "c.npz", "--out", "pets")
    result = acclimate(tmp_path, "export", "hf", "vit", *given, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "bars and warnings are for terminals"
    report = json.loads(result.stdout)
    assert report["parity"]["float_accuracy"] == 1.0, "labels were the pipeline's"
    described = Manifest.from_json(json.loads((tmp_path / "pets" / "manifest.json").read_text()))
    assert (described.name, described.task, described.classes) == ("pets", TASK, ("cat", "dog", "owl"))
    assert [(spec.datatype, spec.shape) for spec in described.inputs] == [("UINT8", (-1, 3, SIDE, SIDE))]
    assert described.provenance["architecture"] == "ViTForImageClassification"
    assert "vit.layernorm.weight" in [entry.name for entry in described.parameters.slices]
    engine = OnnxEngine(read_bundle(tmp_path / "pets"), OnnxOptions())
    inputs = candidates[chosen[:40]]
    assert relative(at_source(engine, inputs), logits[chosen[:40]]) < 0.06, "weights of eight bits, nothing else"
    assert (engine.frozen(inputs).argmax(1) == numbers[:40]).mean() > 0.95
    engine.close()


def test_the_python_api_takes_arrays(tmp_path: Path) -> None:
    folder, samples = checkpoints.resnet(tmp_path / "net"), pictures(64)
    logits, _ = answers(folder, TASK, samples)
    clear = samples[confident(logits, 32)]
    spec = BundleSpec(name="net", classes=("a", "b", "c"), canaries=4, sites=("*embedder.embedder.normalization",))
    report = compile_hf(folder, CalibrationData(clear), spec, tmp_path / "out")
    assert (report.name, report.sites) == ("net", 1)
    described = Manifest.from_json(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert described.classes == ("a", "b", "c")
    with pytest.raises(ExportError, match=r"samples have shape \[5\]; this checkpoint takes pictures"):
        compile_hf(folder, CalibrationData(np.ones((32, 5), np.int64)), spec, tmp_path / "out")


PROCESSORS = [
    ("ViT", {"do_rescale": False, "do_normalize": True, "image_mean": [120.0, 110.0, 100.0]}),
    ("MobileViT", {"crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}),
    ("EfficientNet", {"rescale_offset": True, "include_top": True}),
    ("ConvNext", {"size": {"shortest_edge": SIDE}, "crop_pct": 1.0}),
    ("Bit", {"crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}),
]


@pytest.mark.parametrize(("kind", "settings"), PROCESSORS, ids=[kind for kind, _ in PROCESSORS])
def test_pixels_are_scaled_as_the_processor_does(kind: str, settings: dict, tmp_path: Path) -> None:
    made = getattr(transformers, f"{kind}ImageProcessor")
    with quiet():
        made(**{"size": {"height": SIDE, "width": SIDE}} | settings).save_pretrained(tmp_path)
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        inputs = np.random.default_rng(0).integers(0, 256, (4, 3, SIDE, SIDE)).astype(np.uint8)
        expected = processor(list(inputs), input_data_format="channels_first", return_tensors="np")["pixel_values"]
    found = picture_format(str(tmp_path), transformers.ViTConfig(image_size=SIDE))
    assert found.size == (SIDE, SIDE)
    wrapped = Preprocessed(torch.nn.Identity(), found.preprocessing)(torch.from_numpy(inputs))
    assert relative(found.arguments(wrapped)["pixel_values"].numpy(), expected) < 1e-5
    assert found.order == ((2, 1, 0) if kind == "MobileViT" else (0, 1, 2))


def test_the_size_is_the_configurations_where_the_processor_resizes_nothing(tmp_path: Path) -> None:
    with quiet():
        transformers.ViTImageProcessor(do_resize=False).save_pretrained(tmp_path)
    assert picture_format(str(tmp_path), transformers.ViTConfig(image_size=24)).size == (24, 24)
    assert picture_format(str(tmp_path), transformers.ResNetConfig()).size is None


class Squaring:
    """Does to pixels what no scale and shift can."""

    def __call__(self, images: object, **options: object) -> dict[str, np.ndarray]:
        return {"pixel_values": np.asarray(images, np.float64) ** 2}


def test_a_processor_that_does_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", lambda *_, **__: Squaring())
    with pytest.raises(UnsupportedModel, match="Squaring does more to pixels than scale, shift and reorder"):
        picture_format(str(tmp_path), transformers.ViTConfig(image_size=SIDE))


def test_samples_are_taken_evenly() -> None:
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(10_003, 3) == [0, 5001, 10_002]
