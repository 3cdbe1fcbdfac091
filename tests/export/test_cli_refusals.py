"""Every refusal of `acclimate export torch`, `onnx` and `hf`: an exit code, one line that says why, nothing written."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from acclimate.export.cli import app
from tests.export import checkpoints
from tests.export.checkpoints import BERT_SIZES, INTENTS, LENGTH, SIDE, VIT_SIZES, names, save_tokenizer, silent, texts
from tests.export.commandline import acclimate, refusal
from tests.export.nets import pictures, tiny_net
from tests.export.test_onnx_import import edited, saved, spoil

Refusal = tuple[list[str], str]


class Ceiling(nn.Module):
    """A step between norm and head, which has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ceil(self.norm(self.conv(x))).mean((2, 3))


def save_weights(module: nn.Module, path: Path, **changes: Tensor) -> None:
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()} | changes, path)


def ceiled(proto: onnx.ModelProto) -> None:
    next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "Ceil"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users have, whole and spoilt, for all three commands."""
    folder = tmp_path_factory.mktemp("inputs")
    np.savez(folder / "c.npz", x=pictures(32))
    np.savez(folder / "three.npz", x=pictures(32, (3, 9, 9)))
    np.savez(folder / "labels.npz", x=pictures(32), y=np.full(32, 3))
    save_weights(tiny_net(), folder / "w.safetensors")
    save_weights(Ceiling(), folder / "ceiling.safetensors")
    save_weights(tiny_net(), folder / "nan.safetensors", **{"head.bias": torch.full((3,), torch.nan)})
    torch.save(tiny_net().state_dict(), folder / "w.pth")
    (folder / "w.renamed.safetensors").write_bytes(pickle.dumps({}))
    model = saved(tiny_net(), folder / "tiny.onnx")
    edited(model, folder / "ceiling.onnx", ceiled)
    edited(model, folder / "nan.onnx", spoil)
    return folder


def torch_command(weights: str = "w.safetensors", factory: str = "tests.export.nets:tiny_net") -> list[str]:
    return ["torch", factory, "--weights", weights, "--mean", "0.4,0.5", "--std", "0.2,0.3"]


TORCH: dict[str, Refusal] = {
    "operator": (
        [*torch_command("ceiling.safetensors", f"{__name__}:Ceiling"), "--calibration", "c.npz"],
        "operator Ceil has no backward rule",
    ),
    "sites": ([*torch_command(), "--calibration", "c.npz", "--sites", "bn*"], r"no adaptable norm matches \['bn\*'\]"),
    "shape": ([*torch_command(), "--calibration", "three.npz"], r"std: 2 values for samples with 3 channels|mean: 2"),
    "shape of the module": (
        ["torch", "tests.export.nets:tiny_net", "--weights", "w.safetensors", "--calibration", "three.npz"],
        r"calibration: the model fails on samples of shape \[3, 9, 9\]",
    ),
    "labels": (
        [*torch_command(), "--calibration", "labels.npz"],
        r"label 3 is outside 0\.\.2; the model has 3 classes",
    ),
    "not finite": ([*torch_command("nan.safetensors"), "--calibration", "c.npz"], "weight 'head.bias' is not finite"),
    "pickle": (
        [*torch_command("w.pth"), "--calibration", "c.npz"],
        "is a pickle checkpoint.*convert it where you trust it: safetensors.torch.save_file",
    ),
    "pickle by another name": (
        [*torch_command("w.renamed.safetensors"), "--calibration", "c.npz"],
        "is a pickle checkpoint.*convert it",
    ),
}
ONNX: dict[str, Refusal] = {
    "operator": (["onnx", "ceiling.onnx", "--calibration", "c.npz"], "operator Ceil has no backward rule"),
    "sites": (["onnx", "tiny.onnx", "--calibration", "c.npz", "--sites", "bn*"], "no adaptable norm matches"),
    "shape": (
        ["onnx", "tiny.onnx", "--calibration", "three.npz"],
        r"samples have shape \[3, 9, 9\]; input 'image' takes",
    ),
    "labels": (["onnx", "tiny.onnx", "--calibration", "labels.npz"], r"label 3 is outside 0\.\.2"),
    "not finite": (["onnx", "nan.onnx", "--calibration", "c.npz"], "weight 'stem.weight' is not finite"),
    "pickle": (
        ["onnx", "w.pth", "--calibration", "c.npz"],
        "is a pickle checkpoint.*write the model with torch.onnx.export",
    ),
}


def ended(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Exit code of a command in `folder`, its bundle in a folder beside."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ending:
        app(args=[*arguments, "--out", "bundles/out"], prog_name="acclimate export")
    return ending.value.code


def must_refuse(
    case: Refusal, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = case
    assert ended(arguments, folder, monkeypatch) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("acclimate: ")
    assert re.search(message, line), line
    assert printed.out == ""
    assert not (folder / "bundles").exists()


@pytest.mark.parametrize("why", TORCH)
def test_torch_refuses(why: str, inputs: Path, monkeypatch, capsys) -> None:
    must_refuse(TORCH[why], inputs, monkeypatch, capsys)


@pytest.mark.parametrize("why", ONNX)
def test_onnx_refuses(why: str, inputs: Path, monkeypatch, capsys) -> None:
    must_refuse(ONNX[why], inputs, monkeypatch, capsys)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, whole and spoilt."""
    folder = tmp_path_factory.mktemp("hub")
    np.savez(folder / "c.npz", x=checkpoints.pictures(32))
    np.savez(folder / "small.npz", x=checkpoints.pictures(32, side=16))
    np.savez(folder / "labels.npz", x=checkpoints.pictures(32), y=np.full(32, 7))
    (folder / "texts.txt").write_text("\n".join(texts(32)))
    vit = checkpoints.vit(folder / "vit")
    checkpoints.distilbert(folder / "intents")
    for name in ("nan", "pickled", "disguised", "unscaled", "empty"):
        shutil.copytree(vit, folder / name)
    weights = load_file(vit / "model.safetensors")
    save_file(
        weights | {"classifier.bias": torch.full((3,), torch.inf)},
        folder / "nan" / "model.safetensors",
        {"format": "pt"},
    )
    torch.save(weights, folder / "pickled" / "pytorch_model.bin")
    torch.save(weights, folder / "disguised" / "model.safetensors")
    for name in ("pickled/model.safetensors", "unscaled/preprocessor_config.json", "empty/model.safetensors"):
        (folder / name).unlink()
    others: dict[str, Callable[[int], nn.Module]] = {
        "encoder": lambda words: transformers.BertModel(transformers.BertConfig(vocab_size=words, **BERT_SIZES)),
        "fnet": lambda words: transformers.FNetForSequenceClassification(
            transformers.FNetConfig(
                vocab_size=words, num_hidden_layers=1, hidden_size=32, intermediate_size=32, **names(INTENTS)
            )
        ),
        "many": lambda words: transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=words, problem_type="multi_label_classification", **BERT_SIZES)
        ),
    }
    with silent():
        for name, make in others.items():
            make(save_tokenizer(folder / name)).save_pretrained(folder / name)
        mute = transformers.ViTConfig(image_size=SIDE, patch_size=8, **VIT_SIZES)
        transformers.ViTModel(mute).save_pretrained(folder / "mute")
        transformers.DistilBertForSequenceClassification.from_pretrained(folder / "intents").save_pretrained(
            folder / "wordless"
        )
    return folder


