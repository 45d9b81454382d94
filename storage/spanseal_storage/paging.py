"""Reading many rows in pages: whatever the length of the log, one page is in memory.

A collector answers a statement whole, up to a limit of bytes, and the engine sorts in memory. So a long answer
is asked for piece by piece, each piece beginning where the last one ended. Rows that share a place, which only
a tampered log has, are counted, so that none is left out and none given twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage.errors import EngineError, first_line
from spanseal_storage.raw_query import forget_failure
from spanseal_storage.schema import DATABASE

__all__ = ["PAGE", "by_chain", "newest_first"]

PAGE = 2000

# ClickHouse's MEMORY_LIMIT_EXCEEDED, TOO_MANY_BYTES and TOO_MANY_ROWS_OR_BYTES: a smaller page may do.
_TOO_MUCH = frozenset({241, 307, 396})
# Text as the bytes that are stored: in a tampered row it may be no UTF-8.
_BYTES = {"String": "bytes", "FixedString": "bytes"}
_SHORTEST_SPAN = 1_000_000_000  # ns
_SPAN_GROWTH = 4

Row = Sequence[Any]


class _Reader:
    """Asks for pages, and for smaller ones from then on where one is more than the engine may give."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._largest = PAGE

    def page(self, sql: str, parameters: Mapping[str, Any], size: int, skip: int) -> tuple[list[Row], int]:
        """Return a page's rows and how many were asked for.

        Raises:
            EngineError: the engine did not answer, or not even with a single row.

        """
        while True:
            asked = min(size, self._largest)
            try:
                return self.rows(f"{sql} LIMIT {asked} OFFSET {skip}", parameters), asked
            except ClickHouseError as error:
                if getattr(error, "code", None) not in _TOO_MUCH or asked == 1:
                    raise EngineError(f"a query failed: {first_line(error)}") from error
                self._largest = max(1, asked // 4)
                forget_failure(self._client)
            except OSError as error:
                raise EngineError(f"a query failed: {first_line(error)}") from error

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        return list(self._client.query(sql, parameters=dict(parameters), query_formats=_BYTES).result_rows)

    def few(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        try:
            return self.rows(sql, parameters)
        except (ClickHouseError, OSError) as error:
            raise EngineError(f"a query failed: {first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page ended: the key of its last row, and how many rows of this very key were given."""

    key: tuple[Any, ...]
    given: int

    @classmethod
    def after(cls, rows: Sequence[Row], width: int, before: _Place | None) -> _Place:
        key = tuple(rows[-1][:width])
        given = 0
        for row in reversed(rows):
            if tuple(row[:width]) != key:
                break
            given += 1
        if before is not None and given == len(rows) and before.key == key:
            given += before.given
        return cls(key, given)


def newest_first(
    client: Any, expressions: Sequence[str], where: str, parameters: Mapping[str, Any], *, limit: int = 0
) -> Iterator[list[Row]]:
    """Read events, newest first by the source's clock.

    Args:
        client: a clickhouse-connect client.
        expressions: what to select of `events`.
        where: a condition with bound parameters.
        parameters: their values.
        limit: how many rows; 0 for all.

    Yields:
        Pages of rows; String and FixedString come as bytes.

    Raises:
        EngineError: the engine did not answer.

    """
    key = ("toUnixTimestamp64Nano(event_time)", "chain_id", "seq")
    head = f"SELECT {', '.join((*key, *expressions))} FROM {DATABASE}.events WHERE ({where})"  # noqa: S608 - own text
    order = "ORDER BY event_time DESC, chain_id DESC, seq DESC, hash DESC"
    reader = _Reader(client)
    left = limit or None
    place: _Place | None = None  # where the last page ended, while its window lasts
    window: tuple[int, int] | None = None  # ns: first included, end not included
    oldest = span = 0
    while left is None or left > 0:
        condition, values = _window(window, place)
        rows, asked = reader.page(
            f"{head}{condition} {order}",
            {**parameters, **values},
            PAGE if left is None else min(left, PAGE),
            place.given if place else 0,
        )
        if rows:
            yield [row[len(key) :] for row in rows]
            place = _Place.after(rows, len(key), place)
            if left is not None:
                left -= len(rows)
        if len(rows) == asked:
            if window is None:
                oldest = int(reader.few(_OLDEST.format(where=where), parameters)[0][0])
            # What comes next is asked for in windows of time, or each page would look at the whole log.
            newest, last = int(rows[0][0]), int(rows[-1][0])
            span = max(2 * (newest - last), _SHORTEST_SPAN)
            window = (last - span, last + 1)
        elif window is None or window[0] <= oldest:
            return
        else:
            span *= _SPAN_GROWTH
            window, place = (window[0] - span, window[0]), None


_OLDEST = f"SELECT toUnixTimestamp64Nano(min(event_time)) FROM {DATABASE}.events WHERE ({{where}})"  # noqa: S608 - own text
_TIME = "fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')"
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def _window(window: tuple[int, int] | None, place: _Place | None) -> tuple[str, dict[str, Any]]:
    parts, values = [], {}
    if window is not None:
        if window[0] > _LEAST:
            parts.append(f"event_time >= {_TIME.format(name='window_start')}")
            values["window_start"] = window[0]
        parts.append(f"event_time < {_TIME.format(name='window_end')}")
        values["window_end"] = min(window[1], _MOST)
    if place is not None:
        time = _TIME.format(name="place_time")
        parts.append(
            f"(event_time < {time} OR (event_time = {time} AND "
            "(chain_id, seq) <= ({place_chain:UUID}, {place_seq:UInt64})))"
        )
        values["place_time"], values["place_chain"], values["place_seq"] = place.key
    return "".join(f" AND {part}" for part in parts), values


def by_chain(
    client: Any, expressions: Sequence[str], where: str, parameters: Mapping[str, Any]
) -> Iterator[list[Row]]:
    """Read rows of `records`, chain by chain in the order of their first records' time, each by seq.

    What is appended while this reads is not given: the last record of each chain is fixed at the start.

    Args:
        client: a clickhouse-connect client.
        expressions: what to select of `records`.
        where: a condition with bound parameters.
        parameters: their values.

    Yields:
        Pages of rows; String and FixedString come as bytes.

    Raises:
        EngineError: the engine did not answer.

    """
    reader = _Reader(client)
    chains = reader.few(
        f"SELECT chain_id, max(seq) FROM {DATABASE}.records "  # noqa: S608 - a constant
        "GROUP BY chain_id ORDER BY min(received_at), toString(chain_id)",
        {},
    )
    # Rows that share a seq are ordered by all that they hold, so that every page finds them in the same order.
    sql = (
        f"SELECT seq, {', '.join(expressions)} FROM {DATABASE}.records "  # noqa: S608 - own text
        "WHERE chain_id = {place_chain:UUID} AND seq >= {place_seq:UInt64} AND seq <= {place_end:UInt64} "
        f"AND ({where}) ORDER BY seq, hash, cityHash64({', '.join(expressions)})"
    )
    for chain_id, last in chains:
        yield from _one_chain(reader, sql, parameters, str(chain_id), last)


def _one_chain(
    reader: _Reader, sql: str, parameters: Mapping[str, Any], chain_id: str, last: int
) -> Iterator[list[Row]]:
    place: _Place | None = None
    first, span = 0, PAGE
    while first <= last:
        # A range of the primary key, or each page would look at the whole rest of the chain.
        end = min(first + span - 1, last)
        values = {**parameters, "place_chain": chain_id, "place_seq": first, "place_end": end}
        rows, asked = reader.page(sql, values, PAGE, place.given if place else 0)
        if rows:
            yield [row[1:] for row in rows]
        if len(rows) == asked:
            place = _Place.after(rows, 1, place)
            first, span = place.key[0], PAGE
        else:
            first, span, place = end + 1, span * _SPAN_GROWTH, None
