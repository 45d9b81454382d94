"""From the bytes of a request to the promise that they are stored: what both transports do alike.

All requests, however they came, share one bound of memory and two decoding threads. Used from the event loop's
thread alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spanseal_collector.admission import Admitter, Draft, Rejected
from spanseal_collector.authentication import Authenticator
from spanseal_collector.errors import BusyError, TooLargeError, UnavailableError
from spanseal_collector.otlp import Group
from spanseal_collector.pipeline import Pipeline

__all__ = ["MAX_BUFFERED_BYTES", "MAX_REQUEST_BYTES", "Decoder", "Intake", "Taken"]

MAX_REQUEST_BYTES = 20 << 20
"""Limit of a request after decompression, and of its body as sent."""

MAX_BUFFERED_BYTES = 256 << 20
"""Limit of the bodies of all requests that are being received or stored."""

_DECODERS = 2
"""Threads: more would not decode faster, and each may need some hundred megabytes for a hostile request."""

Decoder = Callable[[bytes], Iterable[Group]]
"""Parses the frame of a request."""


@dataclass(slots=True)
class Taken:
    """What one request takes of the memory that there is for all of them."""

    _intake: Intake
    size: int = 0

    def take(self, size: int) -> None:
        """Take some more.

        Raises:
            BusyError: there is not as much left.

        """
        if size > self._intake.room:
            raise BusyError("more is being received than fits; send it again later", 1)
        self._intake.room -= size
        self.size += size


class Intake:
    """Takes requests. One for all transports of a collector."""

    def __init__(
        self, admitter: Admitter, pipeline: Pipeline, authenticator: Authenticator | None = None
    ) -> None:
        """Make an intake.

        Args:
            admitter: turns decoded requests into drafts.
            pipeline: stores them.
            authenticator: tells who may send; None where anybody may.

        """
        self.room = MAX_BUFFERED_BYTES
        """Bytes that may still be taken."""
        self.pipeline = pipeline
        self.authenticator = authenticator
        self._admitter = admitter
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="spanseal-decode")

    @contextlib.contextmanager
    def taken(self) -> Iterator[Taken]:
        """Take no memory at first; give back all that was taken."""
        taken = Taken(self)
        try:
            yield taken
        finally:
            self.room += taken.size

    def sender(self, headers: Sequence[str], peer: str) -> str:
        """Tell into which tenant a request's records go, before anything of its body is read.

        Args:
            headers: its `Authorization` headers.
            peer: the address it comes from.

        Returns:
            The tenant; empty where each record may name its own.

        Raises:
            UnauthenticatedError: it may not send, nor could lately.
            ForbiddenError: its token is for something else.
            UnavailableError: whether it may send may be another thing soon.

        """
        return "" if self.authenticator is None else self.authenticator.sender(headers, peer)

    async def store(
        self,
        body: bytes,
        taken: Taken,
        *,
        unpack: Callable[[bytes, int], bytes] | None,
        decode: Decoder,
        tenant: str = "",
    ) -> None:
        """Unpack, decode and admit a request; return when every record of it is durable.

        Args:
            body: as it was sent.
            taken: the request's share of memory, which holds the body.
            unpack: decompresses up to a limit; None where nothing is compressed.
            decode: parses its frame.
            tenant: into which all its records go; empty where each may name its own.

        Raises:
            DecodeError: the bytes are not OTLP.
            TooLargeError: the request is over a limit.
            UnavailableError: it cannot be stored now.

        """
        loop = asyncio.get_running_loop()
        if unpack is not None:
            body = await loop.run_in_executor(self._decoders, unpack, body, MAX_REQUEST_BYTES)
            taken.take(len(body))
        items, size = await loop.run_in_executor(self._decoders, self._admit, decode, body, tenant)
        if items:
            await self._stored(items, size)

    def _admit(self, decode: Decoder, body: bytes, tenant: str) -> tuple[list[Draft | Rejected], int]:
        items = []
        size = 0
        for item in self._admitter.admit(decode(body), tenant):
            size += item.size
            if size > self.pipeline.limits.request_bytes:
                # A large resource is repeated in each of its records.
                raise TooLargeError(
                    "the request is too large: its records take too much memory; send fewer at a time"
                )
            items.append(item)
        return items, size

    async def _stored(self, items: list[Draft | Rejected], size: int) -> None:
        future = asyncio.wrap_future(self.pipeline.submit(items, size))
        try:
            async with asyncio.timeout(self.pipeline.limits.answer_seconds):
                await future
        except TimeoutError:
            raise UnavailableError("the records could not be stored in time; send them again", 2) from None
