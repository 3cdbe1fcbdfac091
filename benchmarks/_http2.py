"""As little of a gRPC client as can load a daemon: unary calls on one HTTP/2 connection, on a plain socket.

A call costs it a fraction of what grpcio's takes, so that on a machine which client and daemon share it is the daemon
that is measured. What the daemon gets is what any client sends: the same frames, with headers that the connection's
table remembers (RFC 9113, RFC 7541). Ours says that it has no such table, so that nothing has to be decoded to see
how a call ended.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
TABLE_SIZE, INITIAL_WINDOW, MAX_FRAME = 1, 4, 5
LARGEST_WINDOW, LARGEST_FRAME, DEFAULT_WINDOW, SENT_FRAME = 2**31 - 1, 2**24 - 1, 65_535, 16_384
# Three bytes of size and one that says what it is, flags, and whose it is.
_HEAD = struct.Struct(">IBI")
HEAD = _HEAD.size
OK = b"\x0bgrpc-status\x010"
PATIENCE_SECONDS = 60.0


class Connection:
    """Calls of one method, each a number."""

    def __init__(self, opened: socket.socket, method: str, authority: str) -> None:
        self._socket = opened
        self._buffer = bytearray()
        self._stream = -1
        self._room, self._stream_room = DEFAULT_WINDOW, DEFAULT_WINDOW
        self._head = _fields(method, authority)
        settings = struct.pack(">HIHIHI", TABLE_SIZE, 0, INITIAL_WINDOW, LARGEST_WINDOW, MAX_FRAME, LARGEST_FRAME)
        grown = struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW)
        opened.sendall(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, grown))

    def has_room(self, size: int) -> bool:
        """Whether the daemon takes so many bytes more now.

        Raises:
            ValueError: it never takes a message that large at once.
        """
        if size > self._stream_room:
            raise ValueError(f"a message of {size} bytes does not fit into the daemon's window of {self._stream_room}")
        return size <= self._room

    def call(self, message: bytes) -> tuple[int, bytes]:
        """A call's number and the bytes that begin it; whoever sends them has asked whether there is room."""
        self._stream += 2
        framed = b"\0" + struct.pack(">I", len(message)) + message
        self._room -= len(framed)
        parts = [_frame(HEADERS, END_HEADERS, self._stream, self._head)]
        # From the second call on the daemon's table has them all.
        self._head = REMEMBERED
        for at in range(0, len(framed), SENT_FRAME):
            last = END_STREAM if at + SENT_FRAME >= len(framed) else 0
            parts.append(_frame(DATA, last, self._stream, framed[at : at + SENT_FRAME]))
        return self._stream, b"".join(parts)

    def send(self, calls: bytes) -> None:
        """Send what `call` gave."""
        self._socket.sendall(calls)

    def ended(self) -> list[tuple[int, bool]]:
        """Wait for something to arrive; the calls that it ended, and whether each was answered well.

        Raises:
            ConnectionError: the daemon closed the connection. TimeoutError: nothing came for a minute.
        """
        arrived = self._socket.recv(2**18)
        if not arrived:
            raise ConnectionError("the daemon closed the connection")
        self._buffer += arrived
        over: list[tuple[int, bool]] = []
        at = 0
        while len(self._buffer) - at >= HEAD:
            sized, flags, stream = _HEAD.unpack_from(self._buffer, at)
            kind, end = sized & 0xFF, at + HEAD + (sized >> 8)
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[at + HEAD : end])
            if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                over.append((stream, kind == HEADERS and OK in payload))
            elif kind not in (DATA, HEADERS):
                self._control(kind, flags, stream, payload)
            at = end
        del self._buffer[:at]
        return over

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            raise ConnectionError(f"the daemon goes away: {payload[8:]!r}")
        if kind == WINDOW_UPDATE and stream == 0:
            self._room += int.from_bytes(payload)
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == INITIAL_WINDOW:
                    self._stream_room = value
            self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))


@contextmanager
def http2(target: str, method: str) -> Iterator[Connection]:
    """A connection to `host:port`, for calls of `/Service/Method`."""
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Connection(opened, method, target)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def _fields(method: str, authority: str) -> bytes:
    """The first call's headers; the table keeps those that are not in HTTP/2's own."""
    fields = b"\x83\x86" + _kept(b"\x44", method) + _kept(b"\x41", authority)
    fields += _kept(b"\x40" + _text("te"), "trailers") + _kept(b"\x5f", "application/grpc")
    return fields + _kept(b"\x40" + _text("grpc-timeout"), "60S")


# POST, http, and the five that `_fields` put into the table, the first of them the oldest.
REMEMBERED = bytes([0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62])


def _kept(name: bytes, value: str) -> bytes:
    return name + _text(value)


def _text(text: str) -> bytes:
    """A string of up to 126 ASCII characters, not packed."""
    return bytes([len(text)]) + text.encode("ascii")
