"""A Dockerfile's instructions, and a build stage replayed in a folder in the place of `/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.house.tree import ROOT, tracked

# The folders of an image that a replay has copies of.
PLACES = ("/venv", "/src", "/var/lib/acclimate", "/bundles")


@dataclass(frozen=True)
class Instruction:
    """`name` in capitals, and what follows it."""

    name: str
    rest: str


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions after each FROM, without comments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    found: list[list[Instruction]] = []
    for line in filter(str.strip, lines):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        elif found:
            found[-1].append(Instruction(name, rest.strip()))
    return found


def environment(stage: list[Instruction], folder: Path) -> dict[str, str]:
    """What ENV sets, with the replay's folders for the image's."""
    pairs = [pair for step in stage if step.name == "ENV" for pair in re.findall(r"(\S+?)=(\S+)", step.rest)]
    return {name: os.path.expandvars(_placed(value, folder)) for name, value in pairs}


def exec_form(stage: list[Instruction], name: str) -> list[str]:
    """The words of `NAME [..]`, options before it left out."""
    (step,) = (step for step in stage if step.name == name)
    words: list[str] = json.loads(step.rest[step.rest.index("[") :])
    return words


def replay(stage: list[Instruction], folder: Path) -> None:
    """COPY and RUN of a stage, in `folder`.

    There is no package index in a replay: dependencies are borrowed from this interpreter's environment, in which pip
    finds them installed, and complains about what is not.
    """
    for place in PLACES:
        (folder / place[1:]).mkdir(parents=True, exist_ok=True)
    here = folder
    for step in stage:
        if step.name == "WORKDIR":
            here = folder / step.rest[1:]
        elif step.name == "COPY":
            *sources, target = step.rest.split()
            for source in sources:
                _copy(source, here / target if target != "./" else here)
        elif step.name == "RUN":
            _run(_placed(step.rest, folder), here)
            _borrow(folder / "venv")


def _copy(source: str, target: Path) -> None:
    assert f"!{source}" in (ROOT / ".dockerignore").read_text("utf-8").splitlines(), (
        f".dockerignore leaves {source} out"
    )
    files = [path for path in tracked() if path == Path(source) or path.is_relative_to(source)]
    assert files, f"nothing to copy at {source}"
    for path in files:
        to = target / path.relative_to(source) if path != Path(source) else target / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, to)


def _run(command: str, here: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    given = clean | {"PATH": f"{Path(sys.base_prefix, 'bin')}:{clean['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    offline = command.replace("pip install", "pip install --no-index --no-build-isolation")
    result = subprocess.run(["bash", "-ec", offline], cwd=here, env=given, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"


def _borrow(venv: Path) -> None:
    """Let this interpreter's packages be found in a venv, behind its own; a setuptools of its own is too old."""
    for site in venv.glob("lib/python*/site-packages"):
        for old in site.glob("setuptools*"):
            shutil.rmtree(old)
        (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


def _placed(text: str, folder: Path) -> str:
    pattern = rf"(?<![\w.])({'|'.join(PLACES)})\b"
    return re.sub(pattern, lambda match: str(folder) + match.group(1), text)
