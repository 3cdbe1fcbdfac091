"""The page's API: who may see what, and what is done to sessions. docs/web.md describes it for other users."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from acclimate.runtime.config import Config
from acclimate.runtime.errors import AcclimateError, NotFound, ResourceExhausted
from acclimate.runtime.event_types import NEWS
from acclimate.runtime.ranking import Sort, matching, ranked
from acclimate.runtime.security.caller import Caller, Role
from acclimate.runtime.types import ServiceSnapshot
from acclimate.runtime.web import bridge as rpcs
from acclimate.runtime.web import documents
from acclimate.runtime.web.bridge import Bridge
from acclimate.runtime.web.figures import figures_of
from acclimate.runtime.web.history import History
from acclimate.runtime.web.query import choice, number, ticked
from acclimate.runtime.web.refusals import refusal
from acclimate.runtime.web.streams import Feed, Ticks, stream

PAGE_SIZE, MAX_PAGE_SIZE = 25, 200
RECENT, MAX_RECENT = 50, 500
MAX_STREAMS = 64
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def told(handler: Callable[[Any, Request], Awaitable[Response]]) -> Callable[[Any, Request], Awaitable[Response]]:
    """A handler whose refusals are answered."""

    @wraps(handler)
    async def answered(self: Api, request: Request) -> Response:
        try:
            return await handler(self, request)
        except AcclimateError as error:
            return refusal(error)

    return answered


class Api:
    """The handlers; they run on the port's own loop, and cross the bridge for all that concerns sessions."""

    def __init__(self, bridge: Bridge, history: History, config: Config, version: str, ending: threading.Event) -> None:
        self._bridge = bridge
        self._history = history
        self._config = config
        self._version = version
        self._ending = ending
        self._ticks = Ticks()
        self._streams = 0

    def routes(self) -> list[Route]:
        """Everything below `/api`."""
        session = "/models/{model}/sessions/{session}"
        return [
            Route("/status", self.status),
            Route("/models", self.models),
            Route("/models/{model}/history", self.model_history),
            Route("/sessions", self.sessions),
            Route(session, self.session),
            Route(session + "/history", self.session_history),
            Route(session + "/snapshots/{snapshot}/restore", self.act, methods=["POST"]),
            Route(session + "/{action}", self.act, methods=["POST"]),
            Route("/recent", self.recent),
            Route("/events", self.events),
        ]

    def sampled(self) -> None:
        """There is a new point in the history; on the port's loop."""
        self._ticks.tick()

    @told
    async def status(self, request: Request) -> Response:
        """The daemon, and who asks."""
        service = self._bridge.service

        async def look(caller: Caller) -> tuple[Caller, list[str]]:
            return caller, [manifest.name for manifest in service.models()]

        caller, models = await self._bridge.call(rpcs.LOOK, request.headers, look)
        whole = self._bridge.sees_all(caller)
        snapshot = await self._latest()
        own = await asyncio.to_thread(self._own, caller, None, "")
        budget = self._config.budget.process_refill_ms_per_s
        return documents.answer(
            documents.Status(
                version=self._version,
                ready=service.ready,
                draining=snapshot.draining,
                started_at=snapshot.started_at,
                at=time.time(),
                # What the process has to do tells of other tenants.
                queue_depth=snapshot.queue_depth if whole else 0,
                sessions=sum(sum(model.sessions.values()) for model in snapshot.models) if whole else len(own),
                stored_sessions=snapshot.store.sessions if whole else 0,
                sample_seconds=self._config.web.sample_seconds,
                budget_ms_per_s=budget,
                closed=self._bridge.guard.closed,
                role=caller.role.value if self._bridge.guard.closed else Role.ADMIN.value,
                tenant=caller.tenant,
                may=self._bridge.may(caller),
                models=models,
            )
        )

    @told
    async def models(self, request: Request) -> Response:
        """Figures of every model."""
        caller = await self._bridge.call(rpcs.LOOK, request.headers, _who)
        return documents.answer(await self._models(caller))

    @told
    async def model_history(self, request: Request) -> Response:
        """Points of a model, of all tenants together."""
        model = request.path_params["model"]

        async def served(_: Caller) -> None:
            self._bridge.service.model(model)

        await self._bridge.call(rpcs.WHOLE, request.headers, served)
        return documents.answer(documents.Points(*self._history.model_points(model, number(request, "after", 0.0))))

    @told
    async def sessions(self, request: Request) -> Response:
        """A page of the caller's sessions in memory, the worst first."""
        sort = choice(request, "sort", Sort, Sort.DRIFT)
        size = int(number(request, "page_size", PAGE_SIZE, 1, MAX_PAGE_SIZE))
        page = int(number(request, "page", 1, 1))
        model, search = request.query_params.get("model") or None, request.query_params.get("search", "")
        caller = await self._bridge.call(rpcs.LIST, request.headers, _who)
        found = await asyncio.to_thread(lambda: ranked(self._own(caller, model, search), sort))
        pages = max(1, -(-len(found) // size))
        page = min(page, pages)
        rows = [
            documents.row(seen, self._history.outline((seen.tenant, seen.model, seen.session_id)))
            for seen in found[(page - 1) * size : page * size]
        ]
        return documents.answer(documents.SessionList(rows, len(found), page, pages))

    @told
    async def session(self, request: Request) -> Response:
        """One session. Looking does not count as using, unless it has to return to memory for it (`wake=1`)."""
        return documents.answer(await self._detail(request, rpcs.GET, wake=ticked(request, "wake")))

    @told
    async def session_history(self, request: Request) -> Response:
        """Points of a session, if any are kept; from now on they are, as long as somebody asks."""
        model, session_id = _named(request)
        after = number(request, "after", 0.0)

        async def look(caller: Caller) -> Caller:
            if self._bridge.service.sight.peek(model, session_id) is None:
                raise _not_here(model, session_id)
            return caller

        caller = await self._bridge.call(rpcs.GET, request.headers, look)
        key = (caller.tenant, model, session_id)
        self._history.look_at(key)
        return documents.answer(documents.Points(*self._history.session_points(key, after)))

    @told
    async def act(self, request: Request) -> Response:
        """Pause, resume, reset, snapshot or restore a session; `If-Match` names the etag that it must have."""
        action = request.path_params.get("action", "restore")
        if action not in rpcs.ACTIONS or ("snapshot" in request.path_params) != (action == "restore"):
            raise NotFound(
                "ACTION_UNKNOWN",
                f"a session cannot be asked to {action[:40]!r}; it can to pause, resume, reset and snapshot, and its "
                "snapshots to restore",
                action=action[:40],
            )
        return documents.answer(await self._detail(request, rpcs.ACTIONS[action], action))

    @told
    async def recent(self, request: Request) -> Response:
        """The latest events but steps."""
        count = int(number(request, "count", RECENT, 1, MAX_RECENT))
        model, session_id = (request.query_params.get(name) or None for name in ("model", "session"))
        caller = await self._bridge.call(rpcs.WATCH, request.headers, _who)
        found = self._history.recent(caller.tenant, model, session_id, count)
        return documents.answer(documents.EventList([documents.event(event) for event in found]))

    @told
    async def events(self, request: Request) -> Response:
        """A stream of events; with a session its steps too, without one only what is not a step."""
        model, session_id = (request.query_params.get(name) or None for name in ("model", "session"))
        if self._streams >= MAX_STREAMS:
            raise ResourceExhausted(
                "STREAMS_FULL",
                f"{MAX_STREAMS} pages are being kept up to date, as many as may be; close one",
                retry_after_seconds=5.0,
            )

        async def watch(caller: Caller) -> tuple[Caller, Feed]:
            return caller, Feed(self._bridge.service.watch(model, session_id, () if session_id else NEWS))

        caller, feed = await self._bridge.call(rpcs.WATCH, request.headers, watch)
        return StreamingResponse(
            self._counted(caller, feed, rpcs.metadata(request.headers)),
            media_type="text/event-stream",
            headers=documents.NO_STORE | {"X-Accel-Buffering": "no"},
        )

    async def _counted(self, caller: Caller, feed: Feed, shown: tuple[tuple[str, str], ...]) -> Any:
        async def sample() -> dict[str, Any]:
            return asdict(await self._models(caller))

        async def stands() -> None:
            self._bridge.guard.stands(shown)

        self._streams += 1
        try:
            async for message in stream(
                self._bridge, feed, self._ticks, self._ending, sample, lambda: self._bridge.over(stands)
            ):
                yield message
        finally:
            self._streams -= 1

    async def _models(self, caller: Caller) -> documents.ModelList:
        snapshot, whole = await self._latest(), self._bridge.sees_all(caller)
        own = [] if whole else await asyncio.to_thread(self._own, caller, None, "")
        last = {model.model: self._history.last_entropy(model.model) for model in snapshot.models}
        return documents.ModelList(time.time(), figures_of(snapshot, last, None if whole else own))

    async def _detail(
        self, request: Request, rpc: str, action: str | None = None, *, wake: bool = False
    ) -> documents.SessionDetail:
        """What is shown of a session, after an action if there is one."""
        name, service = _named(request), self._bridge.service

        async def look(caller: Caller) -> documents.SessionDetail:
            if action is not None:
                await self._do(name, action, request)
            view = service.sight.peek(*name)
            if view is None and wake:
                view = await service.get_session(*name)
            if view is None:
                raise _not_here(*name)
            self._history.look_at((caller.tenant, *name))
            news = self._history.recent(caller.tenant, *name, RECENT)
            snapshots = service.sight.snapshots(*name)
            return documents.SessionDetail(documents.session(view), snapshots, [documents.event(one) for one in news])

        return await self._bridge.call(rpc, request.headers, look)

    async def _do(self, name: tuple[str, str], action: str, request: Request) -> None:
        service, etag = self._bridge.service, request.headers.get("if-match", "")
        if action == "reset":
            await service.lifecycle.expect(*name, etag)
            await service.reset_session(*name)
        elif action == "pause":
            await service.lifecycle.pause(*name, etag)
        elif action == "resume":
            await service.lifecycle.resume(*name, etag)
        elif action == "snapshot":
            await service.lifecycle.take_snapshot(*name, None, etag)
        else:
            await service.lifecycle.restore(*name, request.path_params["snapshot"], etag)

    async def _latest(self) -> ServiceSnapshot:
        latest = self._history.latest
        return await asyncio.to_thread(self._bridge.service.snapshot) if latest is None else latest

    def _own(self, caller: Caller, model: str | None, search: str) -> list[Any]:
        return matching(self._history.glances(), caller.tenant, model, search)


async def _who(caller: Caller) -> Caller:
    return caller


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params["session"]


def _not_here(model: str, session_id: str) -> NotFound:
    return NotFound(
        "SESSION_NOT_IN_MEMORY",
        f"session {session_id[:140]!r} of model {model[:140]!r} is not in memory; wake=1 fetches it if it is stored",
        model=model[:140],
        session=session_id[:140],
    )
