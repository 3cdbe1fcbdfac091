"""What the site has beside the pages of this folder: the protocol, the command line, and pages of the root.

mkdocs calls `on_files` and `on_page_markdown`. Pages that are generated here cannot be out of date.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ("acclimate/v1", "acclimate/oip/v1")
# A page of the site for a file outside of this folder.
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)#\s]*)(#[^)\s]*)?\)")
DECLARED = re.compile(r"^(service|message|enum|rpc)\s+(\w+)(?:\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\))?")
FIELD = re.compile(r"^((?:optional |repeated )?(?:map<[^>]+>|[\w.]+)) (\w+) = (-?\d+)")
VALUE = re.compile(r"^(\w+) = (-?\d+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those whose file lies in the repository's root."""
    pages = {"reference/protocol.md": "".join(protocol()), "reference/cli.md": "".join(command_line())}
    pages |= {to: (ROOT / source).read_text("utf-8") for source, to in OUTSIDE.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site; those to other files lead to the repository, or are a name."""
    source = page.file.src_uri
    came_from = next((name for name, to in OUTSIDE.items() if to == source), f"docs/{source}")
    fences = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)
    fences[::2] = [LINK.sub(lambda match: _link(match, came_from, source, config, files), text) for text in fences[::2]]
    return "".join(fences)


def _link(match: re.Match[str], came_from: str, source: str, config: MkDocsConfig, files: Files) -> str:
    picture, text, path, anchor = match[1], match[2], match[3], match[4] or ""
    if not path:
        return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(came_from), path))
    inside = OUTSIDE.get(target) or target.removeprefix("docs/")
    if (target in OUTSIDE or target.startswith("docs/")) and files.get_file_from_path(inside):
        return f"{picture}[{text}]({posixpath.relpath(inside, posixpath.dirname(source))}{anchor})"
    return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{target}{anchor})" if config.repo_url else text


def protocol() -> Iterator[str]:
    """Every service, message and enum of the protos, with its comments, as Markdown."""
    yield "# Protocol\n\nGenerated from `proto/`. One gRPC port serves all of it; "
    yield "[the wire API](../api.md) says how it is used.\n"
    for folder in PROTOS:
        for path in sorted((ROOT / "proto" / folder).glob("*.proto")):
            yield f"\n## {folder}/{path.name}\n\n"
            yield from _proto(path.read_text("utf-8").splitlines())


def _proto(lines: list[str]) -> Iterator[str]:
    comment: list[str] = []
    in_table = False
    for line in map(str.strip, lines):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip())
            continue
        said, comment = " ".join(comment), []
        row = _row(line, said)
        if row and not in_table:
            yield "\n| name | number | type | |\n|---|---|---|---|\n"
        in_table = bool(row) or (in_table and not line)
        yield row or _heading(line, said)


def _heading(line: str, said: str) -> str:
    declared = DECLARED.match(line)
    if declared is None:
        return ""
    kind, name, asked, request, answered, reply = declared.groups()
    if kind == "rpc":
        return f"\n#### {name}\n\n`{asked or ''}{request}` to `{answered or ''}{reply}`\n\n{said}\n"
    return f"\n### {name}\n\n*{kind}* {said}\n"


def _row(line: str, said: str) -> str:
    if field := FIELD.match(line):
        kind, name, number = f"`{field[1]}`", field[2], field[3]
    elif value := VALUE.match(line):
        kind, name, number = "", value[1], value[2]
    else:
        return ""
    cell = (said or line.partition(" // ")[2]).replace("|", "\\|")
    return f"| `{name}` | {number} | {kind} | {cell} |\n"


def command_line() -> Iterator[str]:
    """Every command with its arguments and options, as Markdown."""
    sys.path.insert(0, str(ROOT / "build" / "types"))
    from typer.main import get_command

    from acclimate.runtime.cli import app

    yield "# Command line\n\nGenerated from `acclimate --help`. "
    yield "Exit codes: 0 done, 1 refused or not reached, 2 bad arguments or configuration, 3 packages are missing, "
    yield "4 a port is taken, 5 a bundle cannot be served, 6 a store is damaged or cannot be opened.\n"
    yield from _commands("acclimate", get_command(app))


def _commands(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner or command.params:
        yield f"\n## `{name}`\n\n{(command.help or '').strip()}\n\n"
        rows = [parameter for parameter in command.params if parameter.name != "help"]
        if rows:
            yield "| argument or option | default | |\n|---|---|---|\n"
        for parameter in rows:
            names = ", ".join(f"`{option}`" for option in parameter.opts) or f"`{parameter.name}`"
            shown = parameter.default not in (None, False, (), []) and not callable(parameter.default)
            default = f"`{parameter.default}`" if shown else ""
            help_ = (getattr(parameter, "help", "") or "").replace("|", "\\|")
            yield f"| {names} | {default} | {help_} |\n"
    for word, below in inner.items():
        yield from _commands(f"{name} {word}", below)
