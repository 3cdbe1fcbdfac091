"""What the page's API tells and does, without tokens: whoever reaches it may do everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from acclimate.runtime.web.page import POLICY
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL
from tests.runtime.web.sites import Site, site


@pytest.fixture(scope="module")
def open_site() -> Iterator[Site]:
    with site() as running:
        yield running


def test_the_status_says_who_asks_and_what_they_may(open_site: Site) -> None:
    status = open_site.get("status")
    assert (status["version"], status["ready"], status["closed"], status["models"]) == ("1.2.3", True, False, [MODEL])
    assert status["may"] == ["pause", "resume", "reset", "snapshot", "restore"]


def test_a_session_is_listed_with_its_figures(open_site: Site) -> None:
    open_site.opened("listed", requests=3, recipe="tent")
    until(lambda: open_site.get("sessions?search=listed")["total"], "the session to be listed")
    (row,) = open_site.get("sessions?search=LISTED")["sessions"]
    assert (row["model"], row["session_id"], row["recipe"], row["requests"]) == (MODEL, "listed", "tent", 3)
    assert row["entropy"] > 0
    assert 0 <= row["accuracy"] <= 1
    assert row["labelled_accuracy"] is None
    assert "tenant" not in row


def test_a_session_that_has_not_answered_has_no_figures_of_answers(open_site: Site) -> None:
    open_site.opened("silent", requests=0)
    session = open_site.get(f"models/{MODEL}/sessions/silent")["session"]
    assert session["mean_entropy"] is session["estimated_accuracy"] is None
    until(lambda: open_site.get("sessions?search=silent")["total"], "the session to be listed")
    assert open_site.get("sessions?search=silent")["sessions"][0]["accuracy"] is None


def test_lists_are_paged(open_site: Site) -> None:
    for number in range(7):
        open_site.opened(f"paged-{number}", requests=0)
    until(lambda: open_site.get("sessions?search=paged")["total"] == 7, "all sessions to be listed")
    pages = [open_site.get(f"sessions?search=paged&page_size=3&page={page}") for page in (1, 2, 3)]
    assert [len(page["sessions"]) for page in pages] == [3, 3, 1]
    assert len({row["session_id"] for page in pages for row in page["sessions"]}) == 7
    assert {(page["total"], page["pages"]) for page in pages} == {(7, 3)}
    # A list that shrank while somebody was on its last page.
    assert open_site.get("sessions?search=paged&page_size=3&page=9")["page"] == 3
    assert open_site.get("sessions?model=other")["total"] == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sort=beauty", "sort is 'beauty'; send one of drift, accuracy, entropy, rollbacks, updates, recent"),
        ("page_size=0", "page_size is '0'; send a number from 1 to 200"),
        ("page_size=nan", "page_size is 'nan'"),
        ("page_size=201", "page_size is '201'"),
        ("page=x", "page is 'x'"),
    ],
)
def test_bad_queries_are_named(open_site: Site, query: str, message: str) -> None:
    response = open_site.ask(f"/api/sessions?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)


def test_actions_do_what_the_rpcs_do(open_site: Site) -> None:
    open_site.opened("acted", requests=2)
    path = f"models/{MODEL}/sessions/acted"
    with open_site.client() as client:
        assert open_site.ask(f"/api/{path}/pause", method="POST").json()["session"]["paused"]
        assert client.get_session(MODEL, "acted").paused
        assert not open_site.ask(f"/api/{path}/resume", method="POST").json()["session"]["paused"]
        (kept,) = open_site.ask(f"/api/{path}/snapshot", method="POST").json()["snapshots"]
        assert [view.snapshot_id for view in client.session(MODEL, "acted").snapshots()] == [kept["snapshot_id"]]
        before = client.get_session(MODEL, "acted").version
        assert open_site.ask(f"/api/{path}/reset", method="POST").json()["session"]["version"] == before + 1
        restored = open_site.ask(f"/api/{path}/snapshots/{kept['snapshot_id']}/restore", method="POST").json()
        assert restored["session"]["version"] == before + 2 == client.get_session(MODEL, "acted").version
    kinds = [event["kind"] for event in restored["events"]]
    assert kinds == ["restored", "reset", "snapshot_taken", "resumed", "paused", "created"]


def test_an_action_on_what_has_changed_is_refused(open_site: Site) -> None:
    open_site.opened("etagged")
    path = f"models/{MODEL}/sessions/etagged"
    etag = open_site.get(path)["session"]["etag"]
    assert open_site.ask(f"/api/{path}/reset", method="POST", If_Match=etag).status_code == 200
    for action in ("reset", "pause", "resume", "snapshot"):
        assert open_site.refused(f"{path}/{action}", method="POST", If_Match=etag) == (409, "ETAG_MISMATCH")
    assert open_site.get(path)["session"]["version"] == 1


def test_what_is_not_there_is_not_found(open_site: Site) -> None:
    path = f"models/{MODEL}/sessions"
    assert open_site.refused(f"{path}/nobody") == (404, "SESSION_NOT_IN_MEMORY")
    assert open_site.refused(f"{path}/nobody?wake=1") == (404, "SESSION_NOT_FOUND")
    assert open_site.refused(f"{path}/nobody/reset", method="POST") == (404, "SESSION_NOT_FOUND")
    assert open_site.refused(f"{path}/nobody/dance", method="POST") == (404, "ACTION_UNKNOWN")
    assert open_site.refused(f"{path}/nobody/restore", method="POST") == (404, "ACTION_UNKNOWN")
    assert open_site.refused("models/other/history") == (404, "MODEL_NOT_FOUND")
    assert open_site.refused("nothing") == (404, "NOT_FOUND")
    assert open_site.refused("status", method="DELETE") == (405, "METHOD_NOT_ALLOWED")
    assert open_site.refused(f"{path}/%00{'x' * 2000}?wake=1") == (404, "SESSION_NOT_FOUND")


def test_looking_is_not_using(open_site: Site) -> None:
    open_site.opened("watched")
    path = f"models/{MODEL}/sessions/watched"
    used = open_site.get(path)["session"]["last_used_at"]
    open_site.get(f"{path}/history")
    assert open_site.get(path)["session"]["last_used_at"] == used


def test_histories_grow(open_site: Site) -> None:
    open_site.opened("growing", requests=2)
    path = f"models/{MODEL}/sessions/growing/history"
    until(lambda: len(open_site.get(path)["at"]) >= 2, "two points of the session")
    points = open_site.get(path)
    assert {len(column) for column in points["series"].values()} == {len(points["at"])}
    assert points["series"]["entropy"][-1] > 0
    later = open_site.get(f"{path}?after={points['at'][-1]}")
    assert all(moment > points["at"][-1] for moment in later["at"])
    until(lambda: len(open_site.get(f"models/{MODEL}/history")["at"]) >= 2, "two points of the model")
    (figures,) = open_site.get("models")["models"]
    assert figures["whole"]
    assert figures["requests"] >= 2


def test_the_page_and_all_it_is_made_of_come_from_here(open_site: Site) -> None:
    page = open_site.ask("/")
    assert page.status_code == 200
    assert "<title>Acclimate</title>" in page.text
    for path in ("/", "/static/main.js", "/static/vendor/uplot.min.js", "/static/app.css", "/api/status"):
        headers = open_site.ask(path).headers
        assert headers["content-security-policy"] == POLICY, path
        assert headers["x-content-type-options"] == "nosniff", path
        assert "set-cookie" not in headers, path
    assert POLICY.startswith("default-src 'self';")
    assert "http" not in page.text.replace("http-equiv", "")
    assert open_site.ask("/static/../page.py").status_code == 404
    assert open_site.ask("/api/status").headers["cache-control"] == "no-store"


def test_a_defect_is_500_without_details(open_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("secret")

    monkeypatch.setattr("acclimate.runtime.web.api.ranked", broken)
    response = open_site.ask("/api/sessions")
    assert response.status_code == 500
    assert "secret" not in response.text
    monkeypatch.undo()
    assert open_site.ask("/api/sessions").status_code == 200
