"""From the HTTP port's loop to the service's: every call is admitted as an rpc, and runs where the service does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers

from acclimate.runtime.errors import DeadlineExceeded, Unavailable
from acclimate.runtime.security import access
from acclimate.runtime.security.caller import Caller, enter
from acclimate.runtime.security.guard import AUTHORIZATION, TENANT_KEY, Guard
from acclimate.runtime.service_protocol import ServiceProtocol

T = TypeVar("T")
TIMEOUT_SECONDS = 30.0

LOOK = access.SERVER + "GetServerInfo"
LIST = access.SESSIONS + "ListSessions"
GET = access.SESSIONS + "GetSession"
WATCH = access.SESSIONS + "WatchSessions"
WHOLE = access.OIP + "ModelStatistics"
ACTIONS = {
    "pause": access.SESSIONS + "PauseSession",
    "resume": access.SESSIONS + "ResumeSession",
    "reset": access.SESSIONS + "ResetSession",
    "snapshot": access.SESSIONS + "SnapshotSession",
    "restore": access.SESSIONS + "RestoreSession",
}
"""What can be done to a session, and the rpc that does the same."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Where the service runs, and who may call it."""

    service: ServiceProtocol
    guard: Guard
    loop: asyncio.AbstractEventLoop

    async def call(self, rpc: str, headers: Headers, work: Callable[[Caller], Awaitable[T]]) -> T:
        """Do something on the service's loop, as the caller that the headers name.

        Args:
            rpc: `/package.Service/Method`; who may call it may do this.
            headers: of the request: `Authorization`, and `Acclimate-Tenant`.
            work: what to do; `current()` is the caller in it.

        Raises:
            AcclimateError: whatever `Guard.admit` or the work refuses; Unavailable: the daemon is ending.
        """
        shown = metadata(headers)

        async def there() -> T:
            self.guard.check(shown)
            caller = self.guard.admit(rpc, shown)
            enter(caller)
            return await work(caller)

        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self.over(there)
        except TimeoutError as error:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the daemon did not get to it in time; try again") from error

    async def over(self, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a coroutine function on the service's loop.

        Raises:
            Unavailable: the loop is there no more.
        """
        begun = work()
        try:
            future = asyncio.run_coroutine_threadsafe(begun, self.loop)
        except RuntimeError as error:
            begun.close()
            raise Unavailable("DRAINING", "the daemon is ending", retry_after_seconds=1.0) from error
        return await asyncio.wrap_future(future)

    def may(self, caller: Caller) -> list[str]:
        """What the caller may do to sessions."""
        return [name for name, rpc in ACTIONS.items() if not self.guard.closed or access.allowed(rpc, caller.role)]

    def sees_all(self, caller: Caller) -> bool:
        """Whether the caller may read what a model does for all tenants together."""
        return not self.guard.closed or access.allowed(WHOLE, caller.role)


def metadata(headers: Headers) -> tuple[tuple[str, str], ...]:
    """The headers that say who calls, as an rpc's metadata."""
    return tuple((key, value) for key, value in headers.items() if key in (AUTHORIZATION, TENANT_KEY))
