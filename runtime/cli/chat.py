"""`acclimate chat`: talk to a language model that a daemon serves, and let it learn from files."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail
from acclimate.runtime.cli.session import LOCAL, Target, Token

if TYPE_CHECKING:
    from acclimate.runtime.client import Client, Message, Session

HELP = "/learn FILE teaches it a text file, /reset forgets what was learnt and said, /quit ends (as does Ctrl-D)."


def chat(
    model: Annotated[str | None, typer.Option(help="Language model. [default: the daemon's, if it has one]")] = None,
    session: Annotated[
        str | None, typer.Option(help="Session to talk to; it is opened if it is not there, and stays.")
    ] = None,
    target: Target = LOCAL,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token.")] = 0.0,
    token: Token = None,
) -> None:
    """Talk to a language model; without --session, in a session that is deleted at the end."""
    from acclimate.runtime.client import Client, ClientError

    try:
        with Client(target, token=token) as client:
            name = model or _only(client)
            with _talking(client, name, session) as own:
                _talk(own, f"{name}/{own.id}", max_tokens, temperature)
    except ClientError as error:
        advice = "; start one with: acclimate serve --language-model smollm2" if error.code == "UNAVAILABLE" else ""
        fail(ExitCode.REFUSED, f"{error}{advice}")


def _only(client: Client) -> str:
    """The name of the only language model."""
    names = [info.name for info in client.models() if info.properties.get("task") == "text-generation"]
    if len(names) != 1:
        there = f"there are {names}" if names else "it has none"
        fail(ExitCode.BAD_CONFIG, f"say which language model of the daemon with --model; {there}")
    return names[0]


@contextmanager
def _talking(client: Client, model: str, session: str | None) -> Iterator[Session]:
    from acclimate.runtime.client import ClientError

    if session is None:
        with client.create_session(model, f"chat-{uuid.uuid4().hex[:12]}") as own:
            yield own
        return
    try:
        client.get_session(model, session)
    except ClientError as error:
        if error.reason != "SESSION_NOT_FOUND":
            raise
        client.create_session(model, session)
    yield client.session(model, session)


def _talk(session: Session, name: str, max_tokens: int, temperature: float) -> None:
    from acclimate.runtime.client import ClientError, Message

    said: list[Message] = []
    _note(f"{name}. {HELP}")
    for line in _lines():
        words = line.strip()
        try:
            if words in ("/quit", "/exit"):
                return
            if words == "/reset":
                said.clear()
                _note(f"forgotten; version {session.reset().version}")
            elif words.startswith("/learn"):
                _learn(session, words.removeprefix("/learn").strip())
            elif words.startswith("/"):
                _note(f"{words.split()[0]} is no command. {HELP}")
            elif words:
                said.append(Message("user", words))
                said.append(Message("assistant", _answer(session, said, max_tokens, temperature)))
        except ClientError as error:
            if error.code in ("UNAVAILABLE", "UNAUTHENTICATED", "NOT_FOUND"):
                raise
            # One request came to nothing; what was said before stands.
            del said[len(said) - len(said) % 2 :]
            _note(str(error))


def _answer(session: Session, said: list[Message], max_tokens: int, temperature: float) -> str:
    with session.generate(said, max_tokens=max_tokens, temperature=temperature) as text:
        for token in text:
            sys.stdout.write(token.text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
        return text.text


def _learn(session: Session, file: str) -> None:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _note(f"{file!r} cannot be read: {error}")
        return
    # All of a file is meant to be learnt, and not only what surprises.
    lesson = session.learn(texts=[text], recipe="tlm", recipe_parameters={"threshold": 0.0, "scale": 1.0})
    for progress in lesson:
        if sys.stderr.isatty():
            sys.stderr.write(f"\rstep {progress.step}/{progress.steps}, loss {progress.loss:.3f} ")
            sys.stderr.flush()
    outcome = lesson.wait()
    if sys.stderr.isatty():
        sys.stderr.write("\r")
    told = f"{outcome.verdict.value}{f' ({outcome.reason})' if outcome.reason else ''}; version {outcome.version}"
    if outcome.held_out_perplexity_before:
        before, after = outcome.held_out_perplexity_before, outcome.held_out_perplexity_after
        told += f"; perplexity of what was held out {before:.2f} -> {after:.2f}"
    _note(f"{told}; {outcome.tokens} tokens in {outcome.cost_ms / 1e3:.1f} s")


def _lines() -> Iterator[str]:
    """What is typed, or piped in, line by line."""
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def _note(text: str) -> None:
    """Something that is no answer: on standard error, so that answers can be piped on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
