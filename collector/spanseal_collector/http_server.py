"""The HTTP server: uvicorn, made to bear clients that are slow on purpose, and stopped by its owner.

uvicorn waits for ever for the head of a request, and httptools, its faster parser, takes a head of any size. So
this uses h11, which bounds the size, and bounds the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["HEAD_SECONDS", "Server", "make_server"]

HEAD_SECONDS = 20.0
"""In which the head of a request must arrive: after a connection was made, or its first byte on an old one."""

_IDLE_SECONDS = 75
_HEAD_BYTES = 64 << 10


class _Protocol(H11Protocol):
    """One connection, whose requests must have a head within bounds."""

    head_seconds = HEAD_SECONDS
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._late is None and self._idle():
            self._expect_head()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._cancel()

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self._close_late)

    def _close_late(self) -> None:
        self._late = None
        if self._idle():
            self.transport.close()

    def _idle(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """A server that leaves the signals to the one who runs several of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def make_server(app: Any, *, drain_seconds: int, head_seconds: float = HEAD_SECONDS) -> Server:
    """Make a server for an ASGI application; it is given its socket when it serves.

    Args:
        app: the application.
        drain_seconds: how long requests may take to end once it is to stop.
        head_seconds: in which the head of a request must arrive.

    """
    protocol = type("_BoundProtocol", (_Protocol,), {"head_seconds": head_seconds})
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
    )
