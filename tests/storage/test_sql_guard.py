"""What may run of what anybody could send: hostile statements are refused, an analyst's are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import make_log
from spanseal_storage.errors import StatementRefusedError
from spanseal_storage.raw_query import raw_query
from spanseal_storage.sql_guard import check
from tests.storage.parts import limited_client

RECORDS = 600


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = make_log(tmp_path_factory.mktemp("guard") / "data", RECORDS, batch=200)
    with limited_client(directory) as client:
        yield client


HOSTILE = """
SELECT * FROM events INTO OUTFILE '/tmp/stolen'
SELECT * FROM events INTO OUTFILE '/tmp/stolen' TRUNCATE FORMAT CSV
SELECT file('/etc/passwd')
SELECT * FROM file('/etc/passwd', 'LineAsString')
SELECT count() FROM events WHERE file('/etc/passwd') != ''
WITH file('/etc/passwd') AS secret SELECT secret
SELECT arrayMap(x -> file(x), ['/etc/passwd'])
SELECT arrayMap(file, ['/etc/passwd'])
SELECT arrayFilter(x -> sleep(1) = 0, [1])
SELECT (SELECT file('/etc/passwd'))
SELECT 1 UNION ALL SELECT length(file('/etc/passwd'))
SELECT * FROM (SELECT * FROM (SELECT file('/etc/passwd')))
SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')
SELECT * FROM s3('http://127.0.0.1:1/b/k')
SELECT * FROM remote('127.0.0.1', system.one)
SELECT * FROM remoteSecure('127.0.0.1', system.one)
SELECT * FROM cluster('default', system.one)
SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')
SELECT * FROM sqlite('/tmp/x.db', 't')
SELECT * FROM hdfs('hdfs://127.0.0.1/x')
SELECT * FROM executable('id', 'LineAsString', 'x String')
SELECT * FROM view(SELECT * FROM system.processes)
SELECT * FROM merge('system', 'processes')
SELECT * FROM merge(currentDatabase(), '.*')
SELECT * FROM input('x String')
SELECT * FROM generateRandom('x String', 1, 10, 2) LIMIT 1
SELECT * FROM dictionary('d')
SELECT * FROM loop(records)
SELECT * FROM mergeTreeIndex(audit, records)
SELECT * FROM system.processes
SELECT * FROM system.users
SELECT * FROM system.grants
SELECT * FROM system.query_log
SELECT * FROM system.disks
SELECT * FROM system.parts
SELECT * FROM system.server_settings
SELECT * FROM system.named_collections
SELECT * FROM system.zookeeper
SELECT * FROM system.text_log
SELECT * FROM system.stack_trace
SELECT * FROM information_schema.tables
SELECT * FROM `system`.`processes`
SELECT * FROM "system"."processes"
SELECT * FROM system . processes
SELECT * FROM/**/system.processes
SELECT 1 FROM events WHERE 1 IN system.processes
SELECT 1 FROM events WHERE actor_id IN (SELECT query FROM system.processes)
SELECT 1 IN (system.users)
SELECT exists(SELECT 1 FROM system.users)
SELECT * FROM events JOIN system.processes ON 1
SELECT * FROM events, system.processes
WITH x AS (SELECT * FROM system.processes) SELECT * FROM x
SELECT 1; SELECT 2
SELECT 1; DROP TABLE records
SELECT 1 -- comment ; DROP
; DROP TABLE audit.records
DROP TABLE audit.records
TRUNCATE TABLE audit.records
ALTER TABLE audit.records DELETE WHERE 1
ALTER TABLE audit.records UPDATE outcome = 'success' WHERE 1
DELETE FROM audit.records WHERE 1
INSERT INTO audit.records (actor_id) VALUES ('x')
INSERT INTO FUNCTION file('/tmp/x.csv') SELECT * FROM audit.records
CREATE TABLE audit.x (a Int8) ENGINE = Memory
CREATE VIEW audit.x AS SELECT 1
CREATE FUNCTION f AS x -> x
CREATE USER mallory
GRANT ALL ON *.* TO default
RENAME TABLE audit.records TO audit.gone
DETACH TABLE audit.records
ATTACH TABLE audit.records
OPTIMIZE TABLE audit.records FINAL
SYSTEM SHUTDOWN
SYSTEM FLUSH LOGS
KILL QUERY WHERE 1
SET readonly = 0
USE system
BACKUP TABLE audit.records TO File('/tmp/b')
RESTORE TABLE audit.records FROM File('/tmp/b')
SELECT * FROM events SETTINGS readonly = 0
SELECT * FROM events SETTINGS max_execution_time = 0
SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'
SELECT 1 FORMAT CapnProto
EXPLAIN AST SELECT 1; DROP TABLE audit.records
EXPLAIN QUERY TREE SELECT file('/etc/passwd')
EXPLAIN SYNTAX SELECT file('/etc/passwd')
EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'd', 't', 'u', 'p') PARTITION BY x
SHOW PROCESSLIST
SHOW GRANTS
SHOW USERS
SHOW CREATE USER default
SHOW ACCESS
SHOW TABLES FROM system
SHOW CREATE TABLE system.users
DESCRIBE TABLE file('/etc/passwd', 'LineAsString')
DESCRIBE TABLE url('http://127.0.0.1:1/')
DESCRIBE TABLE system.processes
CHECK TABLE audit.records
SELECT sleep(3)
SELECT sleepEachRow(1) FROM events
SELECT throwIf(1)
SELECT hostName()
SELECT getSetting('readonly')
SELECT getMacro('x')
SELECT buildId()
SELECT currentProfiles()
SELECT dictGet('d', 'a', 1)
SELECT joinGet('j', 'a', 1)
SELECT catboostEvaluate('/tmp/m', 1)
SELECT addressToLine(1)
SELECT demangle('x')
SELECT filesystemAvailable()
SELECT logTrace('x')
SELECT evalMLMethod(1, 1)
SELECT COLUMNS('.*') APPLY(file) FROM events
SELECT * APPLY(toString) FROM events
SELECT * FROM events PARALLEL WITH SELECT 1
SELECT \u201cfile\u201d(\u2018/etc/passwd\u2019)
SELECT * FROM `ev\\nents`
SELECT 'unfinished
SELECT
""".strip().splitlines()

HONEST = """
SELECT count() FROM events
SELECT count() FROM audit.events
SELECT count() FROM records WHERE outcome = 'failure'
SELECT actor_id, count() AS n FROM events GROUP BY ALL ORDER BY n DESC LIMIT 5
SELECT action, outcome, count() FROM events GROUP BY action, outcome WITH TOTALS
SELECT toStartOfHour(event_time) AS hour, count() FROM events GROUP BY hour ORDER BY hour
SELECT toDate(event_time), uniqExact(actor_id) FROM events GROUP BY 1
SELECT quantile(0.95)(length(actor_id)) FROM events
SELECT quantiles(0.5, 0.9)(toUnixTimestamp(event_time)) FROM events
SELECT topK(3)(actor_id) FROM events
SELECT groupArray(3)(action) FROM events
SELECT sumIf(1, outcome = 'failure'), countIf(outcome = 'success'), avgIf(1, 1) FROM events
SELECT argMax(action, event_time) FROM events
SELECT any(metadata['http.route']) FROM events
SELECT mapKeys(metadata) FROM events LIMIT 1
SELECT arrayJoin(mapKeys(metadata)) AS k, count() FROM events GROUP BY k
SELECT k, v FROM events ARRAY JOIN mapKeys(metadata) AS k, mapValues(metadata) AS v LIMIT 3
SELECT arrayMap(x -> upper(x), mapKeys(metadata)) FROM events LIMIT 1
SELECT arrayFilter((k, v) -> v != '', mapKeys(metadata), mapValues(metadata)) FROM events LIMIT 1
SELECT actor_id, row_number() OVER (PARTITION BY actor_id ORDER BY event_time) AS n FROM events LIMIT 5
SELECT event_time - lagInFrame(event_time) OVER (ORDER BY event_time ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM events LIMIT 2
WITH failures AS (SELECT * FROM events WHERE outcome = 'failure') SELECT actor_id, count() FROM failures GROUP BY actor_id
WITH 10 AS least SELECT actor_id FROM events GROUP BY actor_id HAVING count() >= least
SELECT a.actor_id FROM events AS a INNER JOIN events AS b ON a.request_id = b.request_id LIMIT 1
SELECT a.actor_id FROM events AS a LEFT JOIN (SELECT actor_id, max(event_time) AS last FROM events GROUP BY actor_id) AS b USING (actor_id) LIMIT 1
SELECT * FROM events WHERE actor_id IN (SELECT actor_id FROM events WHERE outcome = 'failure') LIMIT 1
SELECT * FROM events WHERE actor_id IN ('u-1', 'u-2') AND action LIKE 'patient.%' LIMIT 1
SELECT * FROM events WHERE match(action, '^patient') LIMIT 1
SELECT * FROM events WHERE event_time > now() - INTERVAL 7 DAY LIMIT 1
SELECT * FROM events WHERE event_time BETWEEN '2020-01-01' AND '2100-01-01' LIMIT 1
SELECT * EXCEPT (metadata) FROM events LIMIT 1
SELECT * REPLACE (upper(action) AS action) FROM events LIMIT 1
SELECT if(outcome = 'failure', 1, 0) AS bad, multiIf(bad, 'x', 'y') FROM events LIMIT 1
SELECT CASE outcome WHEN 'failure' THEN 1 ELSE 0 END FROM events LIMIT 1
SELECT CAST(seq AS String), seq::String FROM events LIMIT 1
SELECT hex(SHA256(actor_id)), lower(hex(hash)) FROM records LIMIT 1
SELECT dateDiff('second', min(event_time), max(event_time)) FROM events
SELECT formatDateTime(event_time, '%Y-%m') FROM events LIMIT 1
SELECT splitByChar('.', action)[1] FROM events LIMIT 1
SELECT JSONExtractString('{"a":"b"}', 'a')
SELECT number FROM numbers(3)
SELECT 1 UNION ALL SELECT 2
SELECT DISTINCT actor_role FROM events
SELECT count() FROM events FORMAT JSON
SELECT count() FROM events FORMAT CSVWithNames
SELECT size, note FROM checkpoints ORDER BY size
SELECT reason, count() FROM quarantine GROUP BY reason
SHOW TABLES
SHOW TABLES FROM audit LIKE 'ev%'
SHOW CREATE TABLE audit.records
DESCRIBE TABLE events
DESCRIBE audit.records
EXPLAIN SELECT count() FROM events WHERE actor_id = 'u-1'
EXPLAIN indexes = 1 SELECT count() FROM events WHERE actor_id = 'u-1'
EXPLAIN PIPELINE SELECT count() FROM events
EXISTS TABLE audit.records
SELECT name FROM system.tables WHERE database = 'audit'
SELECT version()
select /* a comment */ count() from events -- and another one
""".strip().splitlines()


@pytest.mark.parametrize("statement", HOSTILE)
def test_a_hostile_statement_is_refused(client: Any, statement: str) -> None:
    if statement.startswith("SELECT 1 -- comment"):
        # A comment hides nothing: what runs is the engine's own form without it.
        assert check(client, statement) == "SELECT 1"
        return
    with pytest.raises(StatementRefusedError):
        check(client, statement)


@pytest.mark.parametrize("statement", HONEST)
def test_an_honest_statement_runs(client: Any, statement: str) -> None:
    text = check(client, statement)
    # As the endpoint does: a statement with a FORMAT of its own keeps it.
    has_format = " FORMAT " in text
    raw_query(client, text, None if has_format else "TabSeparated", {})


def test_the_answers_are_right(client: Any) -> None:
    def answer(statement: str) -> str:
        return raw_query(client, check(client, statement), "TabSeparated", {}).decode().strip()

    assert answer("SELECT count() FROM events WHERE tenant != '_collector'") == str(RECORDS)
    failures = sum(number % 50 == 7 for number in range(RECORDS))
    assert answer("SELECT countIf(outcome = 'failure') FROM events") == str(failures)
    assert answer("SELECT uniqExact(actor_id) FROM events WHERE tenant = 'default'") == str(
        min(1000, RECORDS)
    )


def test_bound_parameters_are_values_and_nothing_else(client: Any) -> None:
    statement = "SELECT count() FROM events WHERE actor_id = {x:String}"
    evil = "' OR 1; DROP TABLE records --"
    text = check(client, statement, {"x": evil})
    assert "DROP" not in text
    assert raw_query(client, text, "TabSeparated", {"x": evil}) == b"0\n"
    with pytest.raises(StatementRefusedError):
        check(client, "SELECT * FROM {t:Identifier}", {"t": "system.processes"})


def test_nothing_hostile_ever_wrote_a_file() -> None:
    assert not Path("/tmp/stolen").exists()  # noqa: S108 - the name that the statements above used
