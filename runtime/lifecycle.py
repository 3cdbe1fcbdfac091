"""What can be done with a session besides using it: fork, snapshot, bring back, pause, resume, change.

Every change may name the etag of the session that its caller saw, and is refused if that is not the session's any
more. All of it runs on the event loop's thread; only judging and folding happen on the seeder's.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.fields import STATS, THETA
from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import FailedPrecondition, InvalidArgument
from acclimate.runtime.lifecycle_types import ForkSession, SnapshotPage, SnapshotView, UpdateSession
from acclimate.runtime.scheduler.learner import Learner
from acclimate.runtime.seeding import Seeder
from acclimate.runtime.sessions.changing import (
    budget_of,
    change_budget,
    changed,
    check_etag,
    check_paths,
    merged,
)
from acclimate.runtime.sessions.paging import page_size
from acclimate.runtime.sessions.recording import check_record, record_of
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.snapshots import Snapshot, branch, find, put_back, take
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.sessions.table import SESSION_ID, checked_budget, checked_ttl
from acclimate.runtime.types import CreateSession, EventKind, SessionView


@dataclass(frozen=True)
class Lifecycle:
    """The operations; `max_snapshots` is how many each session may have."""

    residency: Residency
    seeder: Seeder
    account: Account
    learner: Learner
    clock: Clock
    max_snapshots: int

    async def expect(self, model: str, session_id: str, given: str) -> Session:
        """The session, if `given` is its etag or empty.

        Raises:
            NotFound: no such session. Aborted: it has changed since.
        """
        session = await self.residency.get(model, session_id)
        check_etag(session, given)
        return session

    async def fork(self, wanted: ForkSession) -> SessionView:
        """Open a session as a copy of another, or of a snapshot of it: same recipe, all that was learnt, own budget."""
        source = await self.expect(wanted.model, wanted.session_id, wanted.etag)
        record, folded = record_of(source, self.residency.moment(source)), source.folded
        if wanted.snapshot_id:
            snapshot = find(source, wanted.snapshot_id)
            record, folded = snapshot.record, snapshot.folded
            check_record(record, source.cohort.engine.manifest)
        request = CreateSession(
            wanted.model,
            wanted.new_id,
            source.cohort.recipe.name,
            source.cohort.parameters,
            wanted.budget or budget_of(source),
            # 0 is a client's way of saying for ever.
            ttl_seconds=(source.ttl_seconds or 0.0) if wanted.ttl_seconds is None else wanted.ttl_seconds,
        )
        await self.residency.refuse_taken(wanted.model, wanted.new_id)
        async with self.residency.room():
            session = self.residency.table.open(request)
        try:
            branch(session, record, folded)
        except FailedPrecondition:
            self.residency.table.close(session)
            raise
        self.account.happened(session, EventKind.CREATED, 0)
        self.account.happened(session, EventKind.FORKED, 0, snapshot=wanted.snapshot_id, source=source.id)
        return self._view(session)

    async def take_snapshot(
        self, model: str, session_id: str, snapshot_id: str | None = None, given: str = ""
    ) -> SnapshotView:
        """Keep what the session has learnt so far; None lets the daemon make an id."""
        session = await self.expect(model, session_id, given)
        chosen = uuid.uuid4().hex if snapshot_id is None else _checked_id(snapshot_id)
        snapshot = take(session, chosen, self.residency.moment(session), self.max_snapshots)
        self._touch(session)
        self.account.happened(session, EventKind.SNAPSHOT_TAKEN, session.version, snapshot=snapshot.id)
        return _snapshot_view(session, snapshot)

    async def get_snapshot(self, model: str, session_id: str, snapshot_id: str) -> SnapshotView:
        """One snapshot, or NotFound."""
        session = await self.expect(model, session_id, "")
        return _snapshot_view(session, find(session, snapshot_id))

    async def list_snapshots(self, model: str, session_id: str, size: int, token: str) -> SnapshotPage:
        """A page of a session's snapshots by id.

        Raises:
            InvalidArgument: a negative size, or a token that is no id of a snapshot. NotFound: no such session.
        """
        session = await self.expect(model, session_id, "")
        size = page_size(size)
        if token and not SESSION_ID.fullmatch(token):
            raise InvalidArgument(
                "PAGE_TOKEN_INVALID", "page_token was not given out by this daemon; start again without one"
            )
        ids = sorted(session.snapshots)
        start = bisect_right(ids, token) if token else 0
        page = ids[start : start + size]
        more = start + len(page) < len(ids)
        views = tuple(_snapshot_view(session, session.snapshots[name]) for name in page)
        return SnapshotPage(views, page[-1] if more else "")

    async def delete_snapshot(self, model: str, session_id: str, snapshot_id: str) -> None:
        """Forget a snapshot."""
        session = await self.expect(model, session_id, "")
        find(session, snapshot_id)
        del session.snapshots[snapshot_id]
        self.account.happened(session, EventKind.SNAPSHOT_DELETED, session.version, snapshot=snapshot_id)

    async def restore(self, model: str, session_id: str, snapshot_id: str, given: str = "") -> SessionView:
        """Let the session be what it was at a snapshot, if the guards let that pass.

        Raises:
            NotFound: no such session or snapshot. Aborted: the session has changed since the etag, or while the
            guards judged. FailedPrecondition: a guard refuses it, or the model is another one by now.
        """
        session = await self.expect(model, session_id, given)
        snapshot = find(session, snapshot_id)
        record, engine = snapshot.record, session.cohort.engine
        check_record(record, engine.manifest)
        if SessionState(record.state).adapted:
            session.pins += 1
            try:
                await self.seeder.judge(engine, np.array(record.fields[THETA]), np.array(record.fields[STATS]))
            except FailedPrecondition as error:
                raise _refused(session, snapshot, error) from error
            finally:
                session.pins -= 1
            # Others had their turn meanwhile.
            if await self.expect(model, session_id, given) is not session or session.cohort.engine is not engine:
                raise changed(session, given)
        before = session.version
        put_back(session, record, snapshot.folded)
        self._touch(session)
        self.account.taken_back(session, before, snapshot.id, record.version)
        return self._view(session)

    async def pause(self, model: str, session_id: str, given: str = "") -> SessionView:
        """Let the session learn nothing from now on; it is answered as before. Twice is once."""
        session = await self.expect(model, session_id, given)
        if not session.paused:
            session.pause()
            self._touch(session)
            self.account.happened(session, EventKind.PAUSED, session.version)
        return self._view(session)

    async def resume(self, model: str, session_id: str, given: str = "") -> SessionView:
        """Let it learn again, from what waited before it was paused and from what comes. Twice is once."""
        session = await self.expect(model, session_id, given)
        if session.paused:
            session.resume()
            self._touch(session)
            self.account.happened(session, EventKind.RESUMED, session.version)
            self.learner.notify(session)
        return self._view(session)

    async def update(self, wanted: UpdateSession) -> SessionView:
        """Change the fields that are named, all or none; one that is named and not given goes to its default.

        Raises:
            NotFound: no such session. Aborted: it has changed since the etag. InvalidArgument: a field cannot be
            changed or does not exist, or its value is not acceptable.
        """
        session = await self.expect(wanted.model, wanted.session_id, wanted.etag)
        check_paths(wanted.paths)
        chosen = checked_budget(merged(budget_of(session), wanted, self.residency.table.default_budget))
        ttl = session.ttl_seconds
        if "ttl" in wanted.paths:
            ttl = checked_ttl(wanted.ttl_seconds, self.residency.table.default_ttl_seconds)
        if wanted.paths:
            change_budget(session, chosen, self.learner.budget_time(session))
            session.ttl_seconds = ttl
            self._touch(session)
            self.account.happened(session, EventKind.UPDATED, session.version)
        return self._view(session)

    def _touch(self, session: Session) -> None:
        session.last_used_at = self.clock.wall()

    def _view(self, session: Session) -> SessionView:
        return session.view(self.learner.budget_time(session))


def _refused(session: Session, snapshot: Snapshot, why: FailedPrecondition) -> FailedPrecondition:
    return FailedPrecondition(
        "SNAPSHOT_REFUSED",
        f"snapshot {snapshot.id!r} of session {session.id!r} is not brought back: {why.message}",
        model=session.model,
        session=session.id,
        snapshot=snapshot.id,
        guard=why.metadata.get("guard", ""),
        distance=why.metadata.get("distance", ""),
    )


def _checked_id(snapshot_id: str) -> str:
    if not SESSION_ID.fullmatch(snapshot_id):
        raise InvalidArgument(
            "SNAPSHOT_ID_INVALID",
            f"snapshot_id is {snapshot_id[:140]!r}; use 1 to 128 letters, digits, '.', '_', '~' or '-', starting with "
            "a letter or digit",
            field="snapshot_id",
            snapshot_id=snapshot_id[:140],
        )
    return snapshot_id


def _snapshot_view(session: Session, snapshot: Snapshot) -> SnapshotView:
    record = snapshot.record
    return SnapshotView(
        model=session.model,
        session_id=session.id,
        snapshot_id=snapshot.id,
        created_at=record.recorded_at,
        version=record.version,
        state=snapshot.state.value,
        theta_distance=record.distance,
        nbytes=snapshot.nbytes,
    )
