"""Directories of bundles as an operator keeps them: copies of the digits bundle, of other versions and contents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from acclimate.adapters.manifest import SOURCE_FILE
from acclimate.runtime.config import Config
from acclimate.runtime.service import Service
from acclimate.runtime.wiring import build_service, load_engines
from tests.hostile.bundles import copied, edit_manifest, replace, set_at
from tests.runtime.serving import PLENTY_FOR_ALL

MODEL = "digits"


def placed(bundle: Path, target: Path, version: str = "1", name: str = MODEL) -> Path:
    """The bundle under another version or name."""
    copied(bundle, target)
    edit_manifest(target, set_at("version", value=version))
    edit_manifest(target, set_at("name", value=name))
    return target


def retrained(bundle: Path, target: Path, version: str, factor: float = 1.02) -> Path:
    """A bundle of the same layout with another source: theta times a factor."""
    placed(bundle, target, version)
    tensors = load((target / SOURCE_FILE).read_bytes())
    tensors["theta"] = (tensors["theta"] * np.float32(factor)).astype(np.float32)
    replace(target, SOURCE_FILE, save(tensors))
    return target


def relaid(bundle: Path, target: Path, version: str) -> Path:
    """A bundle whose parameters have other names, and so another digest."""
    placed(bundle, target, version)

    def rename(document: dict[str, Any]) -> None:
        renamed = json.loads(json.dumps(document).replace('"norm.weight"', '"norm.gain"'))
        document.clear()
        document.update(renamed)

    edit_manifest(target, rename)
    return target


@asynccontextmanager
async def serving(
    directory: Path | None, *bundles: Path, mode: str = "synchronous", **sections: Any
) -> AsyncIterator[Service]:
    """The service on whatever lies there, with budgets that never bind."""
    settings = Config(
        bundles=bundles,
        repository={"directory": str(directory) if directory else "", "remote_control": True},
        scheduler={"mode": mode},
        # Models are the subject here; canaries would refuse a step now and then.
        **({"budget": PLENTY_FOR_ALL, "adaptation": {"canary_every": 0}} | sections),
    )
    service = build_service(settings, load_engines(settings))
    service.start()
    try:
        yield service
    finally:
        await service.drain(30.0)
