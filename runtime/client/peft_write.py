"""What a session has learnt as a directory that PEFT loads: `PeftModel.from_pretrained(model, directory)`.

Low-rank updates travel as LoRA, affines and statistics of norms as `modules_to_save` (PEFT puts a copy of the module
into place, so it must be the whole module), biases as `bias: all`. Made without PEFT and torch.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from acclimate.adapters.manifest import Lora
from acclimate.runtime.client.peft_names import ADAPTER_FILE, BASE_LAYER, CONFIG_FILE, LORA_A, LORA_B, PREFIX
from acclimate.runtime.types import ExportedSession, NamedTensor

COUNTER = "num_batches_tracked"
NORM_LEAVES = frozenset({"weight", "bias", "running_mean", "running_var"})


class NoLowRankUpdates(ValueError):
    """The session's model has no low-rank updates, so there is nothing that PEFT calls LoRA."""


@dataclass(frozen=True)
class PeftAdapter:
    """The two files, and the names of the session's tensors that they do not hold."""

    config: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    left_out: tuple[str, ...]


def peft_adapter(exported: ExportedSession) -> PeftAdapter:
    """The session as PEFT's configuration and tensors.

    Raises:
        NoLowRankUpdates: the model has none.
    """
    if not exported.lora:
        raise NoLowRankUpdates(
            f"session {exported.model}/{exported.session_id} has no low-rank updates, without which there is no PEFT "
            "adapter; use --format safetensors"
        )
    updated = {update.name for update in exported.lora}
    values = {entry.name: entry.values for entry in (*exported.parameters, *exported.statistics)}
    tensors: dict[str, NDArray[Any]] = {}
    for update in exported.lora:
        tensors[PREFIX + update.name + LORA_A] = values[update.a]
        tensors[PREFIX + update.name + LORA_B] = values[update.b]
    biases, norms, left_out = _others(exported, updated)
    for entry in biases:
        module = entry.name.removesuffix(".bias")
        tensors[f"{PREFIX}{module}{BASE_LAYER if module in updated else ''}.bias"] = entry.values
    for module, entries in norms.items():
        tensors |= {f"{PREFIX}{entry.name}": entry.values for entry in entries}
        if any(entry.kind == "norm.mean" for entry in entries):
            # PEFT asks for every entry of the module's state; this one counts batches in training only.
            tensors[f"{PREFIX}{module}.{COUNTER}"] = np.zeros((), np.int64)
    config = _config(exported.lora, sorted(norms), "all" if biases else "none")
    return PeftAdapter(config, tensors, left_out)


def write_peft(exported: ExportedSession, path: Path) -> tuple[str, ...]:
    """Write the directory, or nothing; an older adapter there is replaced. Returns the names of what is left out.

    Raises:
        NoLowRankUpdates: the model has none. OSError: the directory cannot be written.
        FileExistsError: something else is there.
    """
    adapter = peft_adapter(exported)
    if path.exists() and not (path / CONFIG_FILE).is_file():
        raise FileExistsError(17, "something else is there already", str(path))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        made, older = Path(scratch, "made"), Path(scratch, "older")
        made.mkdir()
        (made / CONFIG_FILE).write_text(json.dumps(adapter.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(adapter.tensors, made / ADAPTER_FILE, {"format": "pt"})
        if path.exists():
            path.rename(older)
        try:
            made.rename(path)
        except OSError:
            if older.exists():
                older.rename(path)
            raise
        shutil.rmtree(older, ignore_errors=True)
    return adapter.left_out


def _others(
    exported: ExportedSession, updated: set[str]
) -> tuple[list[NamedTensor], dict[str, list[NamedTensor]], tuple[str, ...]]:
    """Biases, norms by module, and the names of what is left out."""
    low_rank = {name for update in exported.lora for name in (update.a, update.b)}
    biases: list[NamedTensor] = []
    norms: dict[str, list[NamedTensor]] = {}
    left_out: list[str] = []
    for entry in (*exported.parameters, *exported.statistics):
        module, _, leaf = entry.name.rpartition(".")
        if entry.name in low_rank:
            continue
        if entry.kind == "bias" and module and leaf == "bias":
            biases.append(entry)
        elif entry.kind.startswith("norm.") and module and leaf in NORM_LEAVES:
            norms.setdefault(module, []).append(entry)
        else:
            left_out.append(entry.name)
    for module in [module for module in norms if _shadows(module, updated)]:
        left_out += [entry.name for entry in norms.pop(module)]
    return biases, norms, tuple(left_out)


def _shadows(module: str, updated: set[str]) -> bool:
    """Whether PEFT, which matches saved modules by parts of paths, would take this one for an updated module too."""
    within = re.compile(rf"(^|.*\.){re.escape(module)}($|\..*)")
    return any(within.match(name) or name.endswith(module) for name in updated)


def _config(updates: Sequence[Lora], norms: list[str], bias: str) -> dict[str, Any]:
    rank = Counter(update.rank for update in updates).most_common(1)[0][0]
    alpha = Counter(update.alpha for update in updates).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        # A task would make PEFT expect the classifier's weights in the adapter as well.
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": dict(_exceptions(updates, rank, "rank")),
        "alpha_pattern": dict(_exceptions(updates, alpha, "alpha")),
        "target_modules": sorted(update.name for update in updates),
        "modules_to_save": norms or None,
        "bias": bias,
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _exceptions(updates: Sequence[Lora], usual: float, field: str) -> Iterator[tuple[str, float]]:
    """Entries for PEFT's pattern tables, whose keys match ends of paths: all modules, the longest first, or none."""
    if any(getattr(update, field) != usual for update in updates):
        for update in sorted(updates, key=lambda update: -len(update.name)):
            yield re.escape(update.name), _plain(getattr(update, field))


def _plain(number: float) -> float:
    """An integer where it is one, as people write alpha."""
    return int(number) if float(number).is_integer() else number
