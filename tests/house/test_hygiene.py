"""What must not be in the repository: machine paths, package index hosts, waiting tests, dead links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT, python_files, tracked

# The patterns are written so that they do not match themselves.
FORBIDDEN = {
    "an absolute path of one machine": r"(?<![\w.])/(?:w[o]rk|r[o]ot|h[o]me|U[s]ers|o[p]t)/",
    "a package index's host": r"\b(?:p[y]pi\.org/simple|p[y]thonhosted\.org|d[o]wnload\.pytorch\.org)",
    "a secret": r"-----B[E]GIN (?:[A-Z]+ )?PRIVATE KEY|\bAKI[A][0-9A-Z]{16}\b",
}
WAITING = r"\b(?:time|asyncio)\.sl[e]ep\(\s*(?!0\s*\))"
TIMING = r"assert .*\b(?:elapsed|seconds|duration)\b *<[^=]"
POLLING = Path("tests/polling.py")
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:|#)([^)#\s]+)[^)]*\)")
TEXT = {".py", ".md", ".toml", ".proto", ".yaml", ".yml", ".json", ".cfg", ".txt", ".sh", ".svg", ".pyi", ""}


def _text_files() -> list[Path]:
    return [path for path in tracked() if path.suffix in TEXT]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_carries(what: str) -> None:
    found = [hit for path in _text_files() for hit in _matches(path, FORBIDDEN[what])]
    assert not found, f"{what}: {found}"


def test_the_patterns_match_what_they_forbid() -> None:
    samples = ("cd /" + "work/x", "https://py" + "pi.org/simple", "-----BEG" + "IN RSA PRIVATE KEY")
    for pattern, sample in zip(FORBIDDEN.values(), samples, strict=True):
        assert re.search(pattern, sample), sample
    assert re.search(WAITING, "time.sl" + "eep(0.1)")
    assert re.search(TIMING, "assert elap" + "sed < 2")
    assert not re.search(WAITING, "await asyncio.sl" + "eep(0)")


def test_tests_poll_a_condition_and_never_wait_or_time() -> None:
    tests = [path for path in python_files() if path.parts[0] == "tests" and path != POLLING]
    found = [hit for path in tests for pattern in (WAITING, TIMING) for hit in _matches(path, pattern)]
    assert not found, f"poll with {POLLING}, or measure in benchmarks/: {found}"


def test_links_between_documents_resolve() -> None:
    pages = [path for path in tracked() if path.suffix == ".md"]
    links = [(page, link) for page in pages for link in LINK.findall((ROOT / page).read_text(encoding="utf-8"))]
    dead = [f"{page} -> {link}" for page, link in links if not (ROOT / page.parent / link).exists()]
    assert not dead, dead


def _matches(path: Path, pattern: str) -> list[str]:
    """`file:line text` of every line of a file that a pattern is found in."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [f"{path}:{number} {line.strip()}" for number, line in enumerate(lines, 1) if re.search(pattern, line)]
