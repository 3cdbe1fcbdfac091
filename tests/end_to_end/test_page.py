"""The web page in a real browser, in front of real daemons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.runtime.client import Client
from tests.end_to_end.browsing import Browser, browsing
from tests.end_to_end.daemons import Daemon, running
from tests.end_to_end.tenants import Guarded, guarded
from tests.polling import until
from tests.runtime.digits import picture
from tests.runtime.rpc.loopback import MODEL
from tests.runtime.web import sites

pytestmark = pytest.mark.slow

QUICK = {"ACCLIMATE_WEB__SAMPLE_SECONDS": "0.2"}
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def quick(bundle_path: Path) -> Iterator[Daemon]:
    with running(bundle_path, synchronous=True, environment=QUICK) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def closed(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(bundle_path, tmp_path_factory.mktemp("tokens"), WEB__SAMPLE_SECONDS="0.2") as up:
        yield up


def url(daemon: Daemon, path: str = "/") -> str:
    return f"http://127.0.0.1:{daemon.ready['http_port']}{path}"


def used(client: Client, session: str, times: int = 4) -> None:
    """Let a session answer, and learn from what it saw."""
    for seed in range(times):
        client.predict("digits", picture(seed, 16), parameters={"sequence_id": session})


def test_live_updates_arrive_and_nothing_is_fetched_from_elsewhere(browser: Browser, quick: Daemon) -> None:
    browser.open(url(quick))
    browser.shows("live", "#link")
    with Client(quick.target) as client:
        client.create_session("digits", "camera-1", recipe="tent")
        browser.shows("camera-1", ".sessions")
        browser.shows("opened", ".events")
        used(client, "camera-1")
        browser.shows("adapted", ".sessions")
        updates = client.get_session("digits", "camera-1").updates
        assert updates > 0
        until(lambda: browser.text(".sessions td.updates") == str(updates), "the list to say how often it learnt")
        until(lambda: browser.all(".model canvas"), "charts to be drawn")
        used(client, "camera-1")
        later = client.get_session("digits", "camera-1").updates
        assert later > updates
        until(lambda: browser.text(".sessions td.updates") == str(later), "the list to follow")
    assert browser.errors() == []
    assert browser.hosts() == {f"127.0.0.1:{quick.ready['http_port']}"}


def test_a_reset_button_resets(browser: Browser, quick: Daemon) -> None:
    with Client(quick.target) as client:
        client.create_session("digits", "resettable", recipe="tent")
        used(client, "resettable")
        learnt = client.get_session("digits", "resettable")
        assert learnt.state == "adapted"
        browser.open(url(quick))
        browser.shows("resettable", ".sessions")
        browser.run("[...document.querySelectorAll('.sessions a')].find((a) => a.innerText === 'resettable').click()")
        browser.shows("adapted", "h1")
        browser.press("[data-action=reset]")
        browser.shows("Reset resettable?", "#confirm")
        browser.press("#confirm button[value=no]")
        assert client.get_session("digits", "resettable").version == learnt.version
        browser.press("[data-action=reset]")
        browser.press("#confirm-yes")
        browser.shows("as the source", "h1")
        reset = client.get_session("digits", "resettable")
        assert (reset.state, reset.version, reset.theta_distance) == ("pristine", learnt.version + 1, 0.0)
        browser.shows("reset to the source", ".events")
    assert browser.errors() == []


def test_pause_snapshot_and_restore(browser: Browser, quick: Daemon) -> None:
    with Client(quick.target) as client:
        client.create_session("digits", "handled", recipe="tent")
        used(client, "handled")
        browser.open(url(quick, "/#/session/digits/handled"))
        browser.press("[data-action=pause]")
        browser.shows("Resume", ".actions")
        assert client.get_session("digits", "handled").paused
        browser.press("[data-action=pause]")
        browser.shows("Pause", ".actions")
        assert not client.get_session("digits", "handled").paused
        browser.press("[data-action=snapshot]")
        browser.shows("version", ".snapshots")
        version = client.get_session("digits", "handled").version
        browser.press("[data-action=restore]")
        until(lambda: client.get_session("digits", "handled").version == version + 1, "the snapshot to be back")
        browser.shows("restored", ".events")
    assert browser.errors() == []


def test_a_wrong_token_is_refused_and_a_right_one_is_kept_in_the_tab(browser: Browser, closed: Guarded) -> None:
    with closed.client("alice") as client:
        client.create_session("digits", "hers")
    browser.open(url(closed.daemon))
    token = browser.one("#token")
    assert token.get_attribute("type") == "password"
    token.send_keys("acc_wrong_token")
    browser.press("#signin-form button[type=submit]")
    browser.shows("unknown, revoked or expired", "#signin-error")
    assert "hers" not in browser.text("#view")
    token.clear()
    token.send_keys(closed.tokens["alice"])
    browser.press("#signin-form button[type=submit]")
    browser.shows("hers", ".sessions")
    browser.shows("tenant for alice", "#who")
    browser.shows("live", "#link")
    browser.driver.refresh()
    browser.shows("hers", ".sessions")
    assert browser.driver.get_cookies() == []
    assert browser.run("return localStorage.getItem('acclimate.token')") is None
    assert browser.run("return location.href").find("acc_") == -1
    browser.press("#signin")
    browser.press("#signin-forget")
    until(lambda: not browser.all(".sessions"), "everything to be gone")


def test_an_operator_cannot_press_what_it_may_not(browser: Browser, closed: Guarded) -> None:
    with closed.client("alice") as client:
        client.create_session("digits", "untouched", recipe="tent")
        used(client, "untouched")
        before = client.get_session("digits", "untouched")
    browser.open(url(closed.daemon, "/#/session/digits/untouched"))
    browser.one("#token").send_keys(closed.tokens["watcher"])
    browser.one("#tenant").send_keys("alice")
    browser.press("#signin-form button[type=submit]")
    browser.shows("operator for alice", "#who")
    browser.shows("adapted", "h1")
    browser.shows("Operators may look and not act", "#may-not")
    buttons = browser.all("[data-action]")
    assert len(buttons) == 3
    assert not any(button.is_enabled() for button in buttons)
    status = browser.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        const token = sessionStorage.getItem("acclimate.token");
        const headers = { Authorization: `Bearer ${token}`, "Acclimate-Tenant": "alice" };
        const path = "api/models/digits/sessions/untouched/reset";
        fetch(path, { method: "POST", headers }).then((reply) => done(reply.status));
    """)
    assert status == 403
    with closed.client("alice") as client:
        assert client.get_session("digits", "untouched").version == before.version


