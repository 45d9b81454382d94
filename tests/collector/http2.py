"""HTTP/2 frames made by hand, for connections that no client library would make."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from types import TracebackType
from typing import Self

from tests.collector.grpc_client import EXPORT

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(
    stream: int,
    *,
    path: str = EXPORT,
    method: str = "POST",
    content_type: str = "application/grpc",
    encoding: str = "",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """Return a HEADERS frame, each header written out (HPACK: a literal that is not indexed)."""
    pairs = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", content_type),
        ("te", "trailers"),
        *([("grpc-encoding", encoding)] if encoding else []),
    ]
    encoded = [(name.encode(), value.encode()) for name, value in pairs] + list(more)
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in encoded
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def data(stream: int, message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a DATA frame with one gRPC message, which ends the stream."""
    prefix = struct.pack(">BI", compressed, len(message) if length is None else length)
    return frame(DATA, END_STREAM, stream, prefix + message)


class Connection:
    """A connection that has said what HTTP/2 wants said first."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    def send_and_leave(self, frames: bytes) -> bytes:
        """Send, say that nothing follows, and return what came back until the server closed."""
        received = b""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(frames)
            self._socket.shutdown(socket.SHUT_WR)
            while part := self._socket.recv(65_536):
                received += part
        return received

    def status(self, frames: bytes) -> int:
        """Send, and return the grpc-status of the first call that is answered."""
        self._socket.sendall(frames)
        received = b""
        # gRPC's own library writes names and values out, so that no HPACK is needed to find them.
        while (found := re.search(rb"\x0bgrpc-status[\x01\x02](\d+)", received)) is None:
            part = self._socket.recv(65_536)
            if not part:
                raise ConnectionError("closed without a status")
            received += part
        return int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
