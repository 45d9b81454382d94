"""The engine's errors: whose they are, and what of them people need to read."""

from __future__ import annotations

import re

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage.errors import EngineError

__all__ = ["engine_words", "unless_the_engine_failed"]

# ClickHouse's TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, MEMORY_LIMIT_EXCEEDED, QUERY_WAS_CANCELLED,
# AUTHENTICATION_FAILED, STD_EXCEPTION, UNKNOWN_EXCEPTION; none or 0 where it could not even be asked.
_NOT_THE_STATEMENT = frozenset({None, 0, 159, 202, 241, 394, 516, 1001, 1002})


def unless_the_engine_failed(error: ClickHouseError) -> None:
    """Do nothing where it was the statement that was wrong.

    Raises:
        EngineError: it was not.

    """
    if getattr(error, "code", None) in _NOT_THE_STATEMENT:
        raise EngineError(f"the engine did not answer: {engine_words(error)}") from error


def engine_words(error: BaseException) -> str:
    """Return what is wrong in the engine's words, in one line, without what only its developers need."""
    text = str(error).strip() or type(error).__name__
    # The engine tells its own statement around the user's; only what is wrong with the latter is of use.
    text = text.split(": In scope SELECT formatQuerySingleLine", 1)[0].splitlines()[0]
    # What the driver puts around the answer of a collector's endpoint.
    text = re.sub(r"^Received ClickHouse exception, code: \d+, server response: ", "", text)
    text = re.sub(r" \(for url [^)]*\)$", "", text)
    text = re.sub(r"^(?:Code: \d+\. DB::Exception: )+", "", text)
    text = re.sub(r" \(version [\w.]+\).*", "", text)
    return re.sub(r"\.? \([A-Z0-9_]+\)$", "", text)[:500]
