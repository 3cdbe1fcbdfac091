"""The tasks behind a service: they predict, learn, sweep and write, from its start until it has drained."""

from __future__ import annotations

import asyncio

from acclimate.runtime.parts import Parts
from acclimate.runtime.sessions import shelving


class Work:
    """The tasks of one service; touched on the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._serving: list[asyncio.Task[None]] = []
        self._keeping: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; must be called on the running event loop."""
        self._serving = [asyncio.create_task(self._parts.predictor.run(), name="predictor")]
        if not self._parts.synchronous:
            self._serving.append(asyncio.create_task(self._parts.learner.run(), name="learner"))
        self._keeping = [asyncio.create_task(shelving.sweep_often(self._parts.residency), name="sweeper")]
        if self._parts.residency.journal is not None:
            self._keeping.append(asyncio.create_task(self._parts.residency.journal.run(), name="journal"))

    async def drain(self, grace_seconds: float) -> None:
        """Answer what is queued, let the step under way finish, store all, end every watch, close the engines."""
        self._parts.residency.drain()
        self._parts.repository.close()
        self._parts.predictor.close()
        self._parts.learner.close()
        await self._parts.generating.drain(grace_seconds)
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for worker in (self._parts.predictor, self._parts.learner, self._parts.seeder, self._parts.shadow):
            worker.release()
        await self._parts.residency.close(self._keeping)
        self._parts.hub.close()
        for engine in self._parts.engines.values():
            engine.close()