def test_a_phone_scrolls_one_way(browser: Browser, quick: Daemon) -> None:
    name = "a-session-of-a-very-long-name." + "x" * 90
    with Client(quick.target) as client, browser.phone():
        client.create_session("digits", name, recipe="tent")
        used(client, name)
        browser.open(url(quick))
        browser.shows(name, ".sessions")
        browser.shows("live", "#link")
        width = "return document.documentElement.scrollWidth"
        assert browser.run(width) == 390
        browser.run(f"location.hash = '#/session/digits/{name}'")
        browser.shows("Updates, restorations and roll-backs")
        until(lambda: browser.all(".chart-card canvas"), "charts to be drawn")
        assert browser.run(width) == 390
        targets = browser.run(
            "return [...document.querySelectorAll('.actions button')].map((one) => one.getBoundingClientRect().height)"
        )
        assert min(targets) >= 44
    assert browser.errors() == []


def test_everything_that_can_be_used_has_a_name(browser: Browser, quick: Daemon) -> None:
    for path in ("/", "/#/session/digits/camera-1"):
        browser.open(url(quick, path))
        browser.shows("live", "#link")
        nameless = browser.run("""
            const named = (one) => one.textContent.trim() || one.getAttribute("aria-label")
              || one.getAttribute("aria-labelledby") || (one.labels && one.labels.length);
            return [...document.querySelectorAll("button, input, select, a, meter, .chart")]
              .filter((one) => one.checkVisibility() && !named(one)).map((one) => one.outerHTML);
        """)
        assert nameless == []


def test_hostile_names_are_only_text(browser: Browser) -> None:
    """Neither ids nor models can be named so; if one ever could, it would still be text."""
    with sites.site() as site:
        site.opened("harmless", requests=2)
        table = site.loopback.service.sight.residency.table

        async def rename() -> None:
            session = table.find(MODEL, "harmless")
            assert session is not None
            del table._sessions[session.key]
            session.id = HOSTILE
            table._sessions[session.key] = session

        site.loopback.run(rename())
        browser.open(site.url)
        browser.shows(HOSTILE, ".sessions")
        browser.run("document.querySelector('.sessions a').click()")
        browser.shows(HOSTILE, "h1")
        browser.press("[data-action=reset]")
        browser.shows(f"Reset {HOSTILE}?", "#confirm")
        browser.press("#confirm-yes")
        browser.shows("reset to the source", ".events")
        browser.run("location.hash = '#/'")
        browser.shows(HOSTILE, ".events")
        assert browser.all("img") == []
        assert browser.run("return window.hacked") is None
        assert browser.errors() == []


def test_a_daemon_that_comes_back_is_found_again(browser: Browser, bundle_path: Path) -> None:
    with running(bundle_path, synchronous=True, environment=QUICK) as first:
        port = first.ready["http_port"]
        browser.open(url(first))
        browser.shows("live", "#link")
        first.stop()
        browser.shows("reconnecting", "#link")
    with running(bundle_path, synchronous=True, environment=QUICK, http_port=port) as second:
        browser.shows("live", "#link")
        with Client(second.target) as client:
            client.create_session("digits", "after", recipe="tent")
        browser.shows("after", ".sessions")


def test_many_sessions_are_shown_a_page_at_a_time(browser: Browser) -> None:
    with sites.site() as site:
        with site.client() as client:
            for number in range(300):
                client.create_session(MODEL, f"many-{number:04d}")
        browser.open(site.url)
        browser.shows("1 to 25 of 300", ".sessions + footer")
        assert len(browser.all(".sessions tbody tr")) == 25
        browser.press(".card-foot button:last-child")
        browser.shows("26 to 50 of 300", ".sessions + footer")
        browser.one("#search").send_keys("many-0123")
        browser.shows("1 to 1 of 1", ".sessions + footer")
        assert browser.errors() == []
