"""One statement of an analyst, through a collector's endpoint or in an engine of this process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage import sql_guard
from spanseal_storage.engine_errors import engine_words
from spanseal_storage.errors import EngineError
from spanseal_storage.raw_query import is_embedded
from spanseal_storage.sql_guard import Statement

__all__ = ["Answer", "answer", "prepare", "raw_answer"]

_BYTES = {"FixedString": "bytes"}
# ClickHouse's BAD_ARGUMENTS, which is how the embedded engine says that only a SELECT can be streamed.
_CANNOT_STREAM = 36


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of an answer."""

    names: Sequence[str]
    rows: Iterator[Sequence[Any]]


def prepare(client: Any, statement: str) -> Statement:
    """Read a statement; in an engine of this process, check that it only reads.

    Args:
        client: of `access.open_reader`.
        statement: what somebody wrote.

    Raises:
        StatementRefusedError: it is not one statement, or may not run.
        EngineError: the engine did not answer.

    """
    if is_embedded(client):
        return sql_guard.inspect(client, statement)
    # The collector checks what it is sent.
    text = sql_guard.normal_form(client, statement)
    return Statement(text, sql_guard.format_of(text))


@contextlib.contextmanager
def answer(client: Any, question: Statement) -> Iterator[Answer]:
    """Run a statement that names no format, and yield its rows as they come.

    Raises:
        EngineError: the engine refused it or failed, also while the rows are read; in the engine's words.

    """
    with contextlib.ExitStack() as stack:
        with _errors():
            try:
                stream = client.query_row_block_stream(question.text, query_formats=_BYTES)
            except ClickHouseError as error:
                if getattr(error, "code", None) != _CANNOT_STREAM:
                    raise
                result = client.query(question.text, query_formats=_BYTES)
                names, blocks = result.column_names, iter([result.result_rows])
            else:
                blocks = iter(stack.enter_context(stream))
                names = stream.source.column_names
            if not names:
                # The embedded engine tells nothing at all of an answer without rows.
                names = _names(client, question)
        yield Answer(names, _rows(blocks))


def _rows(blocks: Iterator[Sequence[Sequence[Any]]]) -> Iterator[Sequence[Any]]:
    while True:
        with _errors():
            block = next(blocks, None)
        if block is None:
            return
        yield from block


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (ClickHouseError, OSError) as error:
        raise EngineError(engine_words(error)) from error


def raw_answer(client: Any, question: Statement) -> bytes:
    """Run a statement that names its format, and return the answer in it.

    Raises:
        EngineError: the engine refused it or failed; in the engine's words.

    """
    with _errors():
        return bytes(client.raw_query(question.text))


def _names(client: Any, question: Statement) -> list[str]:
    meta = json.loads(client.raw_query(question.text, fmt="JSONCompact"))["meta"]
    return [str(column["name"]) for column in meta]
