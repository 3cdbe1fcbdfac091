"""`acclimate.v1.SessionService`: sessions as resources, events and feedback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

import grpc

from acclimate.runtime.rpc import convert_export, convert_lifecycle, names
from acclimate.runtime.rpc import convert_sessions as convert
from acclimate.runtime.rpc.creating import Creations
from acclimate.runtime.rpc.replays import Replays, replayed
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.types import Event
from acclimate.v1 import session_service_pb2 as pb
from acclimate.v1 import session_service_pb2_grpc

SERVICE = "acclimate.v1.SessionService"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """One method per rpc, each a conversion around one call of the service."""

    def __init__(self, service: ServiceProtocol, creations: Creations) -> None:
        self._service = service
        self._creations = creations
        self._replays = Replays(service.lifecycle.replies, service.lifecycle.remember)

    @replayed("parent")
    async def CreateSession(  # noqa: N802
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        """Open a session."""
        view = await self._service.create_session(convert.create_session(request))
        return pb.CreateSessionResponse(session=convert.session_message(view))

    async def CreateSessions(  # noqa: N802
        self, messages: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pb.CreateSessionsResponse]:
        """Open many sessions over one stream."""
        async with aclosing(self._creations.serve(messages, partial(self.CreateSession, context=context))) as answers:
            async for answer in answers:
                yield answer

    async def GetSession(  # noqa: N802
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """Read one session."""
        view = await self._service.get_session(*names.parse_session(request.name))
        return pb.GetSessionResponse(session=convert.session_message(view))

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """Read a page of sessions."""
        model = names.parse_models(request.parent)
        every = convert.every_tenant(request)
        page = await self._service.list_sessions(
            model, request.page_size, request.page_token, request.filter, every_tenant=every
        )
        return pb.ListSessionsResponse(
            sessions=[convert.session_message(view) for view in page.sessions],
            next_page_token=page.next_page_token,
        )

    async def DeleteSession(  # noqa: N802
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        """Close and forget a session."""
        name = names.parse_session(request.name)
        await self._service.lifecycle.expect(*name, request.etag)
        await self._service.delete_session(*name)
        return pb.DeleteSessionResponse()

    async def ResetSession(  # noqa: N802
        self, request: pb.ResetSessionRequest, context: Context
    ) -> pb.ResetSessionResponse:
        """Set a session back to the source."""
        name = names.parse_session(request.name)
        await self._service.lifecycle.expect(*name, request.etag)
        view = await self._service.reset_session(*name)
        return pb.ResetSessionResponse(session=convert.session_message(view))

    async def UpdateSession(  # noqa: N802
        self, request: pb.UpdateSessionRequest, context: Context
    ) -> pb.UpdateSessionResponse:
        """Change what a session may spend and how long it lives."""
        view = await self._service.lifecycle.update(convert_lifecycle.update(request))
        return pb.UpdateSessionResponse(session=convert.session_message(view))

    async def PauseSession(  # noqa: N802
        self, request: pb.PauseSessionRequest, context: Context
    ) -> pb.PauseSessionResponse:
        """Stop a session's learning."""
        view = await self._service.lifecycle.pause(*names.parse_session(request.name), request.etag)
        return pb.PauseSessionResponse(session=convert.session_message(view))

    async def ResumeSession(  # noqa: N802
        self, request: pb.ResumeSessionRequest, context: Context
    ) -> pb.ResumeSessionResponse:
        """Let a session learn again."""
        view = await self._service.lifecycle.resume(*names.parse_session(request.name), request.etag)
        return pb.ResumeSessionResponse(session=convert.session_message(view))

    @replayed("name")
    async def ForkSession(  # noqa: N802
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        """Open a copy of a session."""
        view = await self._service.lifecycle.fork(convert_lifecycle.fork(request))
        return pb.ForkSessionResponse(session=convert.session_message(view))

    @replayed("name")
    async def SnapshotSession(  # noqa: N802
        self, request: pb.SnapshotSessionRequest, context: Context
    ) -> pb.SnapshotSessionResponse:
        """Keep what a session has learnt."""
        name, chosen = names.parse_session(request.name), None
        if request.HasField("snapshot_id"):
            chosen = request.snapshot_id
        view = await self._service.lifecycle.take_snapshot(*name, chosen, request.etag)
        return pb.SnapshotSessionResponse(snapshot=convert_lifecycle.snapshot_message(view))

    async def GetSnapshot(  # noqa: N802
        self, request: pb.GetSnapshotRequest, context: Context
    ) -> pb.GetSnapshotResponse:
        """Read one snapshot."""
        view = await self._service.lifecycle.get_snapshot(*names.parse_snapshot(request.name))
        return pb.GetSnapshotResponse(snapshot=convert_lifecycle.snapshot_message(view))

    async def ListSnapshots(  # noqa: N802
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        """Read a page of a session's snapshots."""
        name = names.parse_session(request.parent, "parent")
        page = await self._service.lifecycle.list_snapshots(*name, request.page_size, request.page_token)
        return pb.ListSnapshotsResponse(
            snapshots=[convert_lifecycle.snapshot_message(view) for view in page.snapshots],
            next_page_token=page.next_page_token,
        )

    async def DeleteSnapshot(  # noqa: N802
        self, request: pb.DeleteSnapshotRequest, context: Context
    ) -> pb.DeleteSnapshotResponse:
        """Forget a snapshot."""
        await self._service.lifecycle.delete_snapshot(*names.parse_snapshot(request.name))
        return pb.DeleteSnapshotResponse()

    async def RestoreSession(  # noqa: N802
        self, request: pb.RestoreSessionRequest, context: Context
    ) -> pb.RestoreSessionResponse:
        """Bring a snapshot back."""
        view = await self._service.lifecycle.restore(*names.parse_snapshot(request.name), request.etag)
        return pb.RestoreSessionResponse(session=convert.session_message(view))

    async def ExportSession(  # noqa: N802
        self, request: pb.ExportSessionRequest, context: Context
    ) -> pb.ExportSessionResponse:
        """Read what a session has learnt."""
        return convert_export.response(await self._service.export_session(*names.parse_session(request.name)))

    async def WatchSessions(  # noqa: N802
        self, request: pb.WatchSessionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionsResponse]:
        """Stream events until the client leaves or the daemon drains."""
        kinds = convert_lifecycle.kinds(request.kinds)
        events = self._service.watch(*_watched(request.name), kinds, request.resume_token)
        upcoming = asyncio.ensure_future(anext(events, None))
        try:
            # The first wait lets the service subscribe (or refuse) before headers promise that it has.
            await asyncio.wait((upcoming,), timeout=0)
            if not upcoming.done():
                await context.send_initial_metadata(())
            while (event := await upcoming) is not None:
                yield pb.WatchSessionsResponse(
                    event=convert.event_message(event), resume_token=event.token, missed=event.missed
                )
                upcoming = asyncio.ensure_future(anext(events, None))
        finally:
            await _ended(upcoming, events)

    @replayed("name")
    async def SendFeedback(  # noqa: N802
        self, request: pb.SendFeedbackRequest, context: Context
    ) -> pb.SendFeedbackResponse:
        """Count true labels."""
        model, session_id = names.parse_session(request.name)
        result = await self._service.feedback(model, session_id, convert.feedback(request))
        return pb.SendFeedbackResponse(
            accepted=result.accepted, correct=result.correct, unknown_request_ids=result.unknown_ids
        )


def register(server: grpc.aio.Server, servicer: SessionServicer) -> None:
    """Serve it."""
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)


def _watched(name: str) -> tuple[str | None, str | None]:
    if name.count("/") > 1:
        return names.parse_session(name)
    return names.parse_models(name, "name"), None


async def _ended(upcoming: asyncio.Future[Event | None], events: AsyncIterator[Event]) -> None:
    """Stop waiting for the next event, then close the iterator if it can be closed."""
    upcoming.cancel()
    await asyncio.gather(upcoming, return_exceptions=True)
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
