"""Whether a request is taken at all, decided before its message is decoded: by how long it would have to wait.

What is under way takes `requests under way x seconds per answer` to work off (Little's law); the seconds per answer are
measured over windows of a twentieth of a second, and hold everything: the engine, the event loop, learning. While the
daemon keeps up, that wait may be long, since bursts pass (`patience`). Once more comes than is answered for two windows
on end, the queue would stand for ever, as in Nichols and Jacobson's "Controlling queue delay" (2012): then a request
may wait no longer than about one and a half times what computing it takes, and what has waited much longer is given up.
docs/decisions/0013-refusing-before-reading.md argues this.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import ResourceExhausted

WINDOW_SECONDS, WINDOW_ANSWERS, LONGEST_WINDOW_SECONDS = 0.05, 8, 1.0
# More of what came in a window than this multiple of what was answered, and this many besides, is too much.
EXCESS, SLACK = 1.5, 4
# Under overload a request may wait this many times its own computing.
WAITS = 1.5
# While the daemon keeps up, as many are taken whatever they may have to wait: clients that each send one at a time.
LEAST = 64
# What has waited this many times longer than it may is given up while too much comes.
STALE = 4.0
KEPT = 0.7
RETRY_SECONDS = 0.1
# For so long the same refusal is given to everybody.
SAID_SECONDS = 0.02


class Refused(StrEnum):
    """Why there was no room for a request."""

    OVERLOAD = "overload"
    """More comes than can be answered."""
    PATIENCE = "patience"
    """It would have waited too long, though the daemon keeps up."""
    STALE = "stale"
    """It had waited in the queue when too much came, and was given up."""
    QUEUE = "queue_full"
    """As many wait as may."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How long a request may be expected to wait, seconds.

    Attributes:
        patience: while the daemon keeps up; 0: for ever, and nothing is refused here.
        overload_wait: while it does not, at least; more where computing a request takes longer.
    """

    patience: float
    overload_wait: float


@dataclass(frozen=True, slots=True)
class AdmissionSnapshot:
    """Figures for metrics: requests under way, seconds one more would wait, whether too much comes, and refusals."""

    under_way: int = 0
    expected_wait: float = 0.0
    overloaded: bool = False
    refused: Mapping[str, int] = field(default_factory=dict)


class Pass:
    """One request that was taken; given back once, whoever does it first."""

    __slots__ = ("_admission", "_tenant")

    def __init__(self, admission: Admission, tenant: str) -> None:
        self._admission: Admission | None = admission
        self._tenant = tenant

    def back(self) -> None:
        """It is answered, or waits for something else than an answer."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left(self._tenant)


_held: ContextVar[Pass | None] = ContextVar("pass", default=None)


def step_aside() -> None:
    """The request under way waits for learning, or for its reader: it is not what others wait for."""
    held = _held.get()
    if held is not None:
        held.back()


