"""Reading access to an embedded log, whether a collector is running on it or not.

The embedded engine is one process. So a command asks the collector that holds the directory, over the
loopback interface and with the token that only the directory's owner can read; and where no collector runs,
the command takes the directory and opens the engine itself, with a reader's rights.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.httputil import get_pool_manager

from spanseal_storage.directory import DataDirectory, Runtime
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import DirectoryBusyError, EngineError, first_line
from spanseal_storage.schema import DATABASE

__all__ = ["READER_LIMITS", "open_reader"]

READER_LIMITS: Mapping[str, int] = {
    "max_execution_time": 300,
    "max_memory_usage": 2 << 30,
    "readonly": 1,  # the last one: it forbids to set any other
}
"""Settings of a reader that opens the engine itself: seconds and bytes for one statement."""

_WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.1
_RESPONSE_SECONDS = 330


@contextlib.contextmanager
def open_reader(directory: DataDirectory, what: str, *, wait: float = _WAIT_SECONDS) -> Iterator[Any]:
    """Open a client that reads the log, for one thread, in the database `audit`.

    Args:
        directory: the data directory.
        what: the command that reads, told to whoever finds the directory held.
        wait: seconds to wait for a collector that is starting or stopping.

    Yields:
        A clickhouse-connect client. It is the same for both ways, except that a collector answers only what
        `sql_guard` lets pass and takes no settings.

    Raises:
        NotADataDirectoryError: it is not a data directory.
        DirectoryBusyError: another process than a collector holds it, or a collector that does not answer.
        EngineError: the engine cannot be opened.
        SchemaError: the database must be migrated first.

    """
    directory.require()
    deadline = time.monotonic() + wait
    client, refusal = None, ""
    while True:
        runtime = directory.runtime()
        # The lock tells who is alive; runtime.json may have outlived a collector that was killed, and somebody
        # else may listen at its port by now.
        if runtime is not None and directory.is_held() and directory.holder()[1] == runtime.pid:
            client, refusal = _connect(runtime)
            if client is not None:
                break
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(directory.hold(what))
            except DirectoryBusyError as error:
                if time.monotonic() >= deadline:
                    if not refusal:
                        raise
                    raise EngineError(
                        f"the process that holds {directory} does not answer queries: {refusal}; "
                        f"it is {error.holder} (pid {error.pid})"
                    ) from error
            else:
                yield stack.enter_context(_embedded(directory))
                return
        time.sleep(_POLL_SECONDS)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _embedded(directory: DataDirectory) -> Iterator[Any]:
    with open_engine(directory, Role.READER) as engine:
        client = engine.client(**READER_LIMITS)
        client.database = DATABASE
        try:
            yield client
        finally:
            client.close()


def _connect(runtime: Runtime) -> tuple[Any, str]:
    try:
        client = clickhouse_connect.get_client(
            interface="http",
            host=runtime.host,
            port=runtime.port,
            username="default",
            password=runtime.token,
            database=DATABASE,
            connect_timeout=5,
            send_receive_timeout=_RESPONSE_SECONDS,
            query_retries=0,
            compress=False,
            # In the body: values are personal data, and addresses end up in logs.
            form_encode_query_params=True,
            autogenerate_session_id=False,
            # A pool of its own, or a proxy named in the environment would be handed the token.
            pool_mgr=get_pool_manager(),
        )
    except (ClickHouseError, OSError) as error:
        return None, first_line(error)
    return client, ""
