"""A bundle on disk: all of it, or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from acclimate.adapters.manifest import MANIFEST_FILE, FileEntry, Manifest
from acclimate.export.errors import ExportError


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Digest and size of each file's content."""
    return {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}


def write_bundle(out: Path, files: Mapping[str, bytes], manifest: Manifest) -> None:
    """Write beside `out` and rename into place, replacing an older bundle.

    Raises:
        ExportError: `out` exists and is not a bundle.
    """
    refuse_other_content(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        document = json.dumps(manifest.to_json(), indent=1, allow_nan=False) + "\n"
        for name, content in (*files.items(), (MANIFEST_FILE, document.encode())):
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        _swap(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_other_content(out: Path) -> None:
    """Raise unless `out` is absent, an empty folder or a bundle."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST_FILE).is_file()):
        raise ExportError(f"out: {str(out)!r} exists and is not a bundle; choose another folder")


def _swap(staging: Path, out: Path) -> None:
    """Put `staging` at `out`; an older bundle is moved aside first, and back if that fails."""
    if not out.exists():
        staging.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    restore = False
    try:
        out.replace(aside / out.name)
        restore = True
        staging.rename(out)
        restore = False
    finally:
        if restore:
            (aside / out.name).replace(out)
        shutil.rmtree(aside, ignore_errors=True)