class Admission:
    """Counts what is under way. Touched on the event loop's thread only; `snapshot` is safe from any.

    Args:
        limits: how long a request may wait.
        clock: the time.
        weight: a tenant's share of the room among those that have requests under way, above 0.
    """

    def __init__(self, limits: AdmissionLimits, clock: Clock, weight: Callable[[str], float] = lambda _: 1.0) -> None:
        self._limits = limits
        self._clock = clock
        self._weight = weight
        self._under_way: Counter[str] = Counter()
        self._total = 0
        self._pace = self._computing = 0.0
        self._window = self._busy_since = clock.monotonic()
        self._busy = 0.0
        self._offered = self._answered = self._excesses = 0
        self._saying: tuple[float, ResourceExhausted] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refused: Counter[Refused] = Counter(dict.fromkeys(Refused, 0))

    def refuses(self, tenant: str) -> ResourceExhausted | None:
        """Why a request of a tenant would not be taken now, asked before its message is read; None if it would.

        For a few milliseconds everybody gets the same error, since putting it into words for gRPC costs more than all
        the rest of refusing.
        """
        now = self._clock.monotonic()
        self._turn(now)
        if not self._full(tenant):
            return None
        self._offered += 1
        refusal = self._refusal(Refused.OVERLOAD if self.overloaded else Refused.PATIENCE)
        if self._saying is None or now >= self._saying[0] + SAID_SECONDS:
            self._saying = now, refusal
        return self._saying[1]

    def enter(self, tenant: str) -> Pass:
        """Take one more request of a tenant.

        Raises:
            ResourceExhausted: it would wait too long; the error says when to try again.
        """
        self._offered += 1
        now = self._clock.monotonic()
        self._turn(now)
        if self._full(tenant):
            raise self._refusal(Refused.OVERLOAD if self.overloaded else Refused.PATIENCE)
        return self._taken(tenant, now)

    async def wait(self, tenant: str) -> Pass:
        """Take one more request once there is room: for messages of a stream, which the client waits with."""
        self._offered += 1
        while self._full(tenant):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise
        now = self._clock.monotonic()
        self._turn(now)
        held = self._taken(tenant, now)
        # There may be room for more than one.
        self._wake()
        return held

    def left(self, tenant: str) -> None:
        """A request was answered or failed; see `Pass.back`."""
        now = self._clock.monotonic()
        self._answered += 1
        self._total -= 1
        self._under_way[tenant] -= 1
        if not self._under_way[tenant]:
            del self._under_way[tenant]
        if not self._total:
            self._busy += now - self._busy_since
        self._turn(now)
        self._wake()

    def computed(self, seconds: float, requests: int) -> None:
        """A batch of so many requests took the engine so long."""
        each = seconds / requests
        self._computing = each if not self._computing else KEPT * self._computing + (1 - KEPT) * each

    def refused(self, why: Refused) -> None:
        """Count the refusal of a request that had been taken: it will leave, and is no answer."""
        self._refused[why] += 1
        self._answered -= 1

    def given_up(self) -> ResourceExhausted:
        """The refusal of a request that waited in the queue for longer than `stale_seconds`."""
        # Otherwise a queue that is given up would look like a daemon that keeps up.
        self._answered -= 1
        return self._refusal(Refused.STALE)

    @property
    def overloaded(self) -> bool:
        """Whether more comes than can be answered."""
        return self._excesses > 1 and self._limits.patience > 0

    @property
    def stale_seconds(self) -> float | None:
        """How long a request may have waited in the queue before it is given up; None: for ever."""
        return STALE * self._bearable if self.overloaded else None

    @property
    def under_way(self) -> int:
        """Requests that were taken and are not answered."""
        return self._total

    @property
    def expected_wait(self) -> float:
        """Seconds that a request taken now would wait."""
        return self._total * self._pace

    def snapshot(self) -> AdmissionSnapshot:
        """Figures for metrics."""
        return AdmissionSnapshot(
            self._total, self.expected_wait, self.overloaded, {why.value: count for why, count in self._refused.items()}
        )

    @property
    def _bearable(self) -> float:
        """Seconds that a request may wait under overload."""
        return max(self._limits.overload_wait, WAITS * self._computing)

    def _full(self, tenant: str) -> bool:
        """Whether a tenant's next request would wait too long; its fair share of the room is always its own."""
        if not self._limits.patience or not self._pace:
            return False
        if self.overloaded:
            room = self._bearable / self._pace
        else:
            room = max(float(LEAST - 1), self._limits.patience / self._pace)
        if self._total <= room:
            return False
        own, weight = self._under_way[tenant], self._weight(tenant)
        others = sum(self._weight(other) for other in self._under_way if other != tenant)
        # With less than two, one that sends at random would often be refused for coming twice in a row.
        return own > max(1.0, room * weight / (weight + others)) or not others

    def _taken(self, tenant: str, now: float) -> Pass:
        if not self._total:
            self._busy_since = now
        self._total += 1
        self._under_way[tenant] += 1
        held = Pass(self, tenant)
        _held.set(held)
        return held

    def _wake(self) -> None:
        """Let the first of those that wait look again."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _turn(self, now: float) -> None:
        """Close the window if it is full, and learn from it how fast answers are and whether too much comes."""
        age = now - self._window
        if age < WINDOW_SECONDS or (self._answered < WINDOW_ANSWERS and age < LONGEST_WINDOW_SECONDS):
            return
        if self._total:
            self._busy += now - self._busy_since
            self._busy_since = now
        if self._answered > 0 and self._busy > 0:
            pace = self._busy / self._answered
            self._pace = pace if not self._pace else KEPT * self._pace + (1 - KEPT) * pace
        excess = self._offered > EXCESS * max(0, self._answered) + SLACK
        self._excesses = self._excesses + 1 if excess else 0
        self._window, self._busy = now, 0.0
        self._offered = self._answered = 0

    def _refusal(self, why: Refused) -> ResourceExhausted:
        self._refused[why] += 1
        return ResourceExhausted(
            "OVERLOADED",
            f"{self._total} requests are under way and one more would wait {1e3 * self.expected_wait:.0f} ms; send "
            "fewer, or try again later",
            retry_after_seconds=max(RETRY_SECONDS, 2 * self.expected_wait),
        )
