"""Labels of sessions, and lists of those that a filter wants, in memory and in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.lifecycle_types import ForkSession, UpdateSession
from acclimate.runtime.service import Service
from acclimate.runtime.sessions import filters, listing
from acclimate.runtime.sessions.filters import Facts
from acclimate.runtime.sessions.labels import MAX_LABELS, MAX_VALUE
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.types import CreateSession
from tests.looped import looped
from tests.runtime.serving import MODEL, serving, session_of
from tests.runtime.test_persistence import feed, stored

ROWS = 8
HERE = Facts("digits", "tent", SessionState.PAUSED_ADAPTED, {"site": "hall 3", "line": "b"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('labels.site = "hall 3"', True),
        ("labels.site='hall 3'", True),
        ('labels.site = "hall"', False),
        ("labels.floor = 1", False),
        ('labels.floor = ""', False),
        ("labels.line=b AND state = ADAPTED", True),
        ("state = STATE_ADAPTED AND paused = true", True),
        ("state = pristine", False),
        ("paused = FALSE", False),
        ('recipe = "tent" AND model = digits', True),
        ('model = "other" AND labels.line = b', False),
        (r'labels.line = "\b"', True),
    ],
)
def test_what_a_filter_wants(text: str, wanted: bool) -> None:
    test = filters.parse(text)
    assert test is not None
    assert test(HERE) is wanted


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("labels.site", "in the middle of a term"),
        ("labels.site = a AND", "in the middle of a term"),
        ("labels.site != a", "the only comparison is '='"),
        ("labels.site : a", "the only comparison is '='"),
        ("labels.site = a OR labels.site = b", "joined by AND"),
        ("labels.site = a labels.line = b", "joined by AND"),
        ("NOT paused = true", "joined by AND"),
        ("(paused = true)", "joined by AND"),
        ("paused = yes", "one of"),
        ("state = closed", "one of"),
        ("updates = 3", "fields are labels.KEY"),
        ("labels.Site = a", "fields are labels.KEY"),
        ("labels = a", "fields are labels.KEY"),
        ("model = *", "a word, or text in quotes"),
        ("model = AND", "a word, or text in quotes"),
        ('model = "open', "a word, or text in quotes"),
        (" AND ".join(["paused = true"] * 17), "at most 16"),
        ("a" * 2049, "at most 2048"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        filters.parse(text)
    assert (refused.value.reason, refused.value.metadata["field"]) == ("FILTER_INVALID", "filter")
    assert complaint in refused.value.message


@given(st.text(max_size=200))
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    try:
        test = filters.parse(text)
    except InvalidArgument:
        return
    assert test is None or test(HERE) in (True, False)


@given(st.text(max_size=60).filter(str.isprintable))
def test_any_value_can_be_asked_for_in_quotes(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    test = filters.parse(f'labels.site = "{quoted}"')
    assert test is not None
    assert test(Facts("m", "r", SessionState.PRISTINE, {"site": value}))


async def labelled(service: Service, name: str, **labels: str) -> None:
    await service.create_session(CreateSession(MODEL, name, "tent", {"batch_rows": ROWS}, labels=labels))


async def found(service: Service, text: str, size: int = 0) -> list[str]:
    """Ids of all pages."""
    names: list[str] = []
    token = ""
    while True:
        page = await service.list_sessions(MODEL, size, token, text)
        assert len(page.sessions) <= (size or 100)
        names += [view.session_id for view in page.sessions]
        if not (token := page.next_page_token):
            return names


@looped
async def test_lists_hold_what_the_filter_wants_wherever_it_is_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stored(tmp_path) as service:
        for n in range(30):
            await labelled(service, f"s{n:02}", site="a" if n % 3 else "b", parity=str(n % 2))
        for name in ("s03", "s04"):
            await feed(service, name)
        await service.lifecycle.pause(MODEL, "s05")
        gone = [session_of(service, f"s{n:02}") for n in range(0, 30, 2)]
        await service._parts.residency.leave(gone)
        wanted = [f"s{n:02}" for n in range(30) if n % 3 == 0]
        for size in (0, 1, 4, 10, 1000):
            assert await found(service, "labels.site = b", size) == wanted
        assert await found(service, "labels.site = b AND labels.parity = 1", 3) == [n for n in wanted if int(n[1:]) % 2]
        assert await found(service, "state = ADAPTED") == ["s03", "s04"]
        assert await found(service, "paused = true") == ["s05"]
        assert await found(service, "labels.site = c") == []
        assert await found(service, "recipe = tent", 7) == [f"s{n:02}" for n in range(30)]
        monkeypatch.setattr(listing, "LOOKED_AT_MOST", 8)
        page = await service.list_sessions(MODEL, 5, "", "labels.site = c")
        assert (page.sessions, bool(page.next_page_token)) == ((), True), "few pass, so the page ends early"
        assert await found(service, "labels.site = b", 5) == wanted
    async with stored(tmp_path) as service:
        assert await found(service, "labels.site = b", 4) == wanted
        view = await service.get_session(MODEL, "s00")
        assert view.labels == {"site": "b", "parity": "0"}


@looped
async def test_a_token_belongs_to_its_filter() -> None:
    async with serving() as service:
        for name in ("a", "b", "c"):
            await labelled(service, name, site="x")
        token = (await service.list_sessions(MODEL, 1, "", "labels.site = x")).next_page_token
        plain = (await service.list_sessions(MODEL, 1, "")).next_page_token
        for text, given_token in (("labels.site = y", token), ("", token), ("labels.site = x", plain)):
            with pytest.raises(InvalidArgument, match="another filter") as refused:
                await service.list_sessions(MODEL, 1, given_token, text)
            assert refused.value.reason == "PAGE_TOKEN_INVALID"


@looped
async def test_labels_are_changed_by_the_mask_and_stay_with_copies(tmp_path: Path) -> None:
    async with stored(tmp_path) as service:
        await labelled(service, "s", site="a", line="1")
        seen = await service.get_session(MODEL, "s")

        async def change(*paths: str, **labels: str) -> dict[str, str]:
            view = await service.lifecycle.update(UpdateSession(MODEL, "s", paths, labels=labels))
            return dict(view.labels)

        assert await change("labels.line", "labels.none", line="2") == {"site": "a", "line": "2"}
        assert await change("labels.site") == {"line": "2"}
        assert await change("ttl", line="9") == {"line": "2"}, "what is not named is not read"
        assert await change("labels", site="b") == {"site": "b"}
        assert (await service.get_session(MODEL, "s")).etag != seen.etag
        fork = await service.lifecycle.fork(ForkSession(MODEL, "s", "copy"))
        assert fork.labels == {"site": "b"}
        with pytest.raises(InvalidArgument, match="update_mask"):
            await change("labels.Not a key", site="c")
        for bad in (
            {"labels": {f"k{n}": "" for n in range(MAX_LABELS + 1)}},
            {"labels": {"Upper": "x"}},
            {"labels": {"a": "x" * (MAX_VALUE + 1)}},
            {"labels": {"a": "two\nlines"}},
        ):
            with pytest.raises(InvalidArgument) as refused:
                await service.lifecycle.update(UpdateSession(MODEL, "s", ("labels", "ttl"), ttl_seconds=5.0, **bad))
            assert refused.value.reason == "SESSION_LABELS_INVALID"
            with pytest.raises(InvalidArgument):
                await service.create_session(CreateSession(MODEL, "bad", **bad))
        view = await service.get_session(MODEL, "s")
        assert (view.labels, view.ttl_seconds) == ({"site": "b"}, None), "all or nothing"
    async with stored(tmp_path) as service:
        assert (await service.get_session(MODEL, "s")).labels == {"site": "b"}
