"""Which waiting requests make the next batch, and whose turn it is among tenants. Pure data, no clock of its own.

Requests run together when the same parameters answer them: everything pristine or stateless shares the frozen graph,
an adapted session has a lane of its own. Within a tenant the first request chooses the lane, so nobody starves, and
since all of a session's requests are in one lane at any moment, its answers keep their order.

Between tenants it is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a tenant's tag grows by the rows
that it was served over its weight, and who has the smallest tag is served next. A tenant that comes back from idleness
begins at the tag of whoever is served then, so that nobody saves up time, and one that left in debt still has its debt.
A batch is filled across tenants, each row charged to whose it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from acclimate.runtime.scheduler.decide import Prioritised, place


class Queued(Prioritised, Protocol):
    """A request as the queue sees it; requests of one lane can run as one batch."""

    @property
    def tenant(self) -> str:
        """Whose it is."""

    @property
    def lane(self) -> Hashable:
        """What answers it."""

    @property
    def rows(self) -> int:
        """Its samples."""


Item = TypeVar("Item", bound=Queued)


@dataclass(slots=True)
class _Tenant(Generic[Item]):
    """A tenant that has something waiting; `tag` is the virtual time, in rows, at which its next row begins."""

    weight: float
    tag: float
    queue: deque[Item] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """Requests to run now; or, if there are none, the time to look again, None where nothing waits."""

    items: list[Item]
    look_again_at: float | None = None


class FairQueue(Generic[Item]):
    """Waiting requests. `weight` tells a tenant's share among those that wait, above 0."""

    def __init__(self, weight: Callable[[str], float] = lambda _: 1.0) -> None:
        self._weight = weight
        self._tenants: dict[str, _Tenant[Item]] = {}
        self._debts: dict[str, float] = {}
        self._virtual = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        return (item for tenant in tuple(self._tenants.values()) for item in tuple(tenant.queue))

    def add(self, item: Item) -> None:
        """Queue a request: at the end of its tenant's, but before those whose priority is lower (`place`)."""
        tenant = self._tenants.get(item.tenant)
        if tenant is None:
            tag = max(self._virtual, self._debts.pop(item.tenant, 0.0))
            tenant = self._tenants[item.tenant] = _Tenant(self._weight(item.tenant), tag)
        tenant.queue.insert(place(tenant.queue, item), item)
        self._size += 1

    def take(self, now: float, *, max_rows: int, max_delay: float) -> Batch[Item]:
        """Up to `max_rows` rows of one lane, once it is full or its first request waited `max_delay` seconds.

        A single request larger than `max_rows` runs alone.
        """
        if not self._tenants:
            return Batch([])
        leader = min(self._tenants.values(), key=_tag)
        first, start = leader.queue[0], leader.tag
        chosen, rows, full = self._mates(first.lane, leader, max_rows)
        if not full and rows < max_rows and now < first.arrived + max_delay:
            return Batch([], first.arrived + max_delay)
        self._virtual = start
        items = [item for _, _, item in chosen]
        for name, tenant, item in chosen:
            tenant.tag += item.rows / tenant.weight
            self._removed(name, tenant, item)
        return Batch(items)

    def drop(self, dead: Callable[[Item], bool]) -> None:
        """Take out every request that is `dead`; nobody is charged for it."""
        for name, tenant in tuple(self._tenants.items()):
            for item in [item for item in tenant.queue if dead(item)]:
                self._removed(name, tenant, item)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._tenants.clear()
        self._size = 0

    def _mates(
        self, lane: Hashable, leader: _Tenant[Item], max_rows: int
    ) -> tuple[list[tuple[str, _Tenant[Item], Item]], int, bool]:
        """Requests of a lane, by turns of their tenants, their rows, and whether one more was there and did not fit."""
        everyone = (_Turn(name, tenant, lane, tenant is leader) for name, tenant in self._tenants.items())
        turns = [turn for turn in everyone if turn.item is not None]
        chosen: list[tuple[str, _Tenant[Item], Item]] = []
        rows = 0
        while turns and rows < max_rows:
            turn = turns[0] if len(turns) == 1 else min(turns, key=_order)
            item = turn.item
            if item is None:
                turns.remove(turn)
                continue
            if chosen and rows + item.rows > max_rows:
                return chosen, rows, True
            chosen.append((turn.name, turn.tenant, item))
            rows += item.rows
            turn.served(item.rows)
        return chosen, rows, False

    def _removed(self, name: str, tenant: _Tenant[Item], item: Item) -> None:
        if tenant.queue[0] is item:
            tenant.queue.popleft()
        else:
            tenant.queue.remove(item)
        self._size -= 1
        if not tenant.queue:
            del self._tenants[name]
            self._debts = {other: tag for other, tag in self._debts.items() if tag > self._virtual}
            if tenant.tag > self._virtual:
                self._debts[name] = tenant.tag


class _Turn(Generic[Item]):
    """A tenant while a batch is filled: its next request of the lane, and the tag at which that would be served."""

    __slots__ = ("_found", "item", "leads", "name", "tag", "tenant")

    def __init__(self, name: str, tenant: _Tenant[Item], lane: Hashable, leads: bool) -> None:
        self.name, self.tenant, self.tag, self.leads = name, tenant, tenant.tag, leads
        self._found = (item for item in tenant.queue if item.lane == lane)
        self.item: Item | None = next(self._found, None)

    def served(self, rows: int) -> None:
        """Its request was taken; on to the next."""
        self.tag += rows / self.tenant.weight
        self.item = next(self._found, None)


def _tag(tenant: _Tenant[Item]) -> float:
    return tenant.tag


def _order(turn: _Turn[Item]) -> tuple[float, bool]:
    return turn.tag, not turn.leads
