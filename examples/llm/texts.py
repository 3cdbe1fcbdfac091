"""Two domains of real text that come with any Python: documentation of the standard library, and licences."""

from __future__ import annotations

import importlib
import pydoc
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path

MODULES = (
    "argparse", "calendar", "configparser", "csv", "datetime", "decimal", "difflib", "heapq", "json", "logging",
    "pathlib", "random", "shutil", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "zipfile",
)  # fmt: skip
LICENCE_NAMES = re.compile(r"(^|/)(licen[cs]es?|copying|notice)([._-][^/]*)?(/[^/]*)?$", re.IGNORECASE)
PASSAGE_CHARACTERS = 600
ENOUGH = 300
MAX_FILE_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Domain:
    """Passages of one kind of text: those that are shown to a session, and those that are held out."""

    name: str
    shown: tuple[str, ...]
    held_out: tuple[str, ...]


def api_docs() -> Iterator[str]:
    """What `help` says about modules of the standard library, page by page."""
    for name in MODULES:
        yield pydoc.plain(pydoc.TextDoc().document(importlib.import_module(name), name))


def licences() -> Iterator[str]:
    """Licences of Python and of the packages installed beside it, file by file."""
    yield from _read(Path(sysconfig.get_path("stdlib"), "LICENSE.txt"))
    for distribution in distributions():
        for file in distribution.files or ():
            if LICENCE_NAMES.search(file.as_posix()):
                yield from _read(Path(str(distribution.locate_file(file))))


def domain(name: str, pages: Iterable[str], shown: int, held_out: int, seed: int = 0) -> Domain:
    """Some passages of pages to show and others to hold out, drawn at random from the first few hundred.

    Raises:
        LookupError: there are too few.
    """
    found = list(islice(passages(pages), ENOUGH))
    if len(found) < shown + held_out:
        raise LookupError(f"{name}: {len(found)} passages were found, {shown + held_out} are needed")
    drawn = random.Random(seed).sample(found, shown + held_out)  # noqa: S311 - not a secret
    return Domain(name, tuple(drawn[:shown]), tuple(drawn[shown:]))


def passages(pages: Iterable[str]) -> Iterator[str]:
    """Whole lines of pages in passages of some hundred characters.

    A line that was seen before is left out: what is held out was nowhere shown.
    """
    seen: set[str] = set()
    for page in pages:
        lines: list[str] = []
        for line in page.splitlines():
            words = " ".join(line.split()).lower()
            if words and words in seen:
                continue
            seen.add(words)
            lines.append(line.rstrip())
            if sum(map(len, lines)) >= PASSAGE_CHARACTERS:
                yield "\n".join(lines).strip()
                lines = []


def _read(file: Path) -> Iterator[str]:
    if file.is_file() and file.stat().st_size <= MAX_FILE_BYTES:
        yield file.read_text(encoding="utf-8", errors="ignore")
