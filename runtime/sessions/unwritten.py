"""The books of a journal: which sessions wait to be written, for how long, and how many commits that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice

from acclimate.runtime.sessions.session import Session, SessionKey


@dataclass(slots=True)
class Entry:
    """A session to be written: commits since it was, and since when it waits, monotonic seconds."""

    session: Session
    commits: int
    since: float


@dataclass(frozen=True, slots=True)
class Giving:
    """A record to be deleted or let go of: the epoch it is owned under, and since when it waits, monotonic seconds."""

    epoch: int
    since: float


@dataclass(slots=True)
class Unwritten:
    """What waits, oldest first.

    Attributes:
        committed, touched: sessions that have changed by a commit, or by their counters alone.
        deletions, released: records to be deleted, and those that nobody here needs any more, by their epoch.
        urgent: keys that somebody waits for.
        commits: commits and deletions.
    """

    committed: dict[SessionKey, Entry] = field(default_factory=dict)
    touched: dict[SessionKey, Entry] = field(default_factory=dict)
    deletions: dict[SessionKey, Giving] = field(default_factory=dict)
    released: dict[SessionKey, Giving] = field(default_factory=dict)
    urgent: set[SessionKey] = field(default_factory=set)
    commits: int = 0

    @property
    def entries(self) -> dict[SessionKey, Entry]:
        """Every session to be written."""
        return self.committed | self.touched

    @property
    def oldest(self) -> float:
        """Since when the oldest commit or deletion waits; infinite if there is none."""
        return min(_first(self.committed), _first(self.deletions))

    @property
    def oldest_released(self) -> float:
        """Since when the oldest record waits to be let go of; infinite if there is none."""
        return _first(self.released)

    @property
    def oldest_touched(self) -> float:
        """Since when the oldest change of counters alone waits; infinite if there is none."""
        return _first(self.touched)

    def __bool__(self) -> bool:
        return bool(self.committed or self.touched or self.deletions or self.released)

    def __contains__(self, key: SessionKey) -> bool:
        return key in self.committed or key in self.touched or key in self.deletions

    def changed(self, session: Session, commit: bool, now: float) -> bool:
        """A session has changed; whether that may make a write due sooner."""
        entry = self.committed.get(session.key)
        if entry is not None:
            entry.commits += commit
            self.commits += commit
            return commit
        if commit:
            self.touched.pop(session.key, None)
            self.committed[session.key] = Entry(session, 1, now)
            self.commits += 1
            return True
        if session.key not in self.touched:
            self.touched[session.key] = Entry(session, 0, now)
            return len(self.touched) == 1
        return False

    def forget(self, key: SessionKey) -> None:
        """The session is closed, whatever has become of it."""
        self.touched.pop(key, None)
        self.urgent.discard(key)
        entry = self.committed.pop(key, None)
        self.commits -= 0 if entry is None else entry.commits

    def deleted(self, key: SessionKey, epoch: int, now: float) -> None:
        """Its record has to go."""
        self.deletions[key] = Giving(epoch, now)
        self.commits += 1

    def release(self, key: SessionKey, epoch: int, now: float) -> None:
        """Its record is not needed here."""
        self.released[key] = Giving(epoch, now)

    def hurry_all(self) -> None:
        """Everything is urgent."""
        self.urgent |= self.committed.keys() | self.touched.keys()

    def take(self, limit: int, late: float) -> Unwritten:
        """Remove what the next transaction writes: at most `limit` sessions, the urgent first.

        Those whose counters alone have changed are taken if they are urgent or wait since `late`.
        """
        keys = list(islice((key for key in self.urgent if key in self.committed or key in self.touched), limit))
        keys += list(islice((key for key in self.committed if key not in self.urgent), limit - len(keys)))
        for key, entry in self.touched.items():
            if len(keys) >= limit or entry.since > late:
                break
            if key not in self.urgent:
                keys.append(key)
        taken = Unwritten(deletions=self.deletions, released=self.released)
        self.deletions, self.released = {}, {}
        for key in keys:
            if key in self.committed:
                taken.committed[key] = self.committed.pop(key)
            else:
                taken.touched[key] = self.touched.pop(key)
        taken.commits = sum(entry.commits for entry in taken.committed.values()) + len(taken.deletions)
        self.commits -= taken.commits
        self.urgent &= self.committed.keys() | self.touched.keys()
        return taken

    def put_back(self, taken: Unwritten) -> None:
        """A transaction failed: what it took waits again, in front, and for as long as it did before."""
        alive = [entry for entry in taken.entries.values() if entry.session.open]
        for entry in alive:
            newer = self.committed.pop(entry.session.key, None) or self.touched.pop(entry.session.key, None)
            entry.commits += 0 if newer is None else newer.commits
        self.committed = {e.session.key: e for e in alive if e.commits} | self.committed
        self.touched = {e.session.key: e for e in alive if not e.commits} | self.touched
        # Nothing was deleted, so an epoch that was known before is the one that still holds.
        later = {key: deletion for key, deletion in self.deletions.items() if key not in taken.deletions}
        self.deletions = taken.deletions | later
        self.released = taken.released | self.released
        self.commits = sum(entry.commits for entry in self.committed.values()) + len(self.deletions)


def _first(waiting: dict[SessionKey, Entry] | dict[SessionKey, Giving]) -> float:
    return next((entry.since for entry in waiting.values()), math.inf)
