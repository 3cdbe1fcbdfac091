"""What a stranger, another tenant, an operator and an administrator get from every rpc."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from acclimate.runtime.client import AsyncClient, Client, ClientError
from acclimate.runtime.client.secure import open_channel
from acclimate.runtime.security import tokens
from acclimate.v1 import session_service_pb2
from benchmarks._rpcs import (
    GENERATION,
    HEALTH,
    LANGUAGE,
    NAMED,
    OIP,
    SESSIONS,
    SNAPSHOT,
    Outcome,
    ask,
    messages,
    methods,
)
from tests.end_to_end.daemons import refused
from tests.end_to_end.tenants import CALLERS, Guarded, guarded
from tests.end_to_end.wire import future, twins
from tests.polling import until
from tests.runtime.digits import picture

ALICES, NOBODYS = "shared", "absent"
OPEN = {HEALTH + "Check", HEALTH + "Watch", OIP + "ServerLive", OIP + "ServerReady"}
# What an operator may not do; everybody with a token may do the rest.
WORK = {
    *(OIP + rpc for rpc in ("ModelInfer", "ModelStreamInfer", "RepositoryModelLoad", "RepositoryModelUnload")),
    *(SESSIONS + rpc for rpc in ("CreateSession", "DeleteSession", "ResetSession", "ExportSession", "SendFeedback")),
    *(SESSIONS + rpc for rpc in ("UpdateSession", "PauseSession", "ResumeSession", "ForkSession", "RestoreSession")),
    *(SESSIONS + rpc for rpc in ("SnapshotSession", "DeleteSnapshot", "CreateSessions")),
    *(GENERATION + rpc for rpc in ("Generate", "Learn", "Score")),
}
# What concerns all tenants at once, and none of them may do.
ABOVE = {OIP + rpc for rpc in ("ModelStatistics", "RepositoryModelLoad", "RepositoryModelUnload")}
OK, MISSING = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
STRANGE, FORBIDDEN = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
RPCS = methods()


def message(method: str, session: str) -> bytes:
    """A message that the rpc answers with OK to the tenant of that session."""
    return messages(session)[method].SerializeToString()


ABOUT_A_SESSION = {
    *NAMED,
    OIP + "ModelInfer",
    *(SESSIONS + rpc for rpc in ("SendFeedback", "UpdateSession", "ForkSession", "RestoreSession")),
    *(SESSIONS + rpc for rpc in ("GetSnapshot", "ListSnapshots", "DeleteSnapshot")),
    *(GENERATION + rpc for rpc in ("Generate", "Learn", "Score")),
}


@pytest.fixture(scope="module")
def guard(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(bundle_path, tmp_path_factory.mktemp("tokens")) as up:
        with up.client("alice") as alice:
            twins(alice, ALICES, "spared")
            alice.session("digits", ALICES).snapshot(SNAPSHOT)
            alice.create_session(LANGUAGE, ALICES)
        yield up


@pytest.fixture(scope="module")
def channel(guard: Guarded) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guard.daemon.target) as opened:
        yield opened


@pytest.fixture(autouse=True)
def alice_is_untouched(guard: Guarded) -> Iterator[None]:
    """Whatever others do in a test, alice's session is afterwards as it was."""
    with guard.client("alice") as alice:
        before = theirs(alice)
        yield
        assert theirs(alice) == before


def theirs(client: Client) -> list[object]:
    """Whatever there is to see of alice's sessions."""
    views = [client.get_session(model, ALICES) for model in ("digits", LANGUAGE)]
    return [*views, client.export_session("digits", ALICES).version]


def test_the_table_knows_every_rpc_that_is_served(guard: Guarded) -> None:
    channel = open_channel(grpc, guard.daemon.target, [], guard.tokens["watcher"], False, None)
    database = ProtoReflectionDescriptorDatabase(channel)
    served = {
        f"/{service}/{method.name}"
        for service in database.get_services()
        if not service.startswith("grpc.reflection.")
        for file in [database.FindFileContainingSymbol(service)]
        for described in file.service
        if f"{file.package}.{described.name}" == service
        for method in described.method
    }
    channel.close()
    assert served == set(RPCS) == set(messages(ALICES)), "benchmarks/_rpcs.py needs a message for each rpc"


