"""Copies of the committed bundle, damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acclimate.adapters.manifest import MANIFEST_FILE

Edit = Callable[[dict[str, Any]], object]


def copied(bundle: Path, target: Path) -> Path:
    """A bundle of its own to damage."""
    shutil.copytree(bundle, target)
    return target


def flip(path: Path, position: float = 0.5) -> None:
    """Flip the lowest bit of one byte, `position` of the way into the file."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def edit_manifest(bundle: Path, edit: Edit) -> None:
    """Change `manifest.json` as parsed."""
    path = bundle / MANIFEST_FILE
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Put another file in a file's place and list it with the right hash, as somebody would who makes bundles."""
    (bundle / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_manifest(bundle, lambda document: document["files"].update({name: entry}))


def set_at(*path: str | int, value: Any) -> Edit:
    """An edit that sets `document[path[0]][path[1]]...`."""

    def edit(document: dict[str, Any]) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value

    return edit


def drop(*path: str | int) -> Edit:
    """An edit that removes `document[path[0]][path[1]]...`."""

    def edit(document: dict[str, Any]) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]

    return edit
