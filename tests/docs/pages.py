"""A page's blocks of code, run as its reader would: one Python, a shell, and a terminal for what serves."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.daemons import Daemon, started
from tests.house.tree import ROOT

BLOCK = re.compile(
    r"(?P<before>^<!-- not run: [^\n]* -->\n)?^```(?P<kind>console|python)\n(?P<code>.*?)^```", re.M | re.S
)
PATIENCE_SECONDS = 240
# Runs each block that it is sent in one namespace, and says how that went.
DRIVER = """
import json, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "page", "exec"), space)
        print("\\x04", flush=True)
    except BaseException:
        traceback.print_exc()
        print("\\x05", flush=True)
"""
ACCLIMATE = f"""#!/bin/sh
exec {shlex.quote(sys.executable)} -c 'from acclimate.runtime.cli import main; main()' "$@"
"""


@dataclass(frozen=True)
class Block:
    """`console` or `python`, and its text."""

    kind: str
    code: str


def blocks(page: Path) -> list[Block]:
    """What is run; a block behind `<!-- not run: WHY -->` is not."""
    found = BLOCK.finditer(page.read_text("utf-8"))
    return [Block(match["kind"], match["code"]) for match in found if match["before"] is None]


class Reader:
    """Someone who types a page's blocks in a folder that looks like a clone; what they print is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._exits = folder, ExitStack()
        for name in ("examples", "benchmarks", "CONTRIBUTING.md"):
            (folder / name).symlink_to(ROOT / name)
        programs = folder / ".programs"
        programs.mkdir()
        (programs / "acclimate").write_text(ACCLIMATE, encoding="utf-8")
        (programs / "acclimate").chmod(0o755)
        self._ports = {"8001": _free(), "8002": _free()}
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ACCLIMATE_SERVER__GRPC_PORT": self._ports["8001"],
            "ACCLIMATE_SERVER__HTTP_PORT": self._ports["8002"],
            "ACCLIMATE_TARGET": f"127.0.0.1:{self._ports['8001']}",
        }
        self._python: subprocess.Popen[str] | None = None
        self._daemon: Daemon | None = None
        self.printed = ""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def run(self, block: Block) -> None:
        """One block.

        Raises:
            AssertionError: it failed; the message has the block and what it said.
        """
        code = re.sub(r"127\.0\.0\.1:(8001|8002)", lambda match: f"127.0.0.1:{self._ports[match[1]]}", block.code)
        if block.kind == "python":
            self._run_python(code)
        elif code.startswith("acclimate serve"):
            self._serve(shlex.split(code)[1:])
        else:
            self._run_shell(code)

    def _serve(self, arguments: list[str]) -> None:
        if self._daemon is not None:
            assert self._daemon.process.wait(60) == 0, "the daemon of the last terminal still runs"
        here = f"import os; os.chdir({str(self._folder)!r}); from acclimate.runtime.cli import main; main()"
        command = [sys.executable, "-c", here, *arguments]
        self._daemon = self._exits.enter_context(started(command, self._environment))

    def _run_shell(self, code: str) -> None:
        environment = os.environ | self._environment
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        self.printed += result.stdout
        assert result.returncode == 0, f"{code}\n{result.stdout}{result.stderr}"

    def _run_python(self, code: str) -> None:
        if self._python is None:
            self._python = self._exits.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", DRIVER],
                    cwd=self._folder,
                    env=os.environ | self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            self._exits.callback(self._python.stdin.close)  # type: ignore[union-attr]
        said = "".join(self._answer(code))
        self.printed += said
        assert not said.endswith("\x05\n"), f"{code}\n{said}"

    def _answer(self, code: str) -> Iterator[str]:
        assert self._python is not None
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(code) + "\n")
        self._python.stdin.flush()
        for line in self._python.stdout:
            if line == "\x04\n":
                return
            yield line
            if line == "\x05\n":
                return
        raise AssertionError(f"{code}\nthe interpreter ended")


def _free() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])
