"""The documentation's site builds without a warning, has every page, and asks nothing of other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, package_dirs, tracked

# Loaded by a page when it is read, unlike a link, which its reader follows or does not.
LOADED = re.compile(
    r"<(?:script|img|link|iframe)[^>]*\b(?:src|href)=\"?(?:https?:)?//(?!squidfunk\.github\.io)[^\"\s>]+"
)
LEFT_OUT = ("docs/decisions/",)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    lay_out(ROOT)
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=300)


def lay_out(root: Path) -> None:
    """`build/types`, as `make types` makes it: the packages under their import names."""
    for package, source in package_dirs().items():
        target = root.joinpath("build", "types", *package.split("."))
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((root / source).resolve())


@pytest.mark.slow
def test_what_is_generated_says_what_the_code_says(site: Path) -> None:
    for page, words in {
        "reference/client.html": ("acclimate.runtime.client.sync.Client", "wait_until_ready", "ClientError"),
        "reference/protocol.html": ("SessionService", "CreateSession", "ModelInferRequest", "google.rpc.ErrorInfo"),
        "reference/cli.html": ("acclimate serve", "--synchronous", "acclimate session list", "acclimate health"),
        "reference/adapters.html": ("adaptation_step", "cotangent"),
        "reference/export.html": ("compile_model", "BundleSpec"),
        "contributing.html": ("One obvious place",),
        "tutorials/client.html": ("create_session",),
    }.items():
        text = (site / page).read_text("utf-8")
        assert [word for word in words if word not in text] == [], page


@pytest.mark.slow
def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    found = [(page.name, hit) for page in site.rglob("*.html") for hit in LOADED.findall(page.read_text("utf-8"))]
    assert found == []


@pytest.mark.slow
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("docs", "proto"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, tree)
    lay_out(ROOT)
    (tree / "build").symlink_to(ROOT / "build")
    page = tree / "docs" / "limits.md"
    page.write_text(page.read_text("utf-8") + "\n[nowhere](api.md#nowhere-at-all)\n", encoding="utf-8")
    built = build(tree, tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere-at-all" in built.stderr


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [str(path) for path in tracked() if path.parts[0] == "docs" and path.suffix == ".md"]
    shown = [page for page in pages if not page.startswith(LEFT_OUT)]
    missing = [page for page in shown if f": {page.removeprefix('docs/')}\n" not in nav]
    assert missing == [], "add a line under `nav` in mkdocs.yml"
