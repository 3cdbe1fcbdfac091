"""Requests that are sent twice, the second time to a daemon that was started again in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from acclimate.runtime.store import tools
from acclimate.runtime.store.sqlite import SqliteStore
from acclimate.v1 import session_service_pb2 as pb
from acclimate.v1 import session_service_pb2_grpc
from tests.runtime.rpc.loopback import MODEL, serving
from tests.runtime.rpc.loopback import config as loopback_config

PARENT = f"models/{MODEL}"


@contextmanager
def daemon(folder: Path) -> Iterator[Any]:
    settings = loopback_config().model_copy(
        update={"store": loopback_config().store.model_copy(update={"path": str(folder / "sessions.db")})}
    )
    with serving(settings) as up, up.channel() as channel:
        yield session_service_pb2_grpc.SessionServiceStub(channel)


def test_a_request_is_known_again_after_a_restart(tmp_path: Path) -> None:
    create = pb.CreateSessionRequest(parent=PARENT, request_id="create")
    with daemon(tmp_path) as stub:
        first = stub.CreateSession(create)
        name = first.session.name
        fork, snapshot = (
            pb.ForkSessionRequest(name=name, request_id="fork"),
            pb.SnapshotSessionRequest(name=name, request_id="snapshot"),
        )
        forked, taken = stub.ForkSession(fork), stub.SnapshotSession(snapshot)
    with daemon(tmp_path) as stub:
        assert stub.CreateSession(create) == first
        assert (stub.ForkSession(fork), stub.SnapshotSession(snapshot)) == (forked, taken)
        with pytest.raises(grpc.RpcError, match="came with another request before"):
            stub.CreateSession(pb.CreateSessionRequest(parent=PARENT, recipe="norm", request_id="create"))
        assert len(stub.ListSessions(pb.ListSessionsRequest(parent=PARENT)).sessions) == 2
        assert len(stub.ListSnapshots(pb.ListSnapshotsRequest(parent=name)).snapshots) == 1
        stub.DeleteSession(pb.DeleteSessionRequest(name=name))
        assert stub.CreateSession(create) == first, "what was done is done, whatever has come of it since"
    assert tools.check(tmp_path / "sessions.db").sound


def test_a_reply_is_stored_with_what_it_says_was_done_or_after_it(tmp_path: Path) -> None:
    """Batches hold 64 sessions; the reply to the hundredth must not be in the first."""
    seen: list[tuple[set[str], set[str]]] = []
    written: set[str] = set()
    write = SqliteStore.write

    def watched(self: SqliteStore, batch: Any) -> Any:
        result = write(self, batch)
        written.update(one.record.session_id for one in batch.writes)
        seen.append(({reply.session[2] for reply in batch.replies}, set(written)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteStore, "write", watched)
        with daemon(tmp_path) as stub:
            requests = [
                pb.CreateSessionRequest(parent=PARENT, session_id=f"s{n}", request_id=str(n)) for n in range(150)
            ]
            for future in [stub.CreateSession.future(request) for request in requests]:
                future.result()
    assert all(replies <= sessions for replies, sessions in seen)
    assert set.union(*(replies for replies, _ in seen)) == {f"s{n}" for n in range(150)}
    store = SqliteStore(tmp_path / "sessions.db")
    assert len(store.replies()) == 150
    store.close()
