"""Every rpc about the life of a session over a real socket, with its refusals and their `google.rpc` details."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from acclimate.runtime.client import Client, ClientError, Session
from acclimate.runtime.types import Budget, EventKind, SessionView
from acclimate.v1 import session_service_pb2 as pb
from acclimate.v1 import session_service_pb2_grpc
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, config, samples, serving
from tests.runtime.test_lifecycle import estrange


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    with serving(config()) as running:
        yield running


@pytest.fixture
def client(loopback: Loopback) -> Iterator[Client]:
    with Client(loopback.target) as connected:
        yield connected


@pytest.fixture
def stub(loopback: Loopback) -> Iterator[Any]:
    with loopback.channel() as channel:
        yield session_service_pb2_grpc.SessionServiceStub(channel)


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    """A session that has learnt."""
    with client.create_session(MODEL, "s", recipe="tent", recipe_parameters={"batch_rows": 4}) as opened:
        opened.predict(samples(4))
        until(lambda: opened.get().updates == 1, "an update")
        yield opened


NAME = f"models/{MODEL}/sessions/s"


def settled(session: Session) -> SessionView:
    """The session as it is, but for its budget, which refills."""
    return replace(session.get(), budget_available_ms=0.0)


def refused(call: Any, request: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """Status code, and the details by their type."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    error: Any = caught.value
    found = {}
    for packed in rpc_status.from_call(error).details:
        kind = packed.TypeName().removeprefix("google.rpc.")
        assert kind not in found, "at most one of each"
        found[kind] = getattr(error_details_pb2, kind)()
        packed.Unpack(found[kind])
    assert found["ErrorInfo"].domain == "acclimate"
    return error.code(), found


def test_a_fork_lives_on_its_own(client: Client, session: Session) -> None:
    watch = client.watch(MODEL, kinds=[EventKind.FORKED], resume_seconds=0)
    with session.fork("t", budget=Budget(5.0, 50.0), ttl_seconds=600.0) as copy:
        view, source = copy.get(), session.get()
        assert (view.session_id, view.version, view.theta_distance) == ("t", source.version, source.theta_distance)
        assert (view.budget, view.ttl_seconds, view.updates) == (Budget(5.0, 50.0), 600.0, 0)
        ours, theirs = session.export(), copy.export()
        for mine, other in zip((*ours.parameters, *ours.statistics), (*theirs.parameters, *theirs.statistics),
                               strict=True):  # fmt: skip
            assert (mine.name, mine.values.tobytes()) == (other.name, other.values.tobytes())
        told = next(watch)
        assert (told.session_id, told.source, told.snapshot) == ("t", "s", "")
        session.reset()
        assert copy.get().state == "adapted"
    with session.fork() as nameless:
        assert len(nameless.id) == 32
    watch.close()


def test_snapshots_from_end_to_end(client: Client, session: Session) -> None:
    watch = session.watch(kinds=[EventKind.SNAPSHOT_TAKEN, EventKind.RESTORED, EventKind.SNAPSHOT_DELETED])
    taken = session.snapshot("monday")
    assert (taken.snapshot_id, taken.state, taken.version) == ("monday", "adapted", 1)
    assert abs(taken.created_at - session.get().created_at) < 3600
    assert session.get_snapshot("monday") == taken
    others = {session.snapshot().snapshot_id for _ in range(3)}
    assert {view.snapshot_id for view in session.snapshots(page_size=2)} == {"monday", *others}
    before = session.export()
    session.reset()
    back = session.restore("monday")
    assert (back.version, back.state) == (3, "adapted")
    after = session.export()
    assert [t.values.tobytes() for t in before.parameters] == [t.values.tobytes() for t in after.parameters]
    with session.fork("from-monday", snapshot_id="monday") as copy:
        assert copy.get().version == 1
    for name in ("monday", *others):
        session.delete_snapshot(name)
    assert list(session.snapshots()) == []
    told = [next(watch) for _ in range(9)]
    assert [event.kind for event in told] == [
        *[EventKind.SNAPSHOT_TAKEN] * 4, EventKind.RESTORED, *[EventKind.SNAPSHOT_DELETED] * 4,
    ]  # fmt: skip
    assert (told[0].snapshot, told[4].reason, told[4].restored_to) == ("monday", "snapshot", 1)
    watch.close()


def test_a_pause_over_the_wire(session: Session) -> None:
    paused = session.pause()
    assert (paused.paused, paused.state) == (True, "adapted")
    answer = session.predict(samples(16))
    assert answer.version == paused.version
    assert session.get().buffered == 0
    assert not session.resume().paused
    session.predict(samples(4, 9))
    until(lambda: session.get().buffered == 0 and session.get().version > paused.version, "another update")


