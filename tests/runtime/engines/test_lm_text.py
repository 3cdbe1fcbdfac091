"""Text that comes token by token: whole characters, and nothing of a stop string."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.runtime.engines.language import LanguageModelError, Message
from acclimate.runtime.engines.torch_lm.text import HfTokenizer, Unrolling

TEXTS = ["Ein süßes Café", "日本語🙂🙃 und", "  two  spaces\n\n", "e\u0301🏳️\u200d🌈!", "plain"]


@pytest.fixture(scope="module")
def tokenizer(tiny_path: Path) -> HfTokenizer:
    return HfTokenizer(tiny_path)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_make_the_text(tokenizer: HfTokenizer, text: str) -> None:
    unrolling = Unrolling(tokenizer, ())
    pieces = [unrolling.push(int(token)) for token in tokenizer.encode(text)] + [unrolling.end()]
    assert "".join(pieces) == text == tokenizer.decode(tokenizer.encode(text))
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_left_out(tokenizer: HfTokenizer) -> None:
    unrolling = Unrolling(tokenizer, ())
    tokens = tokenizer.encode("a語")
    assert len(tokens) > 2
    assert "".join([unrolling.push(int(token)) for token in tokens[:-1]] + [unrolling.end()]) == "a"


@pytest.mark.parametrize("stop", ["🙂", "語🙂", "🙃 u", "und"])
def test_nothing_of_a_stop_string_is_said(tokenizer: HfTokenizer, stop: str) -> None:
    text, unrolling = TEXTS[1], Unrolling(tokenizer, ("absent", stop))
    heard = ""
    for token in tokenizer.encode(text):
        heard += unrolling.push(int(token))
        assert not any(heard.endswith(stop[:size]) for size in range(1, len(stop) + 1))
        if unrolling.stopped:
            break
    assert unrolling.stopped
    assert heard == text[: text.index(stop)]


def test_what_only_looked_like_a_stop_is_said_in_the_end(tokenizer: HfTokenizer) -> None:
    unrolling = Unrolling(tokenizer, ("under",))
    heard = "".join(unrolling.push(int(token)) for token in tokenizer.encode("lazy und"))
    assert heard == "lazy "
    assert unrolling.end() == "und"


def test_a_conversation_in_the_models_template(tokenizer: HfTokenizer) -> None:
    ids = tokenizer.chat([Message("user", "dog")])
    assert tokenizer.decode(ids) == "user\ndog\nassistant\n"
    assert ids[0] == 0


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="the tokenizer cannot be read"):
        HfTokenizer(tmp_path)
