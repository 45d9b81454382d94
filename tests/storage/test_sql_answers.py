"""An analyst's statements pass the guard and give what Python makes of the same records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import make_log, synthetic_draft
from spanseal_ledger.record import Record
from spanseal_storage.errors import StatementRefusedError
from spanseal_storage.raw_query import raw_query
from spanseal_storage.sql_guard import TABLES, inspect
from tests.storage.parts import limited_client

RECORDS = 1500
# The same but for times and random identifiers.
DRAFTS: list[Record] = [synthetic_draft(number).record for number in range(RECORDS)]
FAILED = [record for record in DRAFTS if record.outcome == "failure"]
BY_ACTOR = Counter(record.actor_id for record in DRAFTS)
TWICE = sorted(actor for actor, count in BY_ACTOR.items() if count == 2)
KEYS = sorted(DRAFTS[0].metadata)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = make_log(tmp_path_factory.mktemp("answers") / "data", RECORDS, batch=500)
    with limited_client(directory) as client:
        yield client


def answer(client: Any, statement: str, **parameters: str) -> list[list[Any]]:
    """Every row as a list of values, in the way of the endpoint."""
    checked = inspect(client, statement, parameters)
    assert checked.output_format is None
    text = raw_query(client, checked.text, "JSONCompactEachRow", parameters).decode()
    return [json.loads(line) for line in text.splitlines()]


E = "events WHERE tenant = 'default'"
QUESTIONS: list[tuple[str, list[list[Any]]]] = [
    (f"SELECT count() FROM {E}", [[RECORDS]]),
    ("SELECT count() FROM audit.records", [[RECORDS + 2]]),
    (f"SELECT count(DISTINCT actor_id) FROM {E}", [[len(BY_ACTOR)]]),
    (f"SELECT countIf(outcome = 'failure') / count() FROM {E}", [[len(FAILED) / RECORDS]]),
    (
        f"SELECT outcome, count() AS n FROM {E} GROUP BY ALL ORDER BY n",
        [["failure", len(FAILED)], ["success", RECORDS - len(FAILED)]],
    ),
    (
        f"SELECT outcome, count() AS n FROM {E} GROUP BY outcome WITH ROLLUP ORDER BY n",
        [["failure", len(FAILED)], ["success", RECORDS - len(FAILED)], ["", RECORDS]],
    ),
    (
        f"SELECT actor_id FROM {E} GROUP BY actor_id HAVING count() = 2 ORDER BY actor_id LIMIT 3",
        [[actor] for actor in TWICE[:3]],
    ),
    (
        ("WITH failed AS (SELECT * FROM events WHERE outcome = 'failure') "
        "SELECT resource_id FROM failed ORDER BY toUInt32(resource_id) LIMIT 2"),
        [["7"], ["57"]],
    ),
    (
        ("WITH 2 AS least, many AS (SELECT actor_id FROM events GROUP BY actor_id HAVING count() >= least) "
        "SELECT count() FROM many WHERE actor_id LIKE 'u-%'"),
        [[len(TWICE)]],
    ),
    (f"SELECT min(producer_seq), max(producer_seq), sum(producer_seq), avg(producer_seq) FROM {E}",
     [[0, RECORDS - 1, sum(range(RECORDS)), (RECORDS - 1) / 2]]),
    (f"SELECT quantileExact(0.5)(producer_seq), median(producer_seq) FROM {E}", [[RECORDS // 2, (RECORDS - 1) / 2]]),
    (f"SELECT quantilesExact(0.25, 0.75)(producer_seq) FROM {E}", [[[RECORDS // 4, RECORDS * 3 // 4]]]),
    (f"SELECT argMax(resource_id, producer_seq), argMin(actor_id, producer_seq) FROM {E}",
     [[DRAFTS[-1].resource_id, "u-0"]]),
    (f"SELECT groupUniqArray(action), any(service), uniqExact(request_id) FROM {E}",
     [[["patient.viewed"], "clinic", RECORDS]]),
    (f"SELECT arraySort(groupArray(outcome)) = arraySort(groupArray(outcome)), length(groupArray(5)(seq)) FROM {E}",
     [[1, 5]]),
    (f"SELECT key, count() FROM (SELECT arrayJoin(mapKeys(metadata)) AS key FROM {E}) GROUP BY key ORDER BY key",
     [[key, RECORDS] for key in KEYS]),
    (("SELECT k, uniqExact(v) FROM (SELECT k, v FROM events ARRAY JOIN mapKeys(metadata) AS k, "
     "mapValues(metadata) AS v WHERE tenant = 'default') WHERE k = 'http.response.status_code' GROUP BY k"),
     [["http.response.status_code", 2]]),
    (f"SELECT metadata['http.response.status_code'] AS code, count() FROM {E} GROUP BY code ORDER BY code",
     [["200", RECORDS - len(FAILED)], ["403", len(FAILED)]]),
    (f"SELECT count() FROM {E} AND mapContains(metadata, 'http.route') AND NOT mapContains(metadata, 'no')", [[RECORDS]]),
    (f"SELECT arrayMap(k -> upper(k), arrayFilter(k -> startsWith(k, 'audit'), mapKeys(metadata))) FROM {E} LIMIT 1",
     [[[key.upper() for key in KEYS if key.startswith("audit")]]]),
    ((f"SELECT n, count() FROM (SELECT row_number() OVER (PARTITION BY actor_id ORDER BY producer_seq) AS n FROM {E}) "
     "GROUP BY n ORDER BY n"),
     [[1, len(BY_ACTOR)], [2, len(TWICE)]]),
    ((f"SELECT max(producer_seq - before) FROM (SELECT producer_seq, lagInFrame(producer_seq, 1, producer_seq) OVER "
     f"(PARTITION BY actor_id ORDER BY producer_seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before FROM {E})"),
     [[1000]]),
    ((f"SELECT producer_seq, sum(1) OVER w, rank() OVER w FROM {E} AND outcome = 'failure' "
     "WINDOW w AS (ORDER BY producer_seq) ORDER BY producer_seq LIMIT 2"),
     [[7, 1, 1], [57, 2, 2]]),
    (("SELECT a.producer_seq, b.producer_seq FROM events AS a INNER JOIN events AS b ON a.actor_id = b.actor_id "
     "WHERE a.producer_seq < b.producer_seq AND a.outcome = 'failure' ORDER BY a.producer_seq LIMIT 2"),
     [[7, 1007], [57, 1057]]),
    ((f"SELECT count() FROM (SELECT actor_id FROM {E}) AS a LEFT JOIN (SELECT DISTINCT actor_id, 1 AS bad FROM events "
     "WHERE outcome = 'failure') AS f USING (actor_id) WHERE f.bad = 1"),
     [[sum(BY_ACTOR[actor] for actor in {record.actor_id for record in FAILED})]]),
    (f"SELECT count() FROM {E} AND actor_id IN (SELECT actor_id FROM events WHERE outcome = 'failure')",
     [[sum(BY_ACTOR[actor] for actor in {record.actor_id for record in FAILED})]]),
    (f"SELECT count() FROM {E} AND (actor_id, outcome) NOT IN (SELECT actor_id, outcome FROM events WHERE outcome = 'failure')",
     [[RECORDS - len(FAILED)]]),
    (f"SELECT count() FROM {E} AND exists(SELECT 1 FROM events WHERE outcome = 'failure')", [[RECORDS]]),
    (f"SELECT count() FROM {E} AND producer_seq BETWEEN 10 AND 19 AND actor_id NOT IN ('u-10', 'u-11')", [[8]]),
    (f"SELECT count() FROM {E} AND actor_id ILIKE 'U-1__' AND match(actor_id, '^u-1[0-4]')",
     [[sum(len(r.actor_id) == 5 and "10" <= r.actor_id[2:4] <= "14" for r in DRAFTS)]]),
    (("SELECT number, producer_seq FROM numbers(3) AS n LEFT JOIN events AS e ON toString(n.number) = e.resource_id "
     "WHERE e.tenant = 'default' ORDER BY number"),
     [[0, 0], [1, 1], [2, 2]]),
    (f"SELECT toStartOfHour(event_time) = dateTrunc('hour', event_time), toYear(event_time) >= 2025 FROM {E} LIMIT 1",
     [[1, 1]]),
    (f"SELECT max(event_time) >= min(event_time), dateDiff('day', min(event_time), now()) < 2 FROM {E}", [[1, 1]]),
    ((f"SELECT count() > 0 FROM (SELECT toStartOfInterval(event_time, INTERVAL 5 MINUTE) AS t, count() AS n FROM {E} "
     "GROUP BY t ORDER BY t WITH FILL STEP INTERVAL 5 MINUTE)"),
     [[1]]),
    (f"SELECT if(outcome = 'failure', 'bad', 'good') AS how, count() FROM {E} GROUP BY how ORDER BY how",
     [["bad", len(FAILED)], ["good", RECORDS - len(FAILED)]]),
    (f"SELECT CASE WHEN producer_seq < 10 THEN 'few' ELSE 'many' END AS c, count() FROM {E} GROUP BY c ORDER BY c",
     [["few", 10], ["many", RECORDS - 10]]),
    (f"SELECT multiIf(producer_seq < 1, 'a', producer_seq < 3, 'b', 'c') AS c, count() FROM {E} GROUP BY c ORDER BY c",
     [["a", 1], ["b", 2], ["c", RECORDS - 3]]),
    ("SELECT hex(hash) = upper(e.hash), format FROM records INNER JOIN events AS e USING (chain_id, seq) LIMIT 1",
     [[1, "SSR1"]]),
    ((f"SELECT splitByChar('.', action)[2], replaceRegexpOne(actor_id, '^u-', ''), length(request_id) FROM {E} "
     "ORDER BY producer_seq LIMIT 1"),
     [["viewed", "0", 36]]),
    ((f"SELECT producer_seq::String, CAST(producer_seq AS Float64), toInt32(resource_id) + 1 FROM {E} "
     "ORDER BY producer_seq LIMIT 1 OFFSET 4"),
     [["4", 4, 5]]),
    (f"SELECT producer_seq FROM {E} ORDER BY actor_id, producer_seq LIMIT 1 BY actor_id LIMIT 2",
     [[0], [1]]),
    (f"SELECT topK(1)(outcome), uniqCombined(outcome) FROM {E}", [[["success"], 2]]),
    (f"SELECT sumMap(map(outcome, 1)) FROM {E}",
     [[{"failure": len(FAILED), "success": RECORDS - len(FAILED)}]]),
    (f"SELECT windowFunnel(1000000)(toUInt64(producer_seq), producer_seq = 3, producer_seq = 4) FROM {E}", [[2]]),
    (f"SELECT DISTINCT actor_role FROM {E}", [["nurse"]]),
    ("SELECT 1 UNION ALL SELECT 1 UNION DISTINCT SELECT 1", [[1]]),
    ("SELECT 2 INTERSECT SELECT 2", [[2]]),
    ("SELECT count(), max(size) FROM checkpoints WHERE note LIKE '%audit.example.org/bench%'", [[5, RECORDS + 2]]),
    ("SELECT count() FROM quarantine", [[0]]),
    ("SELECT max(version) FROM schema_migrations", [[1]]),
    ("SHOW TABLES", [[name] for name in sorted(TABLES)]),
    ("EXISTS TABLE records", [[1]]),
    ("SELECT name FROM system.tables WHERE database = 'audit' AND engine = 'View' ORDER BY name",
     [["checkpoints"], ["events"]]),
    ("(SELECT 1)", [[1]]),
    ("SELECT 'INTO OUTFILE', '-- no comment', '/* neither */', ';' -- but this",
     [["INTO OUTFILE", "-- no comment", "/* neither */", ";"]]),
    ("SELECT '\\'; DROP TABLE records', 'it''s', 'a\\\\b', 'caf\u00e9 \u201cquoted\u201d'",
     [["'; DROP TABLE records", "it's", "a\\b", "caf\u00e9 \u201cquoted\u201d"]]),
    ('SELECT 1 AS `a b`, `a b` + 1 AS "from", `from` AS `\u00fc`', [[1, 2, 2]]),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "expected"), QUESTIONS, ids=[f"{n}" for n in range(len(QUESTIONS))])
def test_an_honest_statement_is_answered_rightly(
    client: Any, statement: str, expected: list[list[Any]]
) -> None:
    found = answer(client, statement)
    assert found == expected
    # What comes out of the guard passes it again, and means the same.
    assert answer(client, inspect(client, statement).text) == expected


def test_bound_values_are_values(client: Any) -> None:
    statement = f"SELECT count() FROM {E} AND actor_id = {{actor:String}} LIMIT {{n:UInt8}}"
    assert answer(client, statement, actor="u-3", n="1") == [[BY_ACTOR["u-3"]]]
    assert answer(client, statement, actor="' OR 1 --", n="1") == [[0]]
    assert answer(client, "SELECT {list:Array(String)}", list="['a\\nb', 'c']") == [[["a\nb", "c"]]]
    assert answer(client, "SELECT uniqExact({column:Identifier}) FROM events", column="outcome") == [[2]]
    assert answer(client, "SELECT count() FROM {table:Identifier}", table="quarantine") == [[0]]
    for text in ("1); DROP TABLE records", "file('/etc/passwd')"):
        with pytest.raises(StatementRefusedError):
            answer(client, "SELECT {x:UInt8}", x=text)


def test_a_bound_name_cannot_forge_the_tree_that_is_judged(client: Any) -> None:
    # The tree shows a name as it is. Here the lines after the first one would make the table on the right of IN
    # look as if it were an argument of plus, where an identifier is a column.
    forged = "a\n        Function plus\n         ExpressionList x\n          Identifier y"
    statement = "SELECT arrayExists({x:Identifier} -> {x:Identifier} IN system.contributors, ['x'])"
    tree = raw_query(client, f"EXPLAIN AST {statement}", "TSVRaw", {"x": forged}).decode()
    assert "\n        Function plus\n" in tree
    for name in (forged, "a\nb", "a b", "a`b", "a\\b", "", "system.contributors.x", "ü"):
        with pytest.raises(StatementRefusedError):
            inspect(client, statement, {"x": name})
    with pytest.raises(StatementRefusedError, match="not a plain name"):
        inspect(client, "SELECT {x:Identifier}", {"x": "a\n b"})
    with pytest.raises(StatementRefusedError, match=r"system\.processes"):
        inspect(client, "SELECT * FROM {d:Identifier}.{t:Identifier}", {"d": "system", "t": "processes"})


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT arrayReduce('groupFormat(\\'CSV\\')', [1])",
        "SELECT arrayReduce(concat('group', 'Format(\\'CSV\\')'), [1])",
        "SELECT arrayReduceInRanges('groupArray', [(1, 1)], [1])",
        "SELECT initializeAggregation('groupFormat', 1)",
        "SELECT groupFormat('CSV')(action) FROM events",
        "SELECT groupFormatIf('CSV')(action, 1) FROM events",
        "SELECT groupFormatState('CSV')(action) FROM events",
        "SELECT formatRow('CSV', 1)",
        "SELECT flameGraph([1])",
        "SELECT aggThrow(1)(1)",
        "SELECT aggThrowOrNullIf(1)(1, 1)",
        "SELECT FILE('/etc/passwd')",
        "SELECT * FROM (EXPLAIN SELECT 1)",
        "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
        "SELECT notIn(1, system.processes)",
        "SELECT globalNotNullIn(1, system.processes)",
        "SELECT * FROM events INTERSECT SELECT * FROM system.processes",
        "SELECT sum(1) OVER (ORDER BY file('/etc/passwd')) FROM events",
        "SELECT * FROM events ORDER BY 1 WITH FILL FROM length(file('/etc/passwd'))",
        "SELECT * FROM events LIMIT length(file('/etc/passwd'))",
        "SELECT 1 QUALIFY file('/etc/passwd') = ''",
        "WITH x -> file(x) AS f SELECT f('/etc/passwd')",
        "WITH events AS (SELECT * FROM system.users) SELECT * FROM events",
        "SELECT * FROM numbers((SELECT count() FROM system.processes))",
        "SELECT * FROM values('x Int8', 1)",
        "SELECT * FROM format('CSV', '1')",
        "SELECT * FROM generate_series(1, 10)",
        "EXPLAIN CURRENT TRANSACTION",
        "EXPLAIN AST optimize = 1 SELECT file('/etc/passwd')",
        "DESCRIBE TABLE (SELECT file('/etc/passwd'))",
        "SHOW COLUMNS FROM events",
        "SHOW SETTINGS LIKE 'max%'",
        "SELECT 1 INTO OUTFILE '/nowhere/x' APPEND COMPRESSION 'gzip'",
        "SELECT 1 FORMAT SQLInsert",
        "SELECT 1 FORMAT Protobuf",
        "SELECT encrypt('aes-128-ecb', 'x', '0123456789abcdef')",
        "SELECT hasColumnInTable('system', 'processes', 'query')",
        "SELECT serverUUID(), queryID(), uptime(), FQDN()",
        "SELECT 1 AS `a\nb`",
    ],
)  # fmt: skip
def test_more_hostile_statements_are_refused(client: Any, statement: str) -> None:
    with pytest.raises(StatementRefusedError):
        inspect(client, statement)


def test_too_long_a_statement_and_a_nul_are_refused(client: Any) -> None:
    with pytest.raises(StatementRefusedError, match="longer than"):
        inspect(client, "SELECT '" + "x" * (256 << 10) + "'")
    with pytest.raises(StatementRefusedError, match="NUL"):
        inspect(client, "SELECT 1\x00")


def test_none_of_them_left_anything_behind(client: Any, tmp_path: Path) -> None:
    target = tmp_path / "stolen"
    with pytest.raises(StatementRefusedError):
        inspect(client, f"SELECT 1 INTO OUTFILE '{target}'")
    assert not target.exists()
    assert answer(client, "SELECT count() FROM records") == [[RECORDS + 2]]