@pytest.mark.parametrize("method", RPCS)
@pytest.mark.parametrize("credential", ["none", "wrong", "another's id", "malformed", "twice", "basic"])
def test_a_stranger_learns_nothing(guard: Guarded, channel: grpc.Channel, method: str, credential: str) -> None:
    good = guard.tokens["alice"]
    sent = {
        "none": (),
        "wrong": ("Bearer acc_0123456789ab_" + "0" * 64,),
        "another's id": ("Bearer " + good[:-64] + guard.tokens["mallory"][-64:],),
        "malformed": ("Bearer",),
        "twice": (f"Bearer {good}", f"Bearer {good}"),
        "basic": (f"Basic {good}",),
    }[credential]
    metadata = [("authorization", value) for value in sent]
    outcome = ask(channel, method, message(method, ALICES), RPCS[method], metadata)
    if method in OPEN:
        assert outcome.code is OK
        return
    assert outcome.code is STRANGE
    again = ask(channel, method, message(method, NOBODYS), RPCS[method], metadata)
    assert again == outcome, "the answer tells whether there is such a session"
    assert ask(channel, method, b"\xff\xff", RPCS[method], metadata) == outcome, "the message was looked at"


@pytest.mark.parametrize("method", RPCS)
def test_another_tenant_is_answered_as_if_there_were_no_such_session(
    guard: Guarded, channel: grpc.Channel, method: str
) -> None:
    def ask_for(session: str) -> Outcome:
        return ask(channel, method, message(method, session), RPCS[method], guard.metadata("mallory"))

    outcome, never = ask_for(ALICES), ask_for(NOBODYS)
    assert outcome.code is (FORBIDDEN if method in ABOVE else MISSING if method in ABOUT_A_SESSION else OK)
    assert outcome.code is never.code
    assert outcome.message.replace(ALICES, NOBODYS) == never.message
    assert outcome.details.replace(ALICES.encode(), NOBODYS.encode()) == never.details
    if not method.startswith(SESSIONS + "CreateSession"):
        assert not any(f"sessions/{ALICES}".encode() in reply for reply in outcome.replies)


@pytest.mark.parametrize("method", [rpc for rpc in RPCS if "request_id" in RPCS[rpc].input_type.fields_by_name])
def test_a_request_id_is_remembered_for_its_tenant_alone(guard: Guarded, channel: grpc.Channel, method: str) -> None:
    sent = messages(NOBODYS)[method]
    sent.request_id = "the-same"  # type: ignore[attr-defined]
    payload = sent.SerializeToString()
    first, second = (
        ask(channel, method, payload, RPCS[method], guard.metadata("root", name)) for name in ("dan", "eve")
    )
    assert first.code is second.code
    assert first.code is not OK or first.replies != second.replies, "one tenant was given what another had asked for"


@pytest.mark.parametrize("method", RPCS)
def test_nobody_may_say_to_be_another_tenant(guard: Guarded, channel: grpc.Channel, method: str) -> None:
    metadata = guard.metadata("mallory", "alice")
    outcome = ask(channel, method, message(method, ALICES), RPCS[method], metadata)
    assert outcome.code is (OK if method in OPEN else FORBIDDEN)
    unheard = guard.metadata("mallory", "nobody-of-that-name")
    assert ask(channel, method, message(method, ALICES), RPCS[method], unheard) == outcome or method in OPEN


@pytest.mark.parametrize("method", RPCS)
def test_an_operator_reads_and_does_nothing(guard: Guarded, channel: grpc.Channel, method: str) -> None:
    metadata = guard.metadata("watcher", "alice")
    outcome = ask(channel, method, message(method, ALICES), RPCS[method], metadata)
    assert outcome.code is (FORBIDDEN if method in WORK else OK)


@pytest.mark.parametrize("method", sorted(set(RPCS) - {SESSIONS + "DeleteSession"}))
def test_an_administrator_may_do_everything_for_any_tenant(guard: Guarded, channel: grpc.Channel, method: str) -> None:
    with guard.client("root", "carol") as carol:
        if ALICES not in [view.session_id for view in carol.list_sessions("digits")]:
            carol.create_session("digits", ALICES)
            carol.create_session(LANGUAGE, ALICES)
        if SNAPSHOT not in [view.snapshot_id for view in carol.session("digits", ALICES).snapshots()]:
            carol.session("digits", ALICES).snapshot(SNAPSHOT)
    outcome = ask(channel, method, message(method, ALICES), RPCS[method], guard.metadata("root", "carol"))
    assert outcome.code is (MISSING if method == OIP + "RepositoryModelUnload" else OK)