PICTURES = ["--calibration", "c.npz"]
TEXTS = ["--calibration", "texts.txt", "--length", str(LENGTH)]
HF: dict[str, Refusal] = {
    "operator": (["hf", "fnet", *TEXTS], "operator DFT has no backward rule"),
    "sites": (["hf", "vit", *PICTURES, "--sites", "bn*"], r"no adaptable norm matches \['bn\*'\]"),
    "shape": (["hf", "vit", "--calibration", "small.npz"], "pictures are 16 x 16 .*; this checkpoint wants 32 x 32"),
    "texts for pictures": (["hf", "vit", "--calibration", "texts.txt"], "holds texts; this checkpoint takes pictures"),
    "pictures for texts": (["hf", "intents", *PICTURES], r"samples have shape \[3, 32, 32\]; expected token ids"),
    "labels": (["hf", "vit", "--calibration", "labels.npz"], r"label 7 is outside 0\.\.2"),
    "not finite": (["hf", "nan", *PICTURES], "weight 'classifier.bias' is not finite"),
    "pickle": (["hf", "pickled", *PICTURES], "'pickled/pytorch_model.bin' is a pickle checkpoint.*save_pretrained"),
    "pickle by another name": (["hf", "disguised", *PICTURES], "'disguised/model.safetensors' is a pickle checkpoint"),
    "no weights": (["hf", "empty", *PICTURES], "has no weights; give a folder with model.safetensors"),
    "no configuration": (["hf", ".", *PICTURES], "has no config.json"),
    "a file": (["hf", "c.npz", *PICTURES], "neither a folder nor an id of the Hugging Face hub"),
    "no head": (["hf", "encoder", *TEXTS], "'BertModel' is for 'feature-extraction' and answers no class"),
    "no head for the task": (
        ["hf", "encoder", *TEXTS, "--task", "text-classification"],
        r"no weights for \['classifier.bias', 'classifier.weight'\] of BertForSequenceClassification",
    ),
    "another task": (["hf", "encoder", *TEXTS, "--task", "fill-mask"], "task: 'fill-mask' is not one of"),
    "no task at all": (["hf", "encoder", *TEXTS, "--task", "painting"], "task: 'painting' is not one of"),
    "pictures without a head": (["hf", "mute", *PICTURES], "'ViTModel' is for .* and answers no class"),
    "several labels at once": (["hf", "many", *TEXTS], "problem_type 'multi_label_classification'"),
    "no processor": (["hf", "unscaled", *PICTURES], "has no image processor.*save one"),
    "no tokenizer": (["hf", "wordless", *TEXTS], "has no tokenizer"),
    "length of pictures": (["hf", "vit", *PICTURES, "--length", "5"], "length: 5 was given for image-classification"),
    "classes": (
        ["hf", "vit", *PICTURES, "--classes", "a,b"],
        "2 different names were given; the model returns 3 logits",
    ),
}


