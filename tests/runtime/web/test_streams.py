"""Server-sent events: what comes, to whom, and what ends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.runtime.security import tokens
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL
from tests.runtime.web.sites import Site, guarded, site, streamed


def events_of(message: tuple[str, dict]) -> list[tuple[str, str]]:
    name, document = message
    return [(event["session_id"], event["kind"]) for event in document["events"]] if name == "events" else []


def test_points_and_events_arrive() -> None:
    with site() as running, streamed(running) as messages:
        name, document = next(messages)
        assert name == "sample"
        assert [figures["model"] for figures in document["models"]] == [MODEL]
        running.opened("noted")
        told = next(found for message in messages if (found := events_of(message)))
        assert told == [("noted", "created")]
        # Then points again, for as long as it is read.
        assert next(name for name, _ in messages) == "sample"


def test_a_session_is_watched_with_its_steps_and_no_other() -> None:
    with site() as running:
        running.opened("one", requests=0, recipe="tent", recipe_parameters={"batch_rows": 2})
        running.opened("two", requests=0)
        with streamed(running, f"events?model={MODEL}&session=one") as messages:
            running.ask(f"/api/models/{MODEL}/sessions/two/pause", method="POST")
            with running.client() as client:
                client.predict(MODEL, [[0.0] * 6] * 2, parameters={"sequence_id": "one"})
            told = next(found for message in messages if (found := events_of(message)))
        assert {session for session, _ in told} == {"one"}
        assert {kind for _, kind in told} <= {"applied", "skipped", "rolled_back", "restored", "drifted"}


def test_a_session_that_is_not_there_cannot_be_watched() -> None:
    with site() as running:
        assert running.refused(f"events?model={MODEL}&session=nobody") == (404, "SESSION_NOT_FOUND")
        assert running.refused("events?model=other") == (404, "MODEL_NOT_FOUND")


def test_tenants_hear_of_their_own(tmp_path: Path) -> None:
    with guarded(tmp_path) as running, streamed(running, caller="mallory") as messages:
        next(messages)
        running.opened("hers", "alice")
        running.opened("his", "mallory")
        told = next(found for message in messages if (found := events_of(message)))
        assert told == [("his", "created")]


def test_a_revoked_token_ends_the_stream(tmp_path: Path) -> None:
    with guarded(tmp_path) as running, streamed(running, caller="alice") as messages:
        assert next(messages)[0] == "sample"
        file = tmp_path / "tokens.json"
        kept = {key: entry for key, entry in tokens.read(file).items() if entry.tenant != "alice"}
        tokens.write(file, kept)
        *_, (name, document) = messages
        assert (name, document["reason"]) == ("refused", "CREDENTIAL_WRONG")


def test_closing_the_port_ends_streams() -> None:
    with site() as running, streamed(running) as messages:
        next(messages)
        running.http.close()
        assert all(name == "sample" for name, _ in messages)


def test_streams_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acclimate.runtime.web.api.MAX_STREAMS", 1)
    with site() as running:
        with streamed(running) as messages:
            next(messages)
            assert running.loopback.service.snapshot().watchers == 1
            assert running.refused("events") == (429, "STREAMS_FULL")
        until(lambda: _admitted(running), "the first stream to be given up")
        until(lambda: running.loopback.service.snapshot().watchers == 0, "the watches to end")


def _admitted(running: Site) -> bool:
    try:
        with streamed(running) as messages:
            return next(messages)[0] == "sample"
    except AssertionError:
        return False
