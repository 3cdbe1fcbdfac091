"""Which sessions are in memory: those asked for return from the store, those used longest ago make room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

import structlog

from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import AlreadyExists, ResourceExhausted
from acclimate.runtime.repository.adoption import Adoption
from acclimate.runtime.sessions.bounds import Patience
from acclimate.runtime.sessions.journal import Hooks, Journal
from acclimate.runtime.sessions.keeping import Keeping, steady_wall
from acclimate.runtime.sessions.parking import Parking
from acclimate.runtime.sessions.recording import Moment
from acclimate.runtime.sessions.returning import bring_back
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.sessions.table import SessionTable
from acclimate.runtime.store.base import Reply, Store
from acclimate.runtime.types import EventKind

log = structlog.stdlib.get_logger("acclimate.sessions")
# Sessions written together when room is needed, so that those who come next find room at once.
TOGETHER = 32
ROOM_SECONDS, LOOK_AGAIN_SECONDS = 1.0, 0.01

# Events that end a session, that are the residency's own, or that change counters alone. Others are commits.
GOING = (EventKind.DELETED, EventKind.EXPIRED)
MOVES = (EventKind.EVICTED, EventKind.RETURNED, EventKind.FENCED)
LIGHT = (None, EventKind.SKIPPED, EventKind.FEEDBACK, EventKind.DRIFTED)


@dataclass(frozen=True, slots=True)
class ResidencyLimits:
    """Sessions in memory, seconds after which an idle one leaves it (0: never), bytes kept of those that left."""

    max_sessions: int
    idle_seconds: float = 0.0
    parked_bytes: int = 0


class Residency:
    """Touched on the event loop's thread only.

    Args:
        table: live sessions.
        account: hears of what happens to sessions, and tells `noted` of everything.
        limits: of memory.
        clock: the time.
        budget_time: the time at which the budget of a session that was sent so many samples stands.
        adoption: what becomes of stored sessions whose model was replaced.
        keeping: the store, or None.
    """

    def __init__(
        self,
        table: SessionTable,
        account: Account,
        limits: ResidencyLimits,
        clock: Clock,
        budget_time: Callable[[int], float],
        adoption: Adoption,
        keeping: Keeping | None = None,
    ) -> None:
        self.table = table
        self.account = account
        self.limits = limits
        self.adoption = adoption
        self.keeping = keeping
        self._clock = clock
        self._budget_time = budget_time
        self.wall = steady_wall(clock)
        self._used: OrderedDict[SessionKey, float] = OrderedDict()
        self._returning: dict[SessionKey, asyncio.Task[bool]] = {}
        self._door = asyncio.Lock()
        self.parking = Parking(limits.parked_bytes)
        self.evictions = self.returns = self.stored = 0
        self.journal: Journal | None = None
        self.replies: tuple[Reply, ...] = ()
        if keeping is not None:
            hooks = Hooks(self.moment, self._expires_at, self._fenced)
            self.journal = Journal(keeping.thread, keeping.bounds, clock, hooks)

    def drain(self) -> None:
        """The daemon is about to end: nobody waits for a store that fails any more."""
        if self.journal is not None:
            self.journal.drain()

    async def close(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """End the tasks that sweep and write, write everything, and let go of the store."""
        for sweeping in tasks[:1]:
            sweeping.cancel()
        await asyncio.gather(*self._returning.values(), return_exceptions=True)
        if self.journal is not None:
            self.journal.end()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.keeping is not None and self.journal is not None:
            if not await self.journal.finish():
                log.error("the store cannot be written; what it lacks is lost", commits=self.journal.commits)
            await self.keeping.thread.close()

    def noted(self, session: Session, kind: EventKind | None, moved: bool) -> None:
        """Something happened to a session; None: it answered. `moved`: its version is another one."""
        if kind in MOVES:
            return
        if kind in GOING:
            self._gone(session.key)
            self.stored -= 1
            if self.journal is not None:
                self.journal.deleted(session)
            return
        self.stored += kind is EventKind.CREATED
        if kind in (None, EventKind.CREATED):
            self.used(session)
        if self.journal is not None and session.open:
            self.journal.changed(session, commit=moved or kind not in LIGHT)

    def used(self, session: Session) -> None:
        """The session is in use, and the last to make room."""
        if session.open:
            self._used[session.key] = self._clock.monotonic()
            self._used.move_to_end(session.key)

    def idle_seconds(self, session: Session) -> float:
        """For how long nobody has used a live session; no jump of the wall clock counts."""
        now = self._clock.monotonic()
        return now - self._used.get(session.key, now)

    def moment(self, session: Session) -> Moment:
        """Now, for a session to be recorded."""
        return self.moment_after(session.account.samples)

    def moment_after(self, samples: int) -> Moment:
        """Now, for a session that was sent so many samples."""
        clock = "memory" if self.keeping is None else self.keeping.clock
        return Moment(self._clock.wall(), self._budget_time(samples), clock)

    async def may_commit(self, commits: int, replying: bool) -> bool:
        """Whether so many commits are within the bound on what a crash may lose; see `scheduler/room.py`."""
        if self.journal is None or self.keeping is None:
            return True
        in_reply = Patience.UNLESS_FAILING if self.keeping.synchronous else Patience.NONE
        return await self.journal.room(commits, in_reply if replying else Patience.ENDLESS)

    async def get(self, model: str, session_id: str) -> Session:
        """The session, from the store if it is not in memory.

        Raises:
            NotFound: no such session. DataLoss: its record does not hold. Aborted: another daemon has it.
            FailedPrecondition: it is of another bundle. ResourceExhausted, Unavailable: not now.
        """
        return await self.find(model, session_id) or self.table.get(model, session_id)

    async def find(self, model: str, session_id: str) -> Session | None:
        """`get`, or None where there is no such session."""
        while (session := self.table.find(model, session_id)) is None:
            if not self.table.serves(model) or not await self._back(self.table.key(model, session_id)):
                return None
        self.used(session)
        return session

    async def refuse_taken(self, model: str, session_id: str | None) -> None:
        """Whether a session of this name may be opened.

        Raises:
            AlreadyExists: the store has one, whatever its state. Unavailable: it cannot say.
        """
        if session_id is None or self.keeping is None or self.journal is None:
            return
        key = self.table.key(model, session_id)
        if not self.journal.deleting(key) and await self.keeping.holds(key, self.wall()):
            raise AlreadyExists(
                "SESSION_EXISTS", f"session {session_id!r} of model {model!r} exists", session=session_id
            )

    @asynccontextmanager
    async def room(self, new: bool = False) -> AsyncIterator[None]:
        """Room for one more session in memory, and in the store if it is `new`, for as long as nothing else is awaited.

        Raises:
            ResourceExhausted: the store holds as many as it may, every session in memory is in use, or what would have
                to be written first cannot be.
        """
        if new and self.keeping is not None:
            self.keeping.refuse_full(self.stored)
        give_up = (loop := asyncio.get_running_loop()).time() + ROOM_SECONDS
        async with self._door:
            while self.journal is not None and len(self.table) >= self.limits.max_sessions:
                if await self._make_room(self.journal):
                    continue
                if self.journal.failing or loop.time() > give_up:
                    raise self._full(self.journal)
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            yield

    def removed(self, key: SessionKey, state_bytes: int, kind: EventKind) -> None:
        """A session of this size, that is not in memory, is stored no more."""
        self.parking.forget(key)
        self.table.departed(key, state_bytes)
        self.stored -= 1
        self.account.absent(key, kind)

    def begin(self, store: Store) -> None:
        """Nothing is in memory; this much is stored."""
        usage, self.replies = store.usage(), tuple(store.replies())
        self.stored = store.count()
        self.table.recounted(usage)

    def remember(self, reply: Reply) -> None:
        """Keep a reply beyond the process, if there is a store."""
        if self.journal is not None:
            self.journal.remember(reply)

    async def leave(self, sessions: Sequence[Session]) -> None:
        """Write sessions and let them leave memory, but those that are used meanwhile."""
        if self.journal is None:
            return
        since = {session.key: self._used.get(session.key) for session in sessions}
        await self.journal.settle(since)
        for session in sessions:
            unused = session.open and self._used.get(session.key) == since[session.key]
            if unused and not busy(session) and self.journal.clean(session):
                self._evict(session, self.journal)

    async def returning(self, key: SessionKey) -> None:
        """Wait until a session that is on its way back has arrived, or has failed to."""
        if key in self._returning:
            await asyncio.wait((self._returning[key],))

    async def _back(self, key: SessionKey) -> bool:
        """Bring a session back, together with everybody else who asks for it; False if there is none."""
        if self.keeping is None or self.journal is None or self.journal.deleting(key):
            return False
        if key not in self._returning:
            task = asyncio.create_task(bring_back(self, key, self.keeping, self.journal), name="return")
            self._returning[key] = task
            task.add_done_callback(lambda done: self._arrived(key, done))
        # A caller that gives up leaves the others their session.
        return await asyncio.shield(self._returning[key])

    def _arrived(self, key: SessionKey, done: asyncio.Task[bool]) -> None:
        del self._returning[key]
        if not done.cancelled():
            done.exception()

    async def _make_room(self, journal: Journal) -> bool:
        """Let one session leave: the one used longest ago of those that nobody uses now."""
        live = (self.table.at(key) for key in self._used)
        idle = list(islice((s for s in live if s is not None and not busy(s)), TOGETHER))
        ready = next((session for session in idle if journal.clean(session)), None)
        if ready is None:
            await journal.settle([session.key for session in idle])
            ready = next((s for s in idle if s.open and not busy(s) and journal.clean(s)), None)
        if ready is not None:
            self._evict(ready, journal)
        return ready is not None

    def _evict(self, session: Session, journal: Journal) -> None:
        journal.released(session)
        self._gone(session.key)
        self.parking.park(session)
        self.table.evict(session)
        self.evictions += 1
        self.account.happened(session, EventKind.EVICTED, session.version)

    def _fenced(self, session: Session) -> None:
        """Another daemon has taken the session over: what is here is a copy, and of no use."""
        log.warning("another daemon has taken a session over", model=session.model, session=session.id)
        self._gone(session.key)
        self.table.evict(session)
        self.account.happened(session, EventKind.FENCED, session.version)

    def _gone(self, key: SessionKey) -> None:
        self._used.pop(key, None)
        self.parking.forget(key)

    def _expires_at(self, session: Session) -> float | None:
        ttl = session.ttl_seconds
        return None if ttl is None else self.wall() + ttl - self.idle_seconds(session)

    def _full(self, journal: Journal) -> ResourceExhausted:
        why = "the store cannot be written" if journal.failing else "all of them are in use"
        return ResourceExhausted(
            "SESSIONS_FULL",
            f"{len(self.table)} sessions are in memory, as many as sessions.max_sessions allows, and {why}",
            retry_after_seconds=ROOM_SECONDS,
            limit=self.limits.max_sessions,
        )


def busy(session: Session) -> bool:
    """Whether a request or a step of the session is under way, or due."""
    return session.pins > 0 or session.stepping or session.due
