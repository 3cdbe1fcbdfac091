"""`--adapt`: what a person writes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from acclimate.export.adaptation import Biases, LowRank, Norms
from acclimate.export.arguments import adaptations, bundle_spec
from acclimate.export.errors import ExportError
from acclimate.export.trace import Preprocessing
from tests.export.commandline import acclimate, refusal
from tests.export.nets import CLASSES, pictures, tiny_net


def test_what_is_written_is_what_is_meant() -> None:
    assert adaptations(None) == (Norms(),)
    assert adaptations(["bias"]) == (Biases(),)
    assert adaptations(["lora"]) == (LowRank(8, None, ("*",)),)
    assert adaptations(["lora:r=4,targets=*query*|*value", "norm"]) == (
        LowRank(4, None, ("*query*", "*value")),
        Norms(),
    )
    assert adaptations(["norm + lora:alpha=16 + bias:targets=head", "norm"]) == (
        Norms(),
        LowRank(8, 16.0),
        Biases(("head",)),
    )
    assert (LowRank(4).weight, LowRank(4, 1.0).weight) == (4.0, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("everything", r"adapt: 'everything' is not offered; use one of \['norm', 'bias', 'lora'\]"),
        ("norm:targets=a", "norm takes no options; choose norms with --sites"),
        ("lora:rank=3", r"'rank=3' in 'lora:rank=3' is not a KEY=VALUE of \['r', 'alpha', 'targets'\]"),
        ("bias:r=3", r"is not a KEY=VALUE of \['targets'\]"),
        ("lora:r=1,r=2", "'r=2' in 'lora:r=1,r=2'"),
        ("lora:r", "'r' in 'lora:r'"),
        ("lora:r=2.5", "lora: r is '2.5'; give a whole number"),
        ("lora:r=0", "lora: r is 0; it must be at least 1"),
        ("lora:alpha=much", "lora: alpha is 'much'; give a number"),
        ("lora:alpha=nan", "lora: alpha is nan; it must be positive"),
        ("lora:targets=|", "targets in 'lora:targets=|' is empty"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExportError, match=message.replace("|", r"\|")) as raised:
        adaptations([text])
    assert "\n" not in str(raised.value)


def test_globs_over_norms_need_norms_to_adapt() -> None:
    with pytest.raises(ExportError, match=r"sites: \['block\.\*'\] choose norms, but --adapt names none"):
        bundle_spec("x", CLASSES, ["block.*"], 1.5, Preprocessing(), (LowRank(2),))


def test_the_command_writes_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "tinymodel.py").write_text("from tests.export.nets import tiny_net as make\n")
    save_file(tiny_net().state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "c.npz", x=pictures(64))
    given = ["export", "torch", "tinymodel:make", "--weights", "w.safetensors", "--calibration", "c.npz"]
    given += ["--mean", "0.4,0.5", "--std", "0.2,0.3", "--out", "tiny"]
    wanted = ["--adapt", "norm", "--sites", "norm*", "--adapt", "lora:r=2,alpha=4,targets=block*|head+bias"]
    result = acclimate(tmp_path, *given, *wanted, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["sites"] == 3 + 2 + 1
    inspected = json.loads(acclimate(tmp_path, "bundle", "inspect", "tiny", "--json").stdout)
    assert report["parameters"] == inspected["parameters"] == sum(kind["parameters"] for kind in inspected["kinds"])
    assert [entry["kind"] for entry in inspected["kinds"]] == ["norm.scale", "norm.shift", "lora.A", "lora.B", "bias"]
    assert inspected["slices"][-1] == {"name": "head.bias", "kind": "bias", "shape": [3], "bytes": 12}
    assert {"name": "block.0", "rank": 2, "alpha": 4.0}.items() <= inspected["lora"][0].items()
    table = acclimate(tmp_path, "bundle", "inspect", "tiny").stdout
    assert all(word in table for word in ("block.0.lora_A.weight", "[2, 8, 1, 1]", "lora.B", "norm1.bias"))
    code, line = refusal(acclimate(tmp_path, *given, "--adapt", "lora:r=9"))
    assert (code, "layer 'stem' maps 18 numbers to 4; use r <= 4" in line) == (1, True)