def test_two_tenants_have_sessions_of_one_name(guard: Guarded) -> None:
    with guard.client("alice") as alice, guard.client("mallory") as mallory:
        own = mallory.create_session("digits", ALICES)
        with pytest.raises(ClientError, match="ALREADY_EXISTS"):
            mallory.create_session("digits", ALICES)
        started = {"sequence_id": ALICES, "sequence_start": True}
        mallory.predict("digits", picture(7, 1), parameters=started)
        assert own.get().samples == 1
        assert alice.get_session("digits", ALICES).samples == 40
        own.delete()
        with pytest.raises(ClientError, match="SESSION_NOT_FOUND"):
            own.get()


def test_lists_pages_and_tokens_are_a_tenants_own(guard: Guarded) -> None:
    with guard.client("alice") as alice, guard.client("mallory") as mallory:
        for n in range(3):
            mallory.create_session("digits", f"mine-{n}")
        theirs = [view.session_id for view in mallory.list_sessions(page_size=2)]
        assert theirs == sorted(theirs)
        assert {f"mine-{n}" for n in range(3)} <= set(theirs)
        assert not {ALICES, "spared"} & set(theirs)
        assert not set(theirs) & {view.session_id for view in alice.list_sessions(page_size=1)}
        page = session_service_pb2.ListSessionsRequest(parent="models/-", page_size=1)
        reply = session_service_pb2.ListSessionsResponse.FromString(
            ask_as(guard, "alice", SESSIONS + "ListSessions", page.SerializeToString()).replies[0]
        )
        page.page_token = reply.next_page_token
        refused = ask_as(guard, "mallory", SESSIONS + "ListSessions", page.SerializeToString())
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


def test_administrators_alone_list_every_tenants_sessions(guard: Guarded) -> None:
    with guard.client("mallory") as mallory, guard.client("root") as root:
        mallory.create_session("digits", "everybodys", labels={"site": "x"})
        views = list(root.list_sessions(every_tenant=True, page_size=1))
        listed = {(view.tenant, view.session_id) for view in views}
        assert {("alice", ALICES), ("alice", "spared"), ("mallory", "everybodys")} <= listed
        places = [(view.tenant, view.model, view.session_id) for view in views]
        assert places == sorted(places)
        own = [(v.tenant, v.session_id) for v in root.list_sessions(every_tenant=True, filter="labels.site = x")]
        assert own == [("mallory", "everybodys")]
        page = session_service_pb2.ListSessionsRequest(parent="models/-", page_size=1, tenant="-")
        method = SESSIONS + "ListSessions"
        for caller in ("mallory", "watcher"):
            refused = ask_as(guard, caller, method, page.SerializeToString())
            assert (refused.code, b"ROLE_FORBIDDEN" in refused.details) == (FORBIDDEN, True)
        reply = session_service_pb2.ListSessionsResponse.FromString(
            ask_as(guard, "root", method, page.SerializeToString()).replies[0]
        )
        stolen = session_service_pb2.ListSessionsRequest(
            parent="models/-", page_size=1, page_token=reply.next_page_token
        )
        assert ask_as(guard, "mallory", method, stolen.SerializeToString()).code is grpc.StatusCode.INVALID_ARGUMENT
        named = session_service_pb2.ListSessionsRequest(parent="models/-", tenant="alice")
        for caller in ("mallory", "root"):
            assert ask_as(guard, caller, method, named.SerializeToString()).code is grpc.StatusCode.INVALID_ARGUMENT
        mallory.delete_session("digits", "everybodys")


