"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client import channel as channels
from acclimate.runtime.client import messages
from acclimate.runtime.client.errors import ClientError, client_error
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.client.secure import Tls, open_channel
from acclimate.runtime.rpc import convert_export, convert_sessions, names
from acclimate.runtime.types import Budget, Event, ExportedSession, Feedback, FeedbackResult, Scalar, Seed, SessionView
from acclimate.v1 import server_service_pb2, server_service_pb2_grpc, session_service_pb2_grpc
from acclimate.v1 import session_service_pb2 as pb

POLL_SECONDS = 0.05


class Client:
    """One connection to a daemon; safe to use from several threads. Every call raises `ClientError`.

    Args:
        target: `host:port` of the daemon's gRPC port.
        timeout_seconds: deadline of every call but `watch`.
        max_message_bytes: largest request or reply; the daemon has a limit of its own.
        token: bearer token, sent with every call.
        tls: True for TLS with the authorities that gRPC trusts, or a `Tls` that says more.
        tenant: whose sessions an administrator's or operator's token is used for.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8001",
        *,
        timeout_seconds: float = channels.DEFAULT_TIMEOUT_SECONDS,
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        token: str | None = None,
        tls: bool | Tls = False,
        tenant: str | None = None,
    ) -> None:
        self._timeout = timeout_seconds
        self._channel = open_channel(grpc, target, channels.options(max_message_bytes), token, tls, tenant)
        self._inference = channels.InferenceStub(self._channel)
        self._sessions = session_service_pb2_grpc.SessionServiceStub(self._channel)
        self._server = server_service_pb2_grpc.ServerServiceStub(self._channel)
        self._models: dict[str, ModelInfo] = {}

    @classmethod
    def connect(cls, target: str, **options: Any) -> Self:
        """A client for `target`; the connection is made with the first call."""
        return cls(target, **options)

    def close(self) -> None:
        """Give the connection up; calls under way fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_until_ready(self, timeout_seconds: float = 30.0) -> None:
        """Return once the daemon accepts work; DEADLINE_EXCEEDED if it does not in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            reply = _call(self._inference.ServerReady, oip.ServerReadyRequest(), left, wait_for_ready=True)
            if reply.ready:
                return
            time.sleep(min(POLL_SECONDS, left))

    def server_info(self) -> ServerInfo:
        """The daemon: version, process, limits, recipes, models."""
        request = server_service_pb2.GetServerInfoRequest()
        return messages.server_info(_call(self._server.GetServerInfo, request, self._timeout))

    def model(self, name: str) -> ModelInfo:
        """One served model; asked for once and then remembered."""
        if name not in self._models:
            request = oip.ModelMetadataRequest(name=name)
            self._models[name] = messages.model_info(_call(self._inference.ModelMetadata, request, self._timeout))
        return self._models[name]

    def models(self) -> tuple[ModelInfo, ...]:
        """Every served model, by name."""
        return tuple(self.model(name) for name in self.server_info().models)

    def predict(
        self,
        model: str,
        array: ArrayLike,
        *,
        parameters: Mapping[str, Scalar] | None = None,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Answer samples `[B, ...]` (or one without B); stateless unless `parameters` name a sequence."""
        request = messages.infer_request(self.model(model), array, parameters or {}, request_id)
        timeout = self._timeout if timeout_seconds is None else timeout_seconds
        return messages.prediction(_call(self._inference.ModelInfer, request, timeout))

    def create_session(
        self,
        model: str,
        session_id: str | None = None,
        *,
        recipe: str | None = None,
        recipe_parameters: Mapping[str, float] | None = None,
        budget: Budget | None = None,
        seed: Seed | None = None,
    ) -> Session:
        """Open a session, at the source or at a seed (`read_seed`); what else is None is the daemon's choice."""
        request = messages.create_request(model, session_id, recipe, recipe_parameters, budget, seed)
        reply = _call(self._sessions.CreateSession, request, self._timeout)
        return self.session(*names.parse_session(reply.session.name))

    def session(self, model: str, session_id: str) -> Session:
        """A handle on a session that exists; nothing is asked of the daemon."""
        return Session(self, model, session_id)

    def list_sessions(self, model: str | None = None, *, page_size: int = 0) -> Iterator[SessionView]:
        """Every session, of one model or of all, fetched page by page."""
        parent = names.model_name(names.ANY if model is None else model)
        token = ""
        while True:
            request = pb.ListSessionsRequest(parent=parent, page_size=page_size, page_token=token)
            page = _call(self._sessions.ListSessions, request, self._timeout)
            yield from (convert_sessions.session_view(message) for message in page.sessions)
            token = page.next_page_token
            if not token:
                return

    def get_session(self, model: str, session_id: str) -> SessionView:
        """One session as it stands."""
        request = pb.GetSessionRequest(name=names.session_name(model, session_id))
        reply = _call(self._sessions.GetSession, request, self._timeout)
        return convert_sessions.session_view(reply.session)

    def reset_session(self, model: str, session_id: str) -> SessionView:
        """Set a session back to the source."""
        request = pb.ResetSessionRequest(name=names.session_name(model, session_id))
        reply = _call(self._sessions.ResetSession, request, self._timeout)
        return convert_sessions.session_view(reply.session)

    def export_session(self, model: str, session_id: str) -> ExportedSession:
        """What a session has learnt: parameters and statistics by name."""
        request = pb.ExportSessionRequest(name=names.session_name(model, session_id))
        return convert_export.exported_session(_call(self._sessions.ExportSession, request, self._timeout))

    def delete_session(self, model: str, session_id: str) -> None:
        """Close and forget a session."""
        request = pb.DeleteSessionRequest(name=names.session_name(model, session_id))
        _call(self._sessions.DeleteSession, request, self._timeout)

    def feedback(self, model: str, session_id: str, labels: Iterable[Feedback]) -> FeedbackResult:
        """Tell true labels of earlier answers."""
        request = messages.feedback_request(model, session_id, tuple(labels))
        reply = _call(self._sessions.SendFeedback, request, self._timeout)
        return FeedbackResult(reply.accepted, reply.correct, tuple(reply.unknown_request_ids))

    def watch(self, model: str | None = None, session_id: str | None = None) -> Watch:
        """Events from now on: the watch stands when this returns. Close it when done."""
        request = pb.WatchSessionsRequest(name=messages.watched_name(model, session_id))
        call = self._sessions.WatchSessions(request)
        call.initial_metadata()
        return Watch(call)


