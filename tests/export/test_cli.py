"""`acclimate export torch`: a bundle from a module's name and two files, or one line and nothing."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from acclimate.adapters.manifest import Manifest
from acclimate.export import CalibrationData, compile_model
from acclimate.export.calibration_file import read_calibration
from acclimate.export.cli import app
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.torch_import import class_count, load_weights, make_module
from tests.export.commandline import acclimate, refusal
from tests.export.nets import CLASSES, PREPROCESSING, calibration, pictures, tiny_net
from tests.export.test_compile import SPEC

PIXELS = ("--mean", "0.4,0.5", "--std", "0.2,0.3")
FACTORY = "tests.export.nets:tiny_net"


def weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tiny_net(seed=3).state_dict().items()} | changes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a user would have."""
    folder = tmp_path_factory.mktemp("inputs")
    save_file(weights(), folder / "w.safetensors")
    data = calibration(200, labelled=True)
    np.savez(folder / "c.npz", x=data.inputs)
    np.savez(folder / "last.npz", x=np.ascontiguousarray(data.inputs.transpose(0, 2, 3, 1)))
    return folder


def arguments(inputs: Path, out: Path, **changes: str) -> list[str]:
    given = {"weights": "w.safetensors", "calibration": "c.npz"} | changes
    named = [part for option, value in given.items() for part in (f"--{option}", str(inputs / value))]
    return ["export", "torch", FACTORY, *named, "--out", str(out), *PIXELS]


def test_a_bundle_from_the_command_line_is_that_of_the_python_api(inputs: Path, tmp_path: Path) -> None:
    result = acclimate(tmp_path, *arguments(inputs, tmp_path / "tiny"), "--classes", ",".join(CLASSES), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((tmp_path / "tiny" / "report.json").read_text())
    compile_model(tiny_net(seed=3), CalibrationData(np.load(inputs / "c.npz")["x"]), SPEC, tmp_path / "api")
    for name in ("forward.onnx", "frozen.onnx", "vjp.onnx", "observe.onnx"):
        assert (tmp_path / "tiny" / name).read_bytes() == (tmp_path / "api" / name).read_bytes(), name
    described = Manifest.from_json(json.loads((tmp_path / "tiny" / "manifest.json").read_text()))
    assert (described.name, described.classes) == ("tiny", CLASSES)


def test_chosen_sites_and_channels_last(inputs: Path, tmp_path: Path) -> None:
    given = arguments(inputs, tmp_path / "some", calibration="last.npz")
    result = acclimate(tmp_path, *given, "--sites", "norm1", "--sites", "block.*", "--name", "two")
    assert result.returncode == 0, result.stderr
    assert "2 sites, 24 adaptable parameters" in result.stdout
    described = Manifest.from_json(json.loads((tmp_path / "some" / "manifest.json").read_text()))
    assert [site.name for site in described.sites] == ["norm1", "block.1"]
    assert (described.name, described.classes) == ("two", ("0", "1", "2"))
    assert described.inputs[0].shape == (-1, 2, 9, 9)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"weights": "w.pth"}, (), "is a pickle checkpoint.*safetensors.torch.save_file"),
        ({}, ("--adapt", "everything"), "adapt: 'everything' is not offered"),
        ({}, ("--sites", "nothing*"), "no adaptable norm matches"),
        ({"calibration": "labels.npz"}, (), "label 3 is outside 0..2"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    inputs: Path, tmp_path: Path, changes: dict[str, str], options: tuple[str, ...], message: str
) -> None:
    torch.save(weights(), inputs / "w.pth")
    np.savez(inputs / "labels.npz", x=pictures(32), y=np.full(32, 3))
    code, line = refusal(acclimate(tmp_path, *arguments(inputs, tmp_path / "out", **changes), *options))
    assert code == 1
    assert re.search(message, line), line
    assert [entry.name for entry in tmp_path.iterdir()] == [".path"]


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxruntime"])
def test_a_missing_package_names_the_extra(inputs: Path, tmp_path: Path, package: str) -> None:
    code, line = refusal(acclimate(tmp_path, *arguments(inputs, tmp_path / "out"), hidden=(package,)))
    assert code == 3
    assert "pip install 'acclimate[export]'" in line


def test_help_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    result = acclimate(tmp_path, "export", "--help", hidden=("torch", "onnx", "onnxruntime"))
    assert result.returncode == 0, result.stderr
    for command in app.registered_commands:
        assert (command.name or "") in result.stdout


def test_an_installation_without_the_exporter_says_so(tmp_path: Path) -> None:
    code, line = refusal(acclimate(tmp_path, "export", "torch", hidden=("acclimate.export",)))
    assert code == 3
    assert "acclimate[export]" in line


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("opened"),)