def test_an_update_over_the_wire(session: Session, stub: Any) -> None:
    view = session.update(budget=Budget(3.0, 30.0))
    assert (view.budget, view.ttl_seconds) == (Budget(3.0, 30.0), None)
    view = session.update(ttl_seconds=90.5)
    assert (view.budget, view.ttl_seconds) == (Budget(3.0, 30.0), 90.5)
    before = settled(session)
    session.update()
    assert settled(session) == before, "nothing named, nothing changed"
    whole = stub.UpdateSession(pb.UpdateSessionRequest(session={"name": NAME}, update_mask={"paths": ["*"]})).session
    assert (whole.budget.capacity_ms, whole.HasField("ttl")) == (2000.0, False)
    one = {"name": NAME, "budget": {"refill_ms_per_s": 9.0, "capacity_ms": 9.0}, "ttl": {"seconds": 7}}
    part = stub.UpdateSession(
        pb.UpdateSessionRequest(session=one, update_mask={"paths": ["budget.refill_ms_per_s", "ttl"]})
    ).session
    assert (part.budget.refill_ms_per_s, part.budget.capacity_ms, part.ttl.seconds) == (9.0, 2000.0, 7)


def test_a_time_to_live_from_the_start(client: Client) -> None:
    with client.create_session(MODEL, "brief", ttl_seconds=600.0) as session:
        assert session.get().ttl_seconds == 600.0
    with pytest.raises(ClientError, match=r"ttl is -3 s") as caught:
        client.create_session(MODEL, ttl_seconds=-3.0)
    assert caught.value.fields.keys() == {"ttl"}


def test_writes_with_an_older_etag_are_aborted(session: Session) -> None:
    stale = session.get().etag
    current = session.update(ttl_seconds=500.0).etag
    session.snapshot("x")
    for write in (
        lambda: session.reset(etag=stale),
        lambda: session.pause(etag=stale),
        lambda: session.resume(etag=stale),
        lambda: session.update(ttl_seconds=1.0, etag=stale),
        lambda: session.fork("t", etag=stale),
        lambda: session.snapshot("y", etag=stale),
        lambda: session.restore("x", etag=stale),
        lambda: session.delete(etag=stale),
    ):
        with pytest.raises(ClientError) as caught:
            write()
        assert (caught.value.code, caught.value.reason) == ("ABORTED", "ETAG_MISMATCH")
        assert caught.value.metadata["current"] == current == session.get().etag
        assert caught.value.resource == NAME
    paused = session.pause(etag=current)
    assert session.resume(etag=paused.etag).etag == current


