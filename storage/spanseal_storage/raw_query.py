"""One statement to the embedded engine and its answer's bytes, with parameters exactly as HTTP brought them.

clickhouse-connect formats the parameters that it is given as Python values. A parameter of an HTTP request has
been formatted by its sender already, and formatting it again would change it. So this goes one layer below, to
the backend that takes them as they are; it is the only place that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clickhouse_connect.driver._backend.models import QueryRuntime

__all__ = ["forget_failure", "is_embedded", "raw_query"]


def is_embedded(client: Any) -> bool:
    """Tell whether a client runs the engine in this process, with nobody between who checks its statements."""
    return str(client.uri).startswith("chdb:")


def raw_query(client: Any, statement: str, output_format: str | None, parameters: Mapping[str, str]) -> bytes:
    """Run one statement and return the answer.

    Args:
        client: a clickhouse-connect client of the embedded engine.
        statement: the statement.
        output_format: the format to append; None where the statement names one itself.
        parameters: values of its substitutions by bare name, escaped as in ClickHouse's HTTP interface.

    Raises:
        ClickHouseError: the engine's own error, with its `code`.

    """
    text = f"{statement}\n FORMAT {output_format}" if output_format else statement
    answer = client._backend.execute_raw_query(  # noqa: SLF001 - see the module's docstring
        text,
        {f"param_{name}": value for name, value in parameters.items()},
        None,
        QueryRuntime(database=client.database),
        None,
    )
    return bytes(answer)


def forget_failure(client: Any) -> None:
    """Discard what a failed statement has left behind; nothing is to be done where the engine is elsewhere.

    The embedded engine keeps what a statement wrote before it failed, and puts it before the answer to the next
    one on the same connection (seen in chDB 4.4). So after a failure either this is called, or the client is not
    used again.

    Raises:
        ClickHouseError: it could not be done; the client must not be used again.

    """
    if is_embedded(client):
        raw_query(client, "SELECT 1", "Null", {})
