"""What can be done with a session besides using it: fork, snapshot, bring back, pause, resume, change.

Every change may name the etag of the session that its caller saw, and is refused if that is not the session's any
more. All of it runs on the event loop's thread; only judging and folding happen on the seeder's.
"""

from __future__ import annotations

import asyncio
import uuid
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from acclimate.adapters.fields import STATS, THETA
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
    merged_labels,
)
from acclimate.runtime.sessions.labels import checked_labels
from acclimate.runtime.sessions.paging import page_size
from acclimate.runtime.sessions.recording import check_record, fold_of, record_of
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import Session, in_use
from acclimate.runtime.sessions.settings import checked_budget, checked_ttl
from acclimate.runtime.sessions.snapshot import Snapshot
from acclimate.runtime.sessions.snapshots import branch, find, put_back, take
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.sessions.table import SESSION_ID
from acclimate.runtime.store.base import HEADER_BYTES, Reply
from acclimate.runtime.types import CreateSession, EventKind, SessionView


class Lifecycle:
    """The operations; `max_snapshots` is how many each session may have."""

    def __init__(
        self, residency: Residency, seeder: Seeder, learner: Learner, clock: Clock, max_snapshots: int
    ) -> None:
        self._residency = residency
        self._table, self._account = residency.table, residency.account
        self._seeder = seeder
        self._learner = learner
        self._clock = clock
        self._max_snapshots = max_snapshots

    @property
    def tenant(self) -> str:
        """Whose sessions the caller's are."""
        return self._table.key("", "")[0]

    @property
    def replies(self) -> Sequence[Reply]:
        """Those that an earlier run has kept, oldest first."""
        return self._residency.replies

    def remember(self, reply: Reply) -> None:
        """Keep a reply for later runs."""
        self._residency.remember(reply)

    async def expect(self, model: str, session_id: str, given: str = "") -> Session:
        """The session, if `given` is its etag or empty; `Residency.get` says what else is raised.

        Raises:
            NotFound: no such session. Aborted: it has changed since.
        """
        session = await self._residency.get(model, session_id)
        check_etag(session, given)
        return session

    async def fork(self, wanted: ForkSession) -> SessionView:
        """Open a session as a copy of another, or of a snapshot of it: same recipe, all that was learnt, own budget."""
        await self._residency.refuse_taken(wanted.model, wanted.new_id)
        source = await self.expect(wanted.model, wanted.session_id, wanted.etag)
        snapshot = find(source, wanted.snapshot_id) if wanted.snapshot_id else None
        engine = source.cohort.engine
        record = record_of(source, self._residency.moment(source)) if snapshot is None else snapshot.record
        folded = source.folded if snapshot is None else await asyncio.to_thread(fold_of, record, engine)
        request = CreateSession(
            wanted.model,
            wanted.new_id,
            source.cohort.recipe.name,
            source.cohort.parameters,
            wanted.budget or budget_of(source),
            # 0 is a client's way of saying for ever.
            ttl_seconds=(source.ttl_seconds or 0.0) if wanted.ttl_seconds is None else wanted.ttl_seconds,
            labels=source.labels,
        )
        async with self._residency.room(new=True):
            # The source is not asked any more: it may be gone by now, or the model another one.
            check_record(record, self._table.engine(wanted.model).manifest)
            session = self._table.open(request)
            try:
                branch(session, record, folded)
            except FailedPrecondition:
                self._table.close(session)
                raise
        self._account.happened(session, EventKind.CREATED, 0)
        self._account.happened(session, EventKind.FORKED, 0, snapshot=wanted.snapshot_id, source=source.id)
        return self._view(session)

    async def take_snapshot(
        self, model: str, session_id: str, snapshot_id: str | None = None, given: str = ""
    ) -> SnapshotView:
        """Keep what the session has learnt so far; None lets the daemon make an id."""
        session = await self.expect(model, session_id, given)
        chosen = uuid.uuid4().hex if snapshot_id is None else _checked_id(snapshot_id)
        self._table.refuse_larger(session, HEADER_BYTES + session.cohort.bank.row_bytes)
        snapshot = take(session, chosen, self._residency.moment(session), self._max_snapshots)
        self._table.resized(session)
        self._touch(session)
        self._account.happened(session, EventKind.SNAPSHOT_TAKEN, session.version, snapshot=snapshot.id)
        return snapshot_view(session, snapshot)

    async def get_snapshot(self, model: str, session_id: str, snapshot_id: str) -> SnapshotView:
        """One snapshot, or NotFound."""
        session = await self.expect(model, session_id, "")
        return snapshot_view(session, find(session, snapshot_id))

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
        views = tuple(snapshot_view(session, session.snapshots[name]) for name in page)
        return SnapshotPage(views, page[-1] if more else "")

    async def delete_snapshot(self, model: str, session_id: str, snapshot_id: str) -> None:
        """Forget a snapshot."""
        session = await self.expect(model, session_id, "")
        find(session, snapshot_id)
        del session.snapshots[snapshot_id]
        self._table.resized(session)
        self._account.happened(session, EventKind.SNAPSHOT_DELETED, session.version, snapshot=snapshot_id)

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
        folded = None
        if SessionState(record.state).adapted:
            theta, stats = (np.array(record.fields[name]) for name in (THETA, STATS))
            try:
                with in_use(session):
                    judged = await self._seeder.judge(engine, theta, stats)
            except FailedPrecondition as error:
                raise _refused(session, snapshot, error) from error
            # Others had their turn meanwhile.
            if await self.expect(model, session_id, given) is not session or session.cohort.engine is not engine:
                raise changed(session, given)
            folded = None if record.behind else judged.folded
        before = session.version
        put_back(session, record, folded)
        self._touch(session)
        self._account.taken_back(session, before, snapshot.id, record.version)
        return self._view(session)

    async def pause(self, model: str, session_id: str, given: str = "") -> SessionView:
        """Let the session learn nothing from now on; it is answered as before. Twice is once."""
        session = await self.expect(model, session_id, given)
        if not session.paused:
            session.pause()
            self._touch(session)
            self._account.happened(session, EventKind.PAUSED, session.version)
        return self._view(session)

    async def resume(self, model: str, session_id: str, given: str = "") -> SessionView:
        """Let it learn again, from what waited before it was paused and from what comes. Twice is once."""
        session = await self.expect(model, session_id, given)
        if session.paused:
            session.resume()
            self._touch(session)
            self._account.happened(session, EventKind.RESUMED, session.version)
            self._learner.notify(session)
        return self._view(session)

    async def update(self, wanted: UpdateSession) -> SessionView:
        """Change the fields that are named, all or none; one that is named and not given goes to its default.

        Raises:
            NotFound: no such session. Aborted: it has changed since the etag. InvalidArgument: a field cannot be
            changed or does not exist, or its value is not acceptable.
        """
        session = await self.expect(wanted.model, wanted.session_id, wanted.etag)
        check_paths(wanted.paths)
        chosen = checked_budget(merged(budget_of(session), wanted, self._table.default_budget(session.model)))
        ttl = session.ttl_seconds
        if "ttl" in wanted.paths:
            ttl = checked_ttl(wanted.ttl_seconds, self._table.default_ttl_seconds)
        labels = checked_labels(merged_labels(session.labels, wanted))
        if wanted.paths:
            change_budget(session, chosen, self._learner.budget_time(session))
            session.ttl_seconds, session.labels = ttl, labels
            self._touch(session)
            self._account.happened(session, EventKind.UPDATED, session.version)
        return self._view(session)

    def _touch(self, session: Session) -> None:
        session.last_used_at = self._clock.wall()

    def _view(self, session: Session) -> SessionView:
        return session.view(self._learner.budget_time(session))


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


def snapshot_view(session: Session, snapshot: Snapshot) -> SnapshotView:
    """A snapshot as its owner sees it."""
    return SnapshotView(
        model=session.model,
        session_id=session.id,
        snapshot_id=snapshot.id,
        created_at=snapshot.record.recorded_at,
        version=snapshot.record.version,
        state=snapshot.state.value,
        theta_distance=snapshot.record.distance,
        nbytes=snapshot.nbytes,
    )
