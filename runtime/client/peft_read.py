"""A PEFT LoRA directory as a seed: PEFT's keys as the names of the source model, its scaling as alpha."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Lora
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.peft_names import BASE_LAYER, LORA_A, LORA_B, PREFIX
from acclimate.runtime.types import Seed

# Initialisations that change the frozen weights as well, so that the update alone is not what was learnt.
RESIDUAL = ("pissa", "olora", "corda", "loftq", "lora_ga")


def seed_of(path: Path, config: Any, tensors: Mapping[str, Float]) -> Seed:
    """What PEFT's adapter means by the names of the source model.

    Args:
        path: for messages.
        config: `adapter_config.json`, parsed.
        tensors: `adapter_model.safetensors`, float32.

    Raises:
        ClientError: INVALID_ARGUMENT, the adapter is no plain LoRA, or its files contradict each other.
    """
    if not isinstance(config, dict):
        raise _unsupported(path, "adapter_config.json is not a JSON object; save the adapter again with PEFT")
    _refuse_other_kinds(path, config)
    if stray := sorted(key for key in tensors if not key.startswith(PREFIX)):
        raise _unsupported(path, f"tensor {stray[0]!r} does not begin with {PREFIX!r}; save it again with PEFT")
    named = {key.removeprefix(PREFIX).replace(f"{BASE_LAYER}.", "."): values for key, values in tensors.items()}
    ranks = {name.removesuffix(LORA_A): values.shape[:1] for name, values in named.items() if name.endswith(LORA_A)}
    return Seed(named, tuple(_update(path, config, module, sum(rank)) for module, rank in ranks.items()))


def _refuse_other_kinds(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unsupported(path, f"peft_type is {kind!r}; only 'LORA' can seed a session")
    for flag in ("use_dora", "lora_bias", "use_qalora", "use_bdlora"):
        if config.get(flag):
            raise _unsupported(path, f"{flag} is set; train the adapter without it, as plain LoRA")
    chosen = str(config.get("init_lora_weights", "")).lower()
    if chosen.startswith(RESIDUAL):
        raise _unsupported(
            path,
            f"init_lora_weights is {chosen!r}, which changes the frozen weights too; convert the adapter with "
            "save_pretrained(path_initial_model_for_weight_conversion=...)",
        )


def _update(path: Path, config: Mapping[str, Any], module: str, rank: int) -> Lora:
    """Rank and effective alpha of one module; with `use_rslora` PEFT scales by alpha / sqrt(rank)."""
    said = _of_module(path, config, "rank_pattern", module, config.get("r"))
    if said != rank:
        raise _unsupported(path, f"{module!r} has rank {rank}, adapter_config.json says {said}; save the adapter again")
    alpha = _of_module(path, config, "alpha_pattern", module, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise _unsupported(path, f"lora_alpha is {alpha!r}; it must be a number")
    effective = alpha * math.sqrt(rank) if config.get("use_rslora") else float(alpha)
    return Lora(module, module + LORA_A, module + LORA_B, rank, effective)


def _of_module(path: Path, config: Mapping[str, Any], pattern: str, module: str, otherwise: Any) -> Any:
    """The entry of a pattern table that PEFT would take: the first whose key matches the end of the module's path."""
    for key, value in (config.get(pattern) or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise _unsupported(path, f"{pattern} has key {key!r}, which is no regular expression ({error})") from error
    return otherwise


def _unsupported(path: Path, why: str) -> ClientError:
    return ClientError("INVALID_ARGUMENT", "SEED_UNSUPPORTED", f"{str(path)!r}: {why}", {"path": str(path)})
