"""The demo of language models, on the real model where it is installed, and the texts that it learns."""

from __future__ import annotations

import importlib.util
import json

import pytest

from acclimate.examples.llm import demo, texts


def test_passages_say_nothing_twice() -> None:
    own = [f"its own {page} " + "word " * 150 for page in range(200)]
    pages = [f"page {page}\n" + "the same line everywhere\n" * 3 + f"{own[page]}\n" * 2 for page in range(200)]
    lines = [line for passage in texts.passages(pages) for line in passage.splitlines()]
    assert len(lines) == len(set(lines)) > 100


def test_what_is_held_out_is_nowhere_shown() -> None:
    for name, pages in (("docs", texts.api_docs()), ("licences", texts.licences())):
        found = texts.domain(name, pages, 8, 4)
        shown = {" ".join(line.split()).lower() for passage in found.shown for line in passage.splitlines()}
        held = {" ".join(line.split()).lower() for passage in found.held_out for line in passage.splitlines()}
        assert not {line for line in shown & held if line}
        assert all(len(passage) > texts.PASSAGE_CHARACTERS / 2 for passage in (*found.shown, *found.held_out))
        assert texts.domain(name, list(pages), 0, 0).shown == ()


def test_too_little_text_is_said() -> None:
    with pytest.raises(LookupError, match="short: 2 passages were found, 8 are needed"):
        texts.domain("short", ["\n".join(f"{n} " * 200 for n in range(4))], 6, 2)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    assert demo.run([]) == demo.MISSING
    assert "pip install 'acclimate[llm]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_sessions_learn_their_domains_and_nothing_else_changes(capsys: pytest.CaptureFixture[str]) -> None:
    if lacking := demo._lacking():
        pytest.skip(f"{', '.join(lacking)} not installed")
    assert demo.run(["--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ppl_drop_a"] >= 10
    assert result["ppl_drop_b"] >= 10
    assert result["cross_talk"] == 0
    assert result["tokens_per_s"] > 0
    assert result["bytes_per_session"] < 4e6
    assert [row["verdict"] for row in result["sessions"]] == ["committed", "committed"]