def test_a_watch_hears_of_its_own_tenant_alone(guard: Guarded) -> None:
    with guard.client("alice") as alice, guard.client("mallory") as mallory, mallory.watch() as events:
        for client in (alice, mallory):
            client.create_session("digits", "heard").delete()
        assert {(next(events).session_id, client) for _ in range(2)} == {("heard", client)}
        with guard.client("root", "mallory") as acting, acting.watch() as theirs:
            alice.create_session("digits", "quiet").delete()
            mallory.create_session("digits", "loud").delete()
            assert [next(theirs).session_id for _ in range(2)] == ["loud", "loud"]
        assert [next(events).session_id for _ in range(2)] == ["loud", "loud"]


def test_a_revoked_token_is_refused_and_ends_the_streams_it_began(guard: Guarded) -> None:
    entries = tokens.read(guard.file)
    token, entry = tokens.create("tenant", "mallory", "", time.time(), None)
    tokens.write(guard.file, entries | {entry.id: entry})

    def accepted() -> bool:
        with Client(guard.daemon.target, token=token) as client:
            try:
                client.server_info()
            except ClientError as error:
                assert error.reason == "CREDENTIAL_WRONG"
                return False
            return True

    until(accepted, "the daemon to read the token")
    with Client(guard.daemon.target, token=token) as client, guard.client("mallory") as other, client.watch() as events:
        other.create_session("digits", "seen").delete()
        assert [next(events).session_id for _ in range(2)] == ["seen", "seen"]
        tokens.write(guard.file, entries)
        until(lambda: not accepted(), "the daemon to forget the token")
        other.create_session("digits", "unseen").delete()
        with pytest.raises(ClientError, match="CREDENTIAL_WRONG"):
            next(events)


def test_the_asyncio_client_and_the_command_line_show_tokens(guard: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with AsyncClient(guard.daemon.target, token=guard.tokens["mallory"]) as client:
            session = await client.create_session("digits", "by-asyncio")
            assert (await session.predict(picture(3, 2))).logits.shape == (2, 10)

    asyncio.run(scenario())
    command = ("list", "--target", guard.daemon.target, "--json")
    assert "CREDENTIAL_MISSING" in refused("session", *command).stderr
    monkeypatch.setenv("ACCLIMATE_TOKEN", guard.tokens["mallory"])
    assert "by-asyncio" in refused("session", *command).stdout
    assert "TENANT_FORBIDDEN" in refused("session", "--tenant", "alice", *command).stderr
    monkeypatch.setenv("ACCLIMATE_TOKEN", guard.tokens["root"])
    monkeypatch.setenv("ACCLIMATE_TENANT", "mallory")
    assert "by-asyncio" in refused("session", *command).stdout
    refused("session", "reset", "digits/by-asyncio", "--target", guard.daemon.target)
    with guard.client("mallory") as client:
        assert client.get_session("digits", "by-asyncio").version == 1
        client.delete_session("digits", "by-asyncio")


# Operators, who alone may scrape, are told of the configured tenants and of the few sessions that fare worst.
NAMED = ("acclimate_tenant_", "acclimate_session_")


def test_other_metrics_name_no_tenant_and_count_refusals(guard: Guarded, channel: grpc.Channel) -> None:
    before = guard.daemon.metrics()
    ask(channel, OIP + "ModelInfer", message(OIP + "ModelInfer", ALICES), RPCS[OIP + "ModelInfer"])
    after = guard.daemon.metrics()
    key = ("acclimate_auth_failures_total", (("reason", "missing"),))
    assert after[key] == before[key] + 1
    values = {value for name, labels in after if not name.startswith(NAMED) for _, value in labels}
    assert not values & {*CALLERS, ALICES}


def test_the_servers_memory_is_no_tenants_business(guard: Guarded) -> None:
    with guard.client("mallory") as mallory, guard.client("watcher") as watcher:
        assert (mallory.server_info().rss_bytes, mallory.server_info().pid) == (0, 0)
        assert watcher.server_info().rss_bytes > 0


def test_after_all_of_it_alice_learns_on_as_her_twin_does(guard: Guarded) -> None:
    with guard.client("alice") as alice:
        twins(alice, "third")
        assert future(alice, "third") == future(alice, "spared")


def ask_as(guard: Guarded, caller: str, method: str, payload: bytes) -> Outcome:
    with grpc.insecure_channel(guard.daemon.target) as channel:
        return ask(channel, method, payload, RPCS[method], guard.metadata(caller))