@pytest.mark.parametrize("why", HF)
def test_hf_refuses(why: str, hub: Path, monkeypatch, capsys) -> None:
    must_refuse(HF[why], hub, monkeypatch, capsys)


def test_the_hub_is_out_of_reach(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    given = ("export", "hf", "owner/name", "--calibration", str(hub / "c.npz"), "--out", "out")
    code, line = refusal(acclimate(tmp_path / "work", *given))
    assert code == 1
    assert "'owner/name' is no folder here, and cannot be had from the hub" in line
    assert [entry.name for entry in (tmp_path / "work").iterdir()] == [".path"]


COMMANDS = {
    "torch": [*torch_command(), "--calibration", "c.npz", "--out", "out"],
    "onnx": ["onnx", "tiny.onnx", "--calibration", "c.npz", "--out", "out"],
    "hf": ["hf", "vit", "--calibration", "c.npz", "--out", "out"],
}
MISSING = [
    ("onnx", "onnx"),
    ("onnx", "onnxruntime"),
    ("hf", "torch"),
    ("hf", "transformers"),
    ("hf", "optimum"),
    ("hf", "PIL"),
]


@pytest.mark.parametrize(("command", "package"), MISSING)
def test_a_missing_package_names_the_extra(command: str, package: str, tmp_path: Path) -> None:
    code, line = refusal(acclimate(tmp_path, "export", *COMMANDS[command], hidden=(package,)))
    assert code == 3
    assert re.search(f"package '{package}.*pip install 'acclimate\\[export\\]'", line), line


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_arguments_end_with_two(command: str, tmp_path: Path, monkeypatch, capsys) -> None:
    lacking = [word for word in COMMANDS[command][:-2] if word not in ("--calibration", "c.npz")]
    assert ended(lacking, tmp_path, monkeypatch) == 2
    assert "Missing option '--calibration'" in capsys.readouterr().err
    assert ended([*COMMANDS[command][:-2], "--headroom", "0.5"], tmp_path, monkeypatch) == 2
    assert "'--headroom'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
