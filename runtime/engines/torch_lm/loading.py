"""A directory in Hugging Face's layout as a frozen base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from acclimate.runtime.engines.language import LanguageModelError
from acclimate.runtime.engines.torch_lm.llama import Base, Layer, Shape, configured
from acclimate.runtime.engines.torch_lm.lowrank import GROUPS
from acclimate.runtime.engines.torch_lm.options import PROJECTIONS, Precision
from acclimate.runtime.engines.torch_lm.weights import INT4_GROUP, MAKERS, Vocabulary

FAMILIES = frozenset({"llama", "mistral", "qwen2"})
"""Values of `model_type` whose forward pass is that of `learning_pass`."""
DEFAULT_CONTEXT = 2048
ROUNDED = frozenset({"nf4", "int8", "int4"})
"""Precisions in which generation has the head in eight bits."""

Read = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The base, the context it is loaded for, and the tokens that end a text."""

    base: Base
    context: int
    ends: frozenset[int]
    pairs: dict[str, list[int]]


def load(directory: Path, precision: Precision, context: int, device: torch.device) -> Loaded:
    """Read a model and put it into its precision.

    Args:
        directory: config.json and *.safetensors.
        precision: of the projections; norms are float32, the embedding bfloat16 or float32.
        context: most tokens of a row; 0: what the model was made for, but no more than 2048.
        device: where it is held.

    Raises:
        LanguageModelError: a file is missing or damaged, or the model is not of a family that is supported.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        raise LanguageModelError(f"{directory}: config.json cannot be used ({error})") from error
    _refuse_unknown(directory, config)
    shape = configured(config)
    largest = int(config.max_position_embeddings)
    if context > largest:
        raise LanguageModelError(f"{directory}: context is {context}; this model was made for {largest} tokens at most")
    context = context or min(largest, DEFAULT_CONTEXT)
    if precision == "int4" and any(size % INT4_GROUP for _, size in shape.projections.values()):
        raise LanguageModelError(f"{directory}: int4 needs inputs in multiples of {INT4_GROUP}; use nf4 or bf16")
    with ExitStack() as stack:
        read = _reader(directory, stack)
        try:
            base = _base(read, shape, config, precision, context, device)
        except (KeyError, SafetensorError) as error:
            raise LanguageModelError(f"{directory}: tensor {error} is missing or damaged") from error
    return Loaded(base, context, frozenset(_ends(directory, config)), pairs_of(shape))


def pairs_of(shape: Shape) -> dict[str, list[int]]:
    """Rows of the rotated projections with the two channels of a pair side by side (see `llama`)."""
    half = shape.head // 2
    one = [channel for first in range(half) for channel in (first, first + half)]
    return {
        name: [head * shape.head + channel for head in range(heads) for channel in one]
        for name, heads in (("q_proj", shape.heads), ("k_proj", shape.kv_heads))
    }


def _refuse_unknown(directory: Path, config: Any) -> None:
    faults = [
        (config.model_type not in FAMILIES, f"model_type is {config.model_type!r}"),
        (getattr(config, "hidden_act", "silu") != "silu", "hidden_act is not silu"),
        (bool(getattr(config, "mlp_bias", False)), "mlp_bias is set"),
        (bool(getattr(config, "attention_bias", False)), "attention_bias is set"),
        (bool(getattr(config, "use_sliding_window", False)), "use_sliding_window is set"),
    ]
    if wrong := [text for fault, text in faults if fault]:
        raise LanguageModelError(
            f"{directory}: {', '.join(wrong)}; served are {', '.join(sorted(FAMILIES))} as they usually are"
        )


def _reader(directory: Path, stack: ExitStack) -> Read:
    """What reads a tensor by name from one file or several."""
    index = directory / "model.safetensors.index.json"
    names = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else {}
    files: dict[str, Any] = {}

    def read(name: str) -> Tensor:
        file = names.get(name, "model.safetensors")
        if file not in files:
            try:
                files[file] = stack.enter_context(safe_open(directory / file, "pt"))
            except (OSError, SafetensorError) as error:
                raise LanguageModelError(f"{directory / file}: cannot be read ({error})") from error
        try:
            tensor: Tensor = files[file].get_tensor(name)
        except SafetensorError as error:
            raise KeyError(name) from error
        return tensor

    return read


def _base(read: Read, shape: Shape, config: Any, precision: Precision, context: int, device: torch.device) -> Base:
    working = torch.float32 if precision == "fp32" else torch.bfloat16
    embedding = read("model.embed_tokens.weight").to(device, working)
    head = embedding if config.tie_word_embeddings else read("lm_head.weight").to(device, working)
    return Base(
        shape=shape,
        embedding=embedding,
        head=Vocabulary(head, rounded=precision in ROUNDED),
        layers=tuple(_layers(read, shape, precision, device)),
        norm=read("model.norm.weight").to(device, torch.float32),
        turns=_turns(config, context).to(device),
        working=working,
    )


def _layers(read: Read, shape: Shape, precision: Precision, device: torch.device) -> Iterator[Layer]:
    pairs = pairs_of(shape)

    def rows(layer: int, name: str, leaf: str) -> Tensor:
        tensor = read(f"model.layers.{layer}.{PROJECTIONS[name]}.{name}.{leaf}").to(device)
        return tensor[pairs[name]] if name in pairs else tensor

    for layer in range(shape.layers):
        groups = tuple(
            MAKERS[precision](torch.cat([rows(layer, name, "weight") for name in names])) for names in GROUPS
        )
        try:
            bias = torch.cat([rows(layer, name, "bias").float() for name in GROUPS[0]])
        except KeyError:
            bias = None
        norms = (
            read(f"model.layers.{layer}.{name}.weight").to(device, torch.float32)
            for name in ("input_layernorm", "post_attention_layernorm")
        )
        yield Layer(groups, bias, *norms)


def _turns(config: Any, context: int) -> Tensor:
    """By which complex number each pair of channels is multiplied at each position `[context, 1, head / 2]`."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), rotary.inv_freq.float())
    return torch.polar(torch.full_like(angles, float(rotary.attention_scaling)), angles)[:, None]


def _ends(directory: Path, config: Any) -> Iterator[int]:
    """Ids that end a text, as the model's files say."""
    generation = directory / "generation_config.json"
    named = [config.eos_token_id]
    if generation.is_file():
        named.append(json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id"))
    for ids in named:
        yield from (ids if isinstance(ids, list) else [] if ids is None else [ids])