class Session:
    """A handle on one session; leaving it as a context manager deletes the session."""

    def __init__(self, client: Client, model: str, session_id: str) -> None:
        self._client = client
        self.model = model
        self.id = session_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def predict(
        self,
        array: ArrayLike,
        *,
        adapt: bool = True,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Answer samples `[B, ...]` (or one without B), which the session may then learn from if `adapt`."""
        parameters = messages.sequence(self.id, adapt)
        return self._client.predict(
            self.model, array, parameters=parameters, request_id=request_id, timeout_seconds=timeout_seconds
        )

    def feedback(self, request_id: str, label: int, row: int = 0) -> FeedbackResult:
        """Tell the true label of row `row` of an earlier answer."""
        return self._client.feedback(self.model, self.id, (Feedback(request_id, label, row),))

    def get(self) -> SessionView:
        """The session as it stands."""
        return self._client.get_session(self.model, self.id)

    def reset(self) -> SessionView:
        """Set it back to the source."""
        return self._client.reset_session(self.model, self.id)

    def export(self) -> ExportedSession:
        """What it has learnt: parameters and statistics by name."""
        return self._client.export_session(self.model, self.id)

    def delete(self) -> None:
        """Close and forget it."""
        self._client.delete_session(self.model, self.id)

    def watch(self) -> Watch:
        """Its events from now on."""
        return self._client.watch(self.model, self.id)


class Watch:
    """An iterator over events that ends when it is closed or the daemon drains."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._closed = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return convert_sessions.event(next(self._call).event)
        except grpc.RpcError as error:
            if self._closed:
                raise StopIteration from None
            raise client_error(error) from error

    def close(self) -> None:
        """End the watch; may be called from another thread."""
        self._closed = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _call(rpc: Any, request: Any, timeout: float, **options: Any) -> Any:
    try:
        return rpc(request, timeout=timeout, **options)
    except grpc.RpcError as error:
        raise client_error(error) from error


__all__ = ["Client", "ClientError", "Session", "Watch"]
