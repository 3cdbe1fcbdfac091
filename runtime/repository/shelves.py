"""Where the operator keeps bundles, and what lies there. Clients name models, never paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.bundle import BundleError, read_manifest

_PART = re.compile(r"\d+|\D+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory that holds a bundle, or should: its manifest, or why there is none to be read."""

    path: Path
    manifest: Manifest | None
    fault: str = ""

    @property
    def name(self) -> str:
        """The model's name; the directory's where the manifest cannot be read."""
        return self.path.name if self.manifest is None else self.manifest.name

    @property
    def version(self) -> str:
        """The model's version; empty where the manifest cannot be read."""
        return "" if self.manifest is None else self.manifest.version


@dataclass(frozen=True, slots=True)
class Shelves:
    """The configured bundles, and the directory whose children are bundles, or None."""

    bundles: tuple[Path, ...] = ()
    directory: Path | None = None

    def entries(self) -> tuple[Entry, ...]:
        """What there is now, the configured bundles first; reads manifests, so call it off the event loop.

        Where a version of a model lies in several places, the first counts and the others are faults.
        """
        entries: list[Entry] = []
        seen: dict[tuple[str, str], Path] = {}
        for path in (*self.bundles, *self._children()):
            try:
                manifest, _ = read_manifest(path)
            except BundleError as error:
                entries.append(Entry(path, None, told(error, path)))
                continue
            first = seen.setdefault((manifest.name, manifest.version), path)
            fault = "" if first == path else f"{first.name} holds the same version of the same model"
            entries.append(Entry(path, manifest, fault))
        return tuple(entries)

    def _children(self) -> list[Path]:
        if self.directory is None:
            return []
        try:
            return sorted(p for p in self.directory.iterdir() if p.is_dir() and not p.name.startswith("."))
        except OSError as error:
            raise BundleError(
                f"repository.directory: {self.directory} cannot be read ({error.strerror}); create it, or leave it out"
            ) from error


def highest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Of each model the sound entry of the highest version, by name."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.manifest is None or entry.fault:
            continue
        other = found.get(entry.name)
        if other is None or _order(entry.version) > _order(other.version):
            found[entry.name] = entry
    return found


def told(error: BundleError, path: Path) -> str:
    """What a client may read of an error: where the operator's directories lie is not its business."""
    return str(error).replace(f"{path.parent}/", "")


def _order(version: str) -> tuple[tuple[bool, int, str], ...]:
    """`10` comes after `9`, and `1.10` after `1.9`; numbers come after other text."""
    parts = [(part[0] in "0123456789", part.lstrip("0")) for part in _PART.findall(version)]
    return tuple((number, len(part) if number else 0, part) for number, part in parts)
