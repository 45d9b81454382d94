"""The threads that answer statements from outside, each with a read-only client, under limits."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from spanseal_storage import sql_guard
from spanseal_storage.engine import Engine
from spanseal_storage.errors import EngineError, StatementRefusedError
from spanseal_storage.raw_query import raw_query
from spanseal_storage.schema import DATABASE

__all__ = [
    "LIMITS",
    "MAX_RESULT_BYTES",
    "Answer",
    "Query",
    "Readers",
    "ResultTooLargeError",
    "TooManyQueriesError",
]

MAX_RESULT_BYTES = 256 << 20
MAX_RESULT_ROWS = 10_000_000
LIMITS: Mapping[str, int] = {
    "max_execution_time": 300,
    "max_memory_usage": 1 << 30,
    "max_result_bytes": MAX_RESULT_BYTES,
    # Besides the bytes, because the engine counts a constant column as a single value.
    "max_result_rows": MAX_RESULT_ROWS,
    "readonly": 1,  # the last one: it forbids to set any other
}
"""Settings of a client that answers statements from outside."""

_THREADS = 4
_MAX_WAITING = 64
_LAST_MOMENT_SECONDS = 0.2


class TooManyQueriesError(Exception):
    """More statements wait than is good for anybody."""


class ResultTooLargeError(Exception):
    """An answer is larger than may be made."""


@dataclass(frozen=True, slots=True)
class Query:
    """One request for an answer."""

    statement: str
    parameters: Mapping[str, str]
    default_format: str
    query_id: str
    """As the client named it; not unique."""
    mark: str = field(default_factory=lambda: f"/* spanseal {uuid.uuid4().hex} */")
    """What the statement begins with in the engine, to be found there by."""
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer's bytes and what to say of them."""

    body: bytes
    output_format: str
    timezone: str
    seconds: float


class Readers:
    """A few threads, each with its own read-only client: a client serves one statement at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clients: list[Any] = []
        self._canceller: Any = None
        self._cancelling = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._running: set[str] = set()  # marks
        self._ended = threading.Condition(self._lock)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="spanseal-sql")

    async def run(self, query: Query) -> Answer:
        """Answer a statement.

        Raises:
            TooManyQueriesError: try again later.
            ResultTooLargeError: the answer is larger than `MAX_RESULT_BYTES`.
            StatementRefusedError: it may not run.
            ClickHouseError: the engine's own error.
            EngineError: the engine did not answer.

        """
        if self._waiting >= _MAX_WAITING:
            raise TooManyQueriesError
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, query)
        except (asyncio.CancelledError, RuntimeError) as error:
            if not self._closed:
                raise
            raise EngineError("nothing is answered any more, it is being stopped") from error
        finally:
            self._waiting -= 1

    def cancel(self, query: Query) -> None:
        """Stop a statement, begun or not. Where it goes on, this may be called again."""
        query.cancelled.set()
        self._kill(query.mark)

    def close(self) -> None:
        """Stop what is running and what waits, and close the clients."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        while running := self._still_running():
            for mark in running:
                self._kill(mark)
        self._threads.shutdown(wait=True)
        with self._lock:
            while self._clients:
                self._clients.pop().close()

    def _kill(self, mark: str) -> None:
        with self._cancelling:
            if self._canceller is None:
                self._canceller = self._open(readonly=1)
            # A user may stop their own statements, also under `readonly`.
            self._canceller.query(
                "KILL QUERY WHERE startsWith(query, {mark:String}) ASYNC", parameters={"mark": mark}
            )

    def _still_running(self) -> set[str]:
        with self._ended:
            self._ended.wait_for(lambda: not self._running, _LAST_MOMENT_SECONDS)
            return set(self._running)

    def _answer(self, query: Query) -> Answer:
        with self._ended:
            self._running.add(query.mark)
        try:
            return self._ask(query)
        except BaseException:
            # What the failed statement wrote would stand before the next one's answer (`forget_failure`).
            self._drop_client()
            raise
        finally:
            with self._ended:
                self._running.discard(query.mark)
                self._ended.notify_all()

    def _ask(self, query: Query) -> Answer:
        client = self._client()
        begun = time.monotonic()
        statement = sql_guard.inspect(client, query.statement, query.parameters)
        if query.cancelled.is_set():
            raise StatementRefusedError("the statement was cancelled before it began")
        appended = None if statement.output_format else query.default_format
        body = raw_query(client, f"{query.mark} {statement.text}", appended, query.parameters)
        if len(body) > MAX_RESULT_BYTES:
            raise ResultTooLargeError(
                f"Limit for result exceeded, max bytes: {MAX_RESULT_BYTES}, current bytes: {len(body)}"
            )
        return Answer(
            body,
            statement.output_format or query.default_format,
            str(client.server_tz),
            time.monotonic() - begun,
        )

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._open(**LIMITS)
            client.database = DATABASE
            self._local.client = client
        return client

    def _drop_client(self) -> None:
        client = getattr(self._local, "client", None)
        if client is not None:
            self._local.client = None
            with self._lock:
                self._clients.remove(client)
            client.close()

    def _open(self, **settings: int) -> Any:
        client = self._engine.client(**settings)
        with self._lock:
            self._clients.append(client)
        return client
