"""The blocking side of `line.py`: a thread reads, whoever asks writes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import grpc

from acclimate.runtime.client import operations
from acclimate.runtime.client.calling import ATTEMPT_SECONDS, AWAY, Calls, Deadline, cut_off, pauses
from acclimate.runtime.client.errors import ClientError, client_error
from acclimate.runtime.client.line import Wire, ended, late, passing
from acclimate.runtime.client.operations import Operation

T = TypeVar("T")


class Pending(Generic[T]):
    """A request under way."""

    def __init__(self, line: Line, operation: Operation[T], deadline: Deadline) -> None:
        self._line = line
        self._operation = operation
        self._deadline = deadline
        self.request = operation.request
        self.answer: Future[Any] = Future()
        self.sent = False

    def done(self) -> bool:
        """Whether `result` returns or raises at once, or a request that was refused is worth another try."""
        return self.answer.done()

    def result(self) -> T:
        """The answer; see `AsyncLine.ask`."""
        for pause in pauses():
            try:
                return self._operation.read(self.answer.result(self._deadline.left))
            except TimeoutError:
                self._line.forget(self)
                raise self._line.overdue(self._deadline) from None
            except ClientError as error:
                wait = passing(error, pause, self._deadline)
                if wait is None:
                    raise
                time.sleep(wait)
                self.answer = Future()
                self._line.send(self)
            finally:
                if self.answer.done():
                    self._line.forget(self)
        raise AssertionError("pauses() does not end")


class Line:
    """One stream at a time, opened with the first request."""

    def __init__(self, calls: Calls, wire: Wire) -> None:
        self._calls, self._wire = calls, wire
        self._asked: dict[str, Pending[Any]] = {}
        self._lock = threading.RLock()
        self._call: Any = None
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._reader: threading.Thread | None = None
        self._broke: ClientError | None = None
        self._closed = threading.Event()

    def begin(self, operation: Operation[T], timeout_seconds: float | None) -> Pending[T]:
        """Send an operation; requests go out in the order of the calls.

        Raises:
            ClientError: it is too large to be sent.
        """
        deadline = Deadline.of(self._calls.link.timeout_seconds if timeout_seconds is None else timeout_seconds)
        self._calls.check_size(operation, deadline)
        self._wire.timed(operation.request, deadline)
        pending = Pending(self, operation, deadline)
        self.send(pending)
        return pending

    def send(self, pending: Pending[Any]) -> None:
        """Send a request, now or once there is a stream."""
        with self._lock:
            self._asked[self._wire.asked(pending.request)] = pending
            if self._call is None and self._broke is None:
                self._open()
                self._reader = threading.Thread(target=self._read, name="stream", daemon=True)
                self._reader.start()
            if self._call is not None:
                self._put(pending)

    def forget(self, pending: Pending[Any]) -> None:
        """Nobody waits for its answer any more."""
        with self._lock:
            self._asked.pop(self._wire.asked(pending.request), None)

    def overdue(self, deadline: Deadline) -> ClientError:
        """The error of a request whose time is over."""
        broke = self._broke
        return late(deadline) if broke is None else self._calls.link.unreachable(deadline.seconds, broke)

    def close(self) -> None:
        """End the stream, and the thread that reads it."""
        self._closed.set()
        with self._lock:
            call, reader = self._call, self._reader
            self._outbox.put(None)
            self._asked.clear()
        if call is not None:
            call.cancel()
        if reader is not None:
            reader.join()

    def _open(self) -> None:
        self._outbox.put(None)
        self._outbox = SimpleQueue()
        self._call, self._broke = self._wire.stream(self._calls.link.channel)(iter(self._outbox.get, None)), None

    def _put(self, pending: Pending[Any]) -> None:
        self._outbox.put(self._wire.message(pending.request, pending.sent))
        pending.sent = True

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                for reply in self._call:
                    self._told(reply)
                broke = ended()
            except grpc.RpcError as error:
                broke = cut_off(client_error(error))
            if not self._resumed(broke):
                return
        with self._lock:
            # It was closed while the stream was taken up again.
            if self._call is not None:
                self._call.cancel()
            self._outbox.put(None)

    def _told(self, reply: Any) -> None:
        self._calls.link.met = True
        with self._lock:
            pending = self._asked.get(self._wire.told(reply))
        if pending is None or pending.answer.done():
            return
        error = self._wire.refusal(reply)
        if error is None:
            pending.answer.set_result(self._wire.answer(reply))
        else:
            pending.answer.set_exception(error)

    def _resumed(self, broke: ClientError) -> bool:
        """See `AsyncLine._resumed`."""
        with self._lock:
            self._call, self._broke = None, broke
        for pause in pauses():
            with self._lock:
                hopeless = broke.code != "UNAVAILABLE" or not self._calls.link.waits or self._closed.is_set()
                waiting = [pending for pending in self._asked.values() if not pending.answer.done()]
                if hopeless or not waiting:
                    for pending in waiting:
                        pending.answer.set_exception(broke)
                    self._broke = None
                    return False
            try:
                if self._calls.once(operations.server_ready(), ATTEMPT_SECONDS, True):
                    break
            except ClientError as error:
                if error.code not in AWAY:
                    broke = error
            self._closed.wait(pause)
        with self._lock:
            self._open()
            for pending in self._asked.values():
                if not pending.answer.done():
                    self._put(pending)
        return True
