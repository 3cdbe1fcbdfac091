"""`acclimate chat` with what a person would type, piped in."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from acclimate.runtime.cli import app
from acclimate.runtime.client import Client, Message
from tests.runtime.generation.test_learn import TEXTS
from tests.runtime.generation.writers import MODEL
from tests.runtime.rpc.loopback import Loopback, serving


def talked(running: Loopback, *lines: str, options: tuple[str, ...] = ("--max-tokens", "12")) -> Result:
    command = ["chat", "--target", running.target, *options]
    return CliRunner().invoke(app, command, input="".join(f"{line}\n" for line in lines))


def test_answers_go_to_standard_output_and_the_session_is_gone_afterwards(running: Loopback) -> None:
    result = talked(running, "hello there", "", "/quit", "never said")
    assert result.exit_code == 0
    with Client(running.target) as client:
        expected = client.generate(MODEL, [Message("user", "hello there")], max_tokens=12).read()
        assert result.stdout == expected + "\n"
        assert not list(client.list_sessions(MODEL))


def test_what_was_said_is_the_conversation_and_reset_forgets_it(running: Loopback) -> None:
    result = talked(running, "one", "two", "/reset", "one")
    with Client(running.target) as client:
        first = client.generate(MODEL, [Message("user", "one")], max_tokens=12).read()
        turns = [Message("user", "one"), Message("assistant", first), Message("user", "two")]
        second = client.generate(MODEL, turns, max_tokens=12).read()
    assert result.stdout == f"{first}\n{second}\n{first}\n"
    assert "forgotten; version 1" in result.stderr


def test_a_file_is_learnt_by_the_session_that_was_named(running: Loopback, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\n".join(TEXTS) * 3)
    result = talked(
        running, f"/learn {tmp_path / 'notes.txt'}", "/learn nowhere.txt", "/dance", options=("--session", "kept")
    )
    assert result.exit_code == 0
    assert "version" in result.stderr
    assert "tokens in" in result.stderr
    assert "'nowhere.txt' cannot be read" in result.stderr
    assert "/dance is no command" in result.stderr
    with Client(running.target) as client:
        view = client.get_session(MODEL, "kept")
        assert view.backward_samples > 0
        client.delete_session(MODEL, "kept")


def test_a_request_that_is_refused_does_not_end_the_talk(running: Loopback) -> None:
    result = talked(running, "x" * 600, "hello")
    assert "PROMPT_TOO_LONG" in result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert result.exit_code == 0


def test_nobody_there_and_nothing_to_talk_to_are_said(running: Loopback) -> None:
    gone = CliRunner().invoke(app, ["chat", "--target", "127.0.0.1:1"], input="hello\n")
    assert gone.exit_code == 1
    assert "acclimate serve --language-model" in gone.stderr
    with serving() as plain:
        none = CliRunner().invoke(app, ["chat", "--target", plain.target], input="hello\n")
    assert none.exit_code == 2
    assert "it has none" in none.stderr