GONE = f"models/{MODEL}/sessions/none"
MISSING: dict[str, tuple[str, Any, str]] = {
    "UpdateSession": (GONE, pb.UpdateSessionRequest(session={"name": GONE}), "Session"),
    "PauseSession": (GONE, pb.PauseSessionRequest(name=GONE), "Session"),
    "ResumeSession": (GONE, pb.ResumeSessionRequest(name=GONE), "Session"),
    "ForkSession": (GONE, pb.ForkSessionRequest(name=GONE), "Session"),
    "ForkSession of a snapshot": (
        f"{NAME}/snapshots/none", pb.ForkSessionRequest(name=f"{NAME}/snapshots/none"), "Snapshot",
    ),
    "SnapshotSession": (GONE, pb.SnapshotSessionRequest(name=GONE), "Session"),
    "GetSnapshot": (f"{NAME}/snapshots/none", pb.GetSnapshotRequest(name=f"{NAME}/snapshots/none"), "Snapshot"),
    "ListSnapshots": (GONE, pb.ListSnapshotsRequest(parent=GONE), "Session"),
    "DeleteSnapshot": (f"{NAME}/snapshots/none", pb.DeleteSnapshotRequest(name=f"{NAME}/snapshots/none"), "Snapshot"),
    "RestoreSession": (f"{NAME}/snapshots/none", pb.RestoreSessionRequest(name=f"{NAME}/snapshots/none"), "Snapshot"),
    "DeleteSession": (GONE, pb.DeleteSessionRequest(name=GONE), "Session"),
    "ResetSession of no model": (
        "models/other", pb.ResetSessionRequest(name="models/other/sessions/s"), "Model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_what_is_not_there_is_named(session: Session, stub: Any, case: str) -> None:
    name, request, kind = MISSING[case]
    code, details = refused(getattr(stub, case.partition(" ")[0]), request)
    assert code is grpc.StatusCode.NOT_FOUND
    about = details["ResourceInfo"]
    assert (about.resource_type, about.resource_name) == (f"acclimate.v1/{kind}", name)
    assert details["ErrorInfo"].reason == f"{kind.upper()}_NOT_FOUND"


LONG, WRONG = "x" * 129, "!"
INVALID: dict[str, tuple[Any, str, str]] = {
    "PauseSession": (pb.PauseSessionRequest(name="s"), "NAME_INVALID", "name"),
    "ResumeSession": (pb.ResumeSessionRequest(), "NAME_INVALID", "name"),
    "ForkSession": (pb.ForkSessionRequest(name=f"{NAME}/snapshots"), "NAME_INVALID", "name"),
    "ForkSession ": (pb.ForkSessionRequest(name=NAME, session_id="a b"), "SESSION_ID_INVALID", "session_id"),
    "ForkSession  ": (pb.ForkSessionRequest(name=NAME, request_id=LONG), "REQUEST_ID_INVALID", "request_id"),
    "SnapshotSession": (
        pb.SnapshotSessionRequest(name=NAME, snapshot_id="a/b"), "SNAPSHOT_ID_INVALID", "snapshot_id",
    ),
    "SnapshotSession ": (pb.SnapshotSessionRequest(name=NAME, snapshot_id=""), "SNAPSHOT_ID_INVALID", "snapshot_id"),
    "GetSnapshot": (pb.GetSnapshotRequest(name=NAME), "NAME_INVALID", "name"),
    "ListSnapshots": (pb.ListSnapshotsRequest(parent=NAME, page_size=-1), "PAGE_SIZE_INVALID", "page_size"),
    "ListSnapshots ": (pb.ListSnapshotsRequest(parent=NAME, page_token=WRONG), "PAGE_TOKEN_INVALID", "page_token"),
    "RestoreSession": (pb.RestoreSessionRequest(name=NAME), "NAME_INVALID", "name"),
    "DeleteSnapshot": (pb.DeleteSnapshotRequest(name=NAME), "NAME_INVALID", "name"),
    "UpdateSession": (pb.UpdateSessionRequest(session={"name": "s"}), "NAME_INVALID", "session.name"),
    "UpdateSession ": (
        pb.UpdateSessionRequest(session={"name": NAME}, update_mask={"paths": ["recipe"]}),
        "UPDATE_MASK_INVALID", "update_mask",
    ),
    "UpdateSession  ": (
        pb.UpdateSessionRequest(session={"name": NAME, "budget": {"capacity_ms": -1.0}}),
        "BUDGET_INVALID", "budget.capacity_ms",
    ),
    "UpdateSession   ": (
        pb.UpdateSessionRequest(session={"name": NAME, "ttl": {"seconds": 2**62, "nanos": -7}}), "TTL_INVALID", "ttl",
    ),
    "ListSessions": (pb.ListSessionsRequest(parent="models/-", page_size=-1), "PAGE_SIZE_INVALID", "page_size"),
    "CreateSession": (
        pb.CreateSessionRequest(parent=f"models/{MODEL}", recipe="none"), "RECIPE_INVALID", "recipe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_what_is_wrong_with_a_request_is_named_by_its_field(session: Session, stub: Any, case: str) -> None:
    request, reason, field = INVALID[case]
    before = settled(session)
    code, details = refused(getattr(stub, case.strip()), request)
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == field
    assert violation.description
    assert settled(session) == before


def test_states_and_limits_are_told_with_their_details(session: Session, stub: Any, loopback: Loopback) -> None:
    session.snapshot("x")
    code, details = refused(stub.SnapshotSession, pb.SnapshotSessionRequest(name=NAME, snapshot_id="x"))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert details["ResourceInfo"].resource_name == f"{NAME}/snapshots/x"
    code, details = refused(stub.CreateSession, pb.CreateSessionRequest(parent=f"models/{MODEL}", session_id="s"))
    assert (code, details["ResourceInfo"].resource_name) == (grpc.StatusCode.ALREADY_EXISTS, NAME)
    inner: Any = loopback.service
    estrange(inner._parts.table.get(MODEL, "s"), "x")
    code, details = refused(stub.RestoreSession, pb.RestoreSessionRequest(name=f"{NAME}/snapshots/x"))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SNAPSHOT_REFUSED")
    (unmet,) = details["PreconditionFailure"].violations
    assert (unmet.type, unmet.subject) == ("SNAPSHOT_REFUSED", f"{NAME}/snapshots/x")
    for _ in range(7):
        session.snapshot()
    with pytest.raises(ClientError, match="8 snapshots") as full:
        session.snapshot()
    assert (full.value.code, full.value.reason) == ("RESOURCE_EXHAUSTED", "SNAPSHOTS_FULL")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.WatchSessionsRequest(name="models/-", kinds=cast(Any, [99])), "EVENT_KIND_INVALID"),
        (pb.WatchSessionsRequest(name="models/-", kinds=cast(Any, [0])), "EVENT_KIND_INVALID"),
        (pb.WatchSessionsRequest(name="models/-", resume_token=WRONG), "RESUME_TOKEN_INVALID"),
    ],
)
def test_watches_for_what_does_not_exist_are_refused(stub: Any, request_: Any, reason: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.WatchSessions(request_, timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert info.reason == reason
