"""Who may see and do what: tokens, roles and tenants as for gRPC, and other sites kept out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

from acclimate.runtime.config_security import is_loopback
from acclimate.runtime.errors import PermissionDenied
from acclimate.runtime.web.origin import Origin
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL
from tests.runtime.web.sites import Site, guarded, site

ALICE = f"models/{MODEL}/sessions/hers"
ACTIONS = ("pause", "resume", "reset", "snapshot")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with guarded(tmp_path_factory.mktemp("tokens")) as running:
        running.opened("hers", "alice", requests=2)
        until(lambda: running.get("sessions", "alice")["total"], "the session to be listed")
        yield running


PATHS = ("status", "models", "sessions", "recent", "events", ALICE, f"{ALICE}/history", f"models/{MODEL}/history")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_without_a_good_token(closed: Site, path: str) -> None:
    assert closed.refused(path) == (401, "CREDENTIAL_MISSING")
    assert closed.refused(path, Authorization="Bearer acc_no_such") == (401, "CREDENTIAL_WRONG")
    assert closed.refused(path, Authorization="Basic YTpi") == (401, "CREDENTIAL_MALFORMED")
    assert closed.ask(f"/api/{path}").headers["www-authenticate"] == "Bearer"


def test_the_page_itself_and_health_need_none(closed: Site) -> None:
    for path in ("/", "/static/main.js", "/healthz", "/readyz"):
        assert closed.ask(path).status_code == 200, path


@pytest.mark.parametrize(
    ("caller", "role", "may"),
    [("alice", "tenant", 5), ("watcher", "operator", 0), ("root", "admin", 5)],
)
def test_the_status_tells_each_role_what_it_may(closed: Site, caller: str, role: str, may: int) -> None:
    status = closed.get("status", caller)
    assert (status["closed"], status["role"], len(status["may"])) == (True, role, may)


def test_a_tenant_sees_its_own_sessions_only(closed: Site) -> None:
    assert [row["session_id"] for row in closed.get("sessions", "alice")["sessions"]] == ["hers"]
    assert closed.get("sessions", "mallory")["total"] == 0
    assert closed.get("recent", "mallory")["events"] == []
    assert closed.get("status", "mallory")["sessions"] == 0
    for path in (ALICE, f"{ALICE}/history", f"{ALICE}?wake=1"):
        assert closed.refused(path, "mallory")[0] == 404, path
    assert [event["kind"] for event in closed.get("recent", "alice")["events"]] == ["created"]
    assert closed.refused("sessions", "mallory", Acclimate_Tenant="alice") == (403, "TENANT_FORBIDDEN")


@pytest.mark.parametrize("action", ACTIONS)
def test_another_tenant_and_an_operator_change_nothing(closed: Site, action: str) -> None:
    with closed.client("alice") as client:
        before = client.get_session(MODEL, "hers")
        assert closed.refused(f"{ALICE}/{action}", "mallory", "POST") == (404, "SESSION_NOT_FOUND")
        watching = {"Acclimate_Tenant": "alice"}
        assert closed.refused(f"{ALICE}/{action}", "watcher", "POST", **watching) == (403, "ROLE_FORBIDDEN")
        assert closed.refused(f"{ALICE}/{action}", None, "POST") == (401, "CREDENTIAL_MISSING")
        after = client.get_session(MODEL, "hers")
    assert (after.etag, after.paused) == (before.etag, before.paused)


def test_an_operator_looks_at_a_tenant_that_it_names(closed: Site) -> None:
    assert closed.get("sessions", "watcher")["total"] == 0
    assert closed.get("sessions", "watcher", "alice")["total"] == 1
    assert closed.get(ALICE, "watcher", "alice")["session"]["session_id"] == "hers"


def test_an_administrator_acts_for_a_tenant_that_it_names(closed: Site) -> None:
    response = closed.ask(f"/api/{ALICE}/pause", "root", "alice", "POST")
    assert response.json()["session"]["paused"]
    assert closed.ask(f"/api/{ALICE}/resume", "root", "alice", "POST").status_code == 200


def test_models_as_a_whole_are_for_operators(closed: Site) -> None:
    assert closed.refused(f"models/{MODEL}/history", "alice") == (403, "ROLE_FORBIDDEN")
    (own,) = closed.get("models", "mallory")["models"]
    assert (own["whole"], own["sessions"], own["requests"], own["accuracy"]) == (False, 0, 0, None)
    (hers,) = closed.get("models", "alice")["models"]
    assert (hers["whole"], hers["sessions"], hers["requests"]) == (False, 1, 2)
    (whole,) = closed.get("models", "watcher")["models"]
    assert (whole["whole"], whole["sessions"]) == (True, 1)


def test_requests_of_the_page_count_towards_the_quota(tmp_path_factory: pytest.TempPathFactory) -> None:
    with guarded(tmp_path_factory.mktemp("quota"), quotas={"requests_per_s": 1e-3}) as running:
        statuses = [running.ask("/api/sessions", "alice").status_code for _ in range(3)]
        assert statuses[-1] == 429
        response = running.ask("/api/sessions", "alice")
        assert response.json()["error"]["reason"] == "QUOTA_EXCEEDED"
        assert int(response.headers["retry-after"]) >= 1


def test_without_tokens_other_sites_are_kept_out() -> None:
    with site() as running:
        running.opened("safe")
        path = f"models/{MODEL}/sessions/safe"
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
            assert running.refused(f"{path}/reset", None, "POST", **headers) == (403, "ORIGIN_FORBIDDEN")
        for host in ("evil.example", "evil.example:8002", "127.0.0.1.evil.example", ""):
            assert running.refused("sessions", None, Host=host) == (403, "HOST_FORBIDDEN")
        assert running.get(path)["session"]["version"] == 0
        assert running.ask(f"/api/{path}/reset", method="POST", Origin=running.url).status_code == 200
        assert running.ask(f"/api/{path}/reset", method="POST", Sec_Fetch_Site="same-origin").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8002", "127.0.0.1:8002", "[::1]:8002", "127.8.8.8"])
def test_loopbacks_names_are_let_through(host: str) -> None:
    Origin(is_loopback).check("POST", Headers({"host": host, "origin": f"http://{host}"}))


@pytest.mark.parametrize("host", ["[::1", "user@evil", "::1", "10.0.0.1", "localhost.evil"])
def test_others_are_not(host: str) -> None:
    with pytest.raises(PermissionDenied):
        Origin(is_loopback).check("GET", Headers({"host": host}))


def test_with_tokens_any_name_will_do() -> None:
    Origin(None).check("GET", Headers({"host": "daemon.example"}))
    with pytest.raises(PermissionDenied):
        Origin(None).check("POST", Headers({"host": "daemon.example", "origin": "https://other.example"}))
