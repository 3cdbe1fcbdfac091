"""PEFT directories without PEFT: what is written, what is read back, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from acclimate.adapters.manifest import Lora
from acclimate.runtime.client import (
    ClientError,
    ExportedSession,
    NamedTensor,
    NoLowRankUpdates,
    read_seed,
    write_peft,
    write_state,
)
from acclimate.runtime.client.peft_write import peft_adapter
from tests.runtime.test_cli import failure, run

RANDOM = np.random.default_rng(5)
UPDATES = (
    Lora("blk.conv", "blk.conv.lora_A.weight", "blk.conv.lora_B.weight", 2, 4.0),
    Lora("blk.fc", "blk.fc.lora_A.weight", "blk.fc.lora_B.weight", 2, 4.0),
)


def tensor(name: str, kind: str, *shape: int) -> NamedTensor:
    return NamedTensor(name, kind, RANDOM.normal(size=shape).astype(np.float32))


PARAMETERS = (
    tensor("blk.bn.weight", "norm.scale", 8),
    tensor("blk.bn.bias", "norm.shift", 8),
    tensor("blk.conv.lora_A.weight", "lora.A", 2, 4, 3, 3),
    tensor("blk.conv.lora_B.weight", "lora.B", 8, 2, 1, 1),
    tensor("blk.fc.lora_A.weight", "lora.A", 2, 8),
    tensor("blk.fc.lora_B.weight", "lora.B", 8, 2),
    tensor("blk.fc.bias", "bias", 8),
    tensor("head.bias", "bias", 3),
    tensor("own_gain", "norm.scale", 8),
)
STATISTICS = (tensor("blk.bn.running_mean", "norm.mean", 8), tensor("blk.bn.running_var", "norm.var", 8))


def exported(parameters: tuple[NamedTensor, ...] = PARAMETERS, lora: tuple[Lora, ...] = UPDATES) -> ExportedSession:
    return ExportedSession("m", "s", "1", 3, "0" * 64, parameters, STATISTICS, lora)


def change(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | entries))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of everything that PEFT has a place for."""
    write_peft(exported(), tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(path: Path) -> tuple[str, str]:
    with pytest.raises(ClientError) as raised:
        read_seed(path)
    assert raised.value.code == "INVALID_ARGUMENT"
    assert "\n" not in raised.value.message
    return raised.value.reason, raised.value.message


def test_what_is_written_is_read_back(folder: Path) -> None:
    seed = read_seed(folder)
    held = {entry.name: entry.values for entry in (*PARAMETERS, *STATISTICS) if entry.name != "own_gain"}
    assert set(seed.tensors) == set(held)
    for name, values in held.items():
        np.testing.assert_array_equal(seed.tensors[name], values)
    assert sorted(seed.lora, key=lambda update: update.name) == sorted(UPDATES, key=lambda update: update.name)
    assert [entry.name for entry in folder.parent.iterdir()] == ["adapter"]


def test_what_peft_finds_in_the_directory(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 2, 4, "all")
    assert config["target_modules"] == ["blk.conv", "blk.fc"]
    assert config["modules_to_save"] == ["blk.bn"]
    stored = load_file(folder / "adapter_model.safetensors")
    assert "base_model.model.blk.fc.base_layer.bias" in stored
    assert "base_model.model.head.bias" in stored
    assert stored["base_model.model.blk.bn.num_batches_tracked"].shape == ()
    assert all(name.startswith("base_model.model.") for name in stored)


def test_what_has_no_place_is_named() -> None:
    assert peft_adapter(exported()).left_out == ("own_gain",)
    within = (*PARAMETERS, tensor("fc.weight", "norm.scale", 8), tensor("fc.bias", "norm.shift", 8))
    adapter = peft_adapter(exported(within))
    assert adapter.left_out == ("own_gain", "fc.weight", "fc.bias"), "PEFT would save blk.fc as a whole"
    assert adapter.config["modules_to_save"] == ["blk.bn"]


def test_ranks_and_alphas_that_differ_are_listed(tmp_path: Path) -> None:
    lora = (UPDATES[0], Lora("blk.fc", *(UPDATES[1].a, UPDATES[1].b), 2, 6.5))
    write_peft(exported(lora=lora), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert sorted(config["alpha_pattern"].values()) == [4, 6.5]
    assert config["rank_pattern"] == {}
    assert {update.name: update.alpha for update in read_seed(tmp_path / "adapter").lora} == {
        "blk.conv": 4.0,
        "blk.fc": 6.5,
    }


def test_an_older_adapter_is_replaced_and_anything_else_is_left_alone(folder: Path) -> None:
    (folder / "README.md").write_text("older")
    write_peft(exported(), folder)
    assert sorted(entry.name for entry in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    other = folder.parent / "other"
    other.mkdir()
    (other / "mine").write_text("keep")
    for path in (other, other / "mine", folder.parent / "no" / "folder"):
        with pytest.raises(OSError, match=r"something else|No such file"):
            write_peft(exported(), path)
    assert (other / "mine").read_text() == "keep"
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["adapter", "other"]


def test_a_session_without_updates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoLowRankUpdates, match="--format safetensors"):
        write_peft(exported(lora=()), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_widened(folder: Path) -> None:
    stored = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.blk.fc.lora_B.weight"
    save_file(stored | {key: stored[key].astype(np.float16)}, folder / "adapter_model.safetensors")
    np.testing.assert_array_equal(read_seed(folder).tensors["blk.fc.lora_B.weight"], stored[key].astype(np.float16))
    cut = stored[key].view(np.uint32) >> 16
    end = 2 * cut.size
    header = {
        "b": {"dtype": "BF16", "shape": list(cut.shape), "data_offsets": [0, end]},
        "steps": {"dtype": "I64", "shape": [1], "data_offsets": [end, end + 8]},
    }
    text = json.dumps(header).encode()
    (folder.parent / "brain.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + cut.astype("<u2").tobytes() + bytes(8)
    )
    widened = read_seed(folder.parent / "brain.safetensors").tensors
    assert set(widened) == {"b"}, "integers count something; a session has no use for them"
    np.testing.assert_array_equal(widened["b"], (cut << 16).view(np.float32))


def test_what_no_message_can_hold_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(2**26 + 1)
    reason, message = refused(tmp_path / "large.safetensors")
    assert (reason, "larger than the 67108864 bytes" in message) == ("SEED_UNREADABLE", True)


def test_a_session_file_names_its_updates(tmp_path: Path) -> None:
    write_state(exported(), tmp_path / "s.safetensors")
    seed = read_seed(tmp_path / "s.safetensors")
    assert seed.lora == UPDATES
    assert set(seed.tensors) == {entry.name for entry in (*PARAMETERS, *STATISTICS)}
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "bad.safetensors", {"lora": '[{"name": 3}]'})
    reason, message = refused(tmp_path / "bad.safetensors")
    assert (reason, "'lora' is malformed" in message) == ("SEED_UNREADABLE", True)


def test_rslora_scales_by_the_root_of_the_rank(folder: Path) -> None:
    change(folder, use_rslora=True)
    assert [update.alpha for update in read_seed(folder).lora] == pytest.approx([4 * 2**0.5] * 2)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only 'LORA'"),
        ({"use_dora": True}, "use_dora is set"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the frozen weights too"),
        ({"r": 8}, "'blk.conv' has rank 2, adapter_config.json says 8"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"alpha_pattern": {"(": 3}}, "no regular expression"),
    ],
)
def test_other_adapters_are_refused(folder: Path, entries: dict[str, Any], says: str) -> None:
    change(folder, **entries)
    reason, message = refused(folder)
    assert (reason, says in message) == ("SEED_UNSUPPORTED", True), message


def test_damaged_directories_are_refused(folder: Path) -> None:
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    save_file({"other.weight": np.ones(1, np.float32)}, weights)
    assert refused(folder)[0] == "SEED_UNSUPPORTED"
    weights.write_bytes(b"not tensors at all")
    assert "not a safetensors file" in refused(folder)[1]
    weights.rename(folder / "adapter_model.bin")
    reason, message = refused(folder)
    assert reason == "SEED_UNREADABLE"
    assert "is a pickle" in message
    assert "save_file(torch.load(path, weights_only=True)" in message
    (folder / "adapter_model.bin").unlink()
    assert "has no adapter_model.safetensors" in refused(folder)[1]
    save_file({}, weights)
    for text, says in (("{", "not JSON"), ("[]", "not a JSON object")):
        config.write_text(text)
        assert says in refused(folder)[1]
    config.unlink()
    assert "has no adapter_config.json" in refused(folder)[1]


def test_the_command_says_it_in_one_line(folder: Path) -> None:
    change(folder, peft_type="IA3")
    code, line = failure(run("session", "create", "m/s", "--from", str(folder), "--target", "127.0.0.1:1"))
    assert (code, "only 'LORA' can seed a session" in line) == (1, True)