def test_a_pickle_under_another_name_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps({"weight": Hostile()}))
    with pytest.raises(ExportError, match="may run code when it is opened"):
        load_weights(tiny_net(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "c.npz", x=np.array([Hostile()], object))
    with pytest.raises(CalibrationError, match=r"not an \.npz file of plain arrays"):
        read_calibration(tmp_path / "c.npz")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.bias": torch.zeros(4)}, "does not fit the module: size mismatch for head.bias"),
        ({"extra": torch.zeros(4)}, r"lacks \[\] and has \['extra'\] besides"),
        ({"head.bias": None}, r"lacks \['head.bias'\]"),
    ],
)
def test_weights_must_fit(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    save_file({k: v for k, v in weights(**tensors).items() if v is not None}, tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match=message) as raised:
        load_weights(tiny_net(), tmp_path / "w.safetensors")
    assert "\n" not in str(raised.value)


def test_weights_are_loaded_and_counters_may_be_missing(tmp_path: Path) -> None:
    save_file({k: v for k, v in weights().items() if "num_batches" not in k}, tmp_path / "w.safetensors")
    model = tiny_net()
    load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model.get_parameter("head.weight"), weights()["head.weight"])


def not_a_module() -> int:
    return 3


def failing() -> None:
    raise RuntimeError("no such depth\nat all")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nets", "must be written pkg.module:factory"),
        ("no.such.module:f", "cannot be imported"),
        ("tests.export.nets:nothing", "cannot be imported"),
        (f"{__name__}:not_a_module", "returned int; expected a torch.nn.Module"),
        (f"{__name__}:failing", "failed with RuntimeError: no such depth$"),
    ],
)
def test_factories_that_cannot_be_used(target: str, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        make_module(target)


def test_the_width_of_the_logits_is_asked_of_the_model() -> None:
    assert class_count(tiny_net(), (2, 9, 9)) == 3
    with pytest.raises(UnsupportedModel, match=r"the model fails on samples of shape \[3, 9, 9\]"):
        class_count(tiny_net(), (3, 9, 9))
    with pytest.raises(UnsupportedModel, match=r"returns \[2, 2, 9, 9\]"):
        class_count(torch.nn.Identity(), (2, 9, 9))


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 3, 8, 9), "auto", (5, 3, 8, 9)),
        ((5, 8, 9, 1), "auto", (5, 1, 8, 9)),
        ((5, 2, 9, 2), "auto", (5, 2, 9, 2)),
        ((5, 2, 9, 3), "nhwc", (5, 3, 2, 9)),
        ((5, 8, 9, 7), "nchw", (5, 8, 9, 7)),
    ],
)
def test_axes_of_calibration_images(tmp_path: Path, shape: Any, layout: Any, expected: Any) -> None:
    np.savez(tmp_path / "c.npz", x=pictures(shape[0], shape[1:]), y=np.arange(5))
    data = read_calibration(tmp_path / "c.npz", layout)
    assert data.inputs.shape == expected
    assert data.inputs.flags.c_contiguous
    np.testing.assert_array_equal(data.labels, np.arange(5))


def test_calibration_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("x")
    np.save(tmp_path / "array.npy", pictures(3))
    for name in ("text.npz", "array.npy"):
        with pytest.raises(CalibrationError, match=r"not an \.npz file"):
            read_calibration(tmp_path / name)
    np.savez(tmp_path / "names.npz", images=pictures(3))
    with pytest.raises(CalibrationError, match="has no array 'x'"):
        read_calibration(tmp_path / "names.npz")
    np.savez(tmp_path / "rank.npz", x=np.zeros((3, 4)))
    with pytest.raises(CalibrationError, match=r"'x' is float64 \[3, 4\]"):
        read_calibration(tmp_path / "rank.npz")
    np.savez(tmp_path / "wide.npz", x=pictures(3, (8, 9, 7)))
    with pytest.raises(CalibrationError, match="say --layout"):
        read_calibration(tmp_path / "wide.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "a"), "mean: 'a' is not a comma-separated list"),
        (("--std", "1,2,3"), "std: 3 values for samples with 2 channels"),
        (("--std", "0"), "must be positive"),
        (("--classes", "a,b"), "2 different names were given; the model returns 3 logits"),
        (("--classes", "a,b,b"), "2 different names"),
        (("--layout", "chw"), "layout: 'chw' is not one of"),
    ],
)
def test_texts_that_cannot_be_used(
    inputs: Path, tmp_path: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(args=[*arguments(inputs, tmp_path / "out")[1:], *options], prog_name="acclimate export")
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_classes_from_a_file(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n dog \n\nowl\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        given = [*arguments(inputs, tmp_path / "out")[1:], "--classes", str(tmp_path / "labels.txt")]
        app(args=given, prog_name="acclimate export")
    assert ended.value.code == 0
    described = Manifest.from_json(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert described.classes == ("cat", "dog", "owl")
    assert PREPROCESSING.mean == (0.4, 0.5)
