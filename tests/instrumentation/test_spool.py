"""The spool of a living process."""

from __future__ import annotations

import fcntl
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from spanseal import settings
from spanseal.delivery import spool
from spanseal.delivery.locks import FileLock, directory_lock
from spanseal.delivery.producer import damaged
from spanseal.delivery.registry import ended_streams
from spanseal.delivery.spool import Spool
from spanseal.delivery.spool_file import Access
from spanseal.errors import SpoolUnavailable
from spanseal.wire import AuditRecord
from tests.instrumentation.conftest import Row, spool_rows

MakeSpool = Callable[..., Spool]


def body(name: str, size: int = 0) -> bytes:
    record = AuditRecord(record_id=name, event_time=1, action="test.done", attributes={"fill": "x" * size})
    return record.encode()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSpool]:
    made: list[Spool] = []

    def make_spool(**variables: str) -> Spool:
        environ = {"SPANSEAL_SPOOL_DIR": str(tmp_path / "spool"), **variables}
        made.append(Spool(settings.load(environ), b"", Access()))
        return made[-1]

    yield make_spool
    for one in made:
        one.file.close()
        one.lock.release()


def rows(one: Spool) -> list[Row]:
    return spool_rows(one.directory)


def ids(one: Spool) -> list[tuple[str, int | None, str]]:
    return [
        (row.state, row.number, row.attributes["audit.record.id"])
        for row in rows(one)
        if row.action == "test.done"
    ]


def test_the_life_of_a_row(make: MakeSpool) -> None:
    one = make()
    (started,) = rows(one)
    assert (started.state, started.number, started.action) == ("final", 0, "producer.started")
    assert started.attributes["audit.producer.previous"] == "[]"
    first = one.begin(body("a"))
    assert ids(one) == [("open", None, "a")]
    assert one.answer(first, body("a2")) == first
    second = one.answer(None, body("b"))
    assert ids(one) == [("answered", None, "a2"), ("answered", None, "b")]
    one.append(body("c"))
    # Ended in another order than begun; what is not told anew stays.
    one.finish(second, None)
    one.finish(first, body("a3"))
    assert ids(one)[:2] == [("answered", None, "a2"), ("answered", None, "b")]
    assert one.finished == 2
    assert one.settle() == 2
    assert one.settle() == 0
    assert ids(one) == [("final", 3, "a3"), ("final", 2, "b"), ("final", 1, "c")]
    assert [row.seq for row in one.file.final(10, 1 << 20)] == [0, 1, 2, 3]
    assert one.last == 3


def test_the_end_is_the_last_number_and_what_follows_has_none(make: MakeSpool) -> None:
    one = make()
    row, running = one.begin(body("a")), one.begin(body("r"))
    one.finish(row, None)
    one.stop()
    one.stop()
    numbered = [row for row in rows(one) if row.number is not None]
    last = numbered[-1]
    assert (last.action, last.number, last.attributes["audit.producer.last"]) == ("producer.stopped", 2, 2)
    one.append(body("late"))
    one.begin(body("begun"))
    one.finish(one.answer(None, body("b")), body("ended"))
    one.answer(running, body("answered"))
    assert [row for row in rows(one) if row.number is not None] == numbered
    assert [(row.state, row.attributes["audit.record.id"]) for row in rows(one) if row.number is None] == [
        ("answered", "answered"),
        ("answered", "late"),
        ("open", "begun"),
        ("answered", "ended"),
    ]


def test_nothing_gets_a_number_behind_the_end_while_it_is_written(make: MakeSpool) -> None:
    """Threads append as fast as they can while the stream is ended."""
    one = make()
    begun = threading.Barrier(5)

    def work() -> None:
        begun.wait(20)
        while not one.closed:
            one.append(body("a"))
        for _ in range(20):
            one.append(body("late"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    one.stop()
    for thread in threads:
        thread.join()
    numbers = {row.number: row.action for row in rows(one) if row.number is not None}
    assert sorted(numbers) == list(range(len(numbers)))
    assert numbers[len(numbers) - 1] == "producer.stopped"
    assert sum(row.number is None for row in rows(one)) >= 80


def test_what_could_not_be_stored_is_named_by_number(make: MakeSpool) -> None:
    one = make()
    one.drop()
    one.drop(2)
    assert one.lock.dropped == 3
    one.append(body("a"))
    assert one.settle() == 0
    gap = rows(one)[-1]
    named = {key.removeprefix("audit.producer.gap."): value for key, value in gap.attributes.items()}
    assert (gap.action, gap.number) == ("producer.gap", 5)
    assert (named["first"], named["last"], named["count"]) == (2, 4, 3)
    assert (named["stream_id"], named["reason"]) == (one.stream, "spool_unavailable")
    one.append(body("b"))
    assert rows(one)[-1].number == 6
    assert one.finished == 0


def test_drops_from_many_threads_are_all_counted(make: MakeSpool) -> None:
    one = make()

    def work() -> None:
        for _ in range(200):
            one.drop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.lock.dropped == one.finished == 1600


def test_what_cannot_be_settled_stays(make: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make()
    for name in ("a", "b"):
        one.finish(one.begin(body(name)), None)
    one.drop()
    with monkeypatch.context() as broken:

        def transaction(**_options: bool) -> Any:
            raise SpoolUnavailable("no space left")

        broken.setattr(one.file, "transaction", transaction)
        with pytest.raises(SpoolUnavailable):
            one.settle()
    assert one.finished == 3
    assert one.settle() == 2
    assert [number for _, number, _ in ids(one)] == [1, 2]


def test_a_settled_batch_is_all_or_nothing(make: MakeSpool) -> None:
    one = make()
    row = one.begin(body("a"))
    one.finish(row, None)
    one.finish(row, object())  # type: ignore[arg-type]  # something that SQLite does not take
    with pytest.raises(SpoolUnavailable):
        one.settle()
    assert ids(one) == [("open", None, "a")]
    assert one.last == 0


def test_batches_are_bounded_by_rows_and_by_bytes(make: MakeSpool) -> None:
    one = make()
    for number in range(5):
        one.append(body(str(number), 10_000))
    assert len(one.file.final(3, 1 << 20)) == 3
    assert len(one.file.final(10, 25_000)) == 3
    assert len(one.file.final(10, 1)) == 1


def test_a_full_spool_takes_no_more_but_what_is_in_it_can_end(make: MakeSpool) -> None:
    one = make(SPANSEAL_SPOOL_MAX_BYTES=str(1 << 16))
    waiting = []
    with suppress(SpoolUnavailable):
        while True:
            waiting.append(one.begin(body("a", 100)))
    assert len(waiting) > 10
    with pytest.raises(SpoolUnavailable, match="full"):
        one.append(body("b", 4000))
    for row in waiting:
        one.answer(row, body("a", 150))
        one.finish(row, body("a", 200))
    settled = []
    while done := one.settle():
        settled.append(done)
    assert sum(settled) == len(waiting)
    one.append(damaged("s", "", ["x"]), beyond=True)
    with pytest.raises(SpoolUnavailable, match="full"):
        one.append(body("b", 4000))
    one.file.delete([row.id for row in one.file.final(1000, 1 << 30)])
    one.append(body("b", 4000))
    one.stop()


def test_the_bound_is_of_the_whole_directory(make: MakeSpool) -> None:
    one = make(SPANSEAL_SPOOL_MAX_BYTES=str(1 << 20))
    (one.directory / "other.db").write_bytes(bytes(1 << 20))
    one.fit()
    with pytest.raises(SpoolUnavailable, match="full"):
        one.append(body("a", 1 << 16))
    (one.directory / "other.db").unlink()
    one.fit()
    one.append(body("a", 1 << 16))


def test_only_the_owner_can_read_it(make: MakeSpool) -> None:
    one = make()
    assert stat.S_IMODE(one.directory.stat().st_mode) == 0o700
    for path in one.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_durable_spool_writes_through(make: MakeSpool) -> None:
    for durability, level in (("process", 1), ("disk", 2)):
        one = make(SPANSEAL_DURABILITY=durability)
        assert one.file.read("PRAGMA synchronous") == [(level,)]
        assert one.file.read("PRAGMA journal_mode") == [("wal",)]
        one.file.sync()


def test_the_wal_stays_small(make: MakeSpool) -> None:
    one = make()
    for number in range(600):
        one.append(body(str(number), 1000))
    wal = one.directory / f"{one.file.path.name}-wal"
    before = wal.stat().st_size
    one.file.checkpoint()
    for number in range(10):
        one.append(body(str(number), 1000))
    assert wal.stat().st_size <= before
    assert one.file.path.stat().st_size > 600_000


def test_a_spool_that_cannot_be_made_leaves_nothing(
    make: MakeSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> Any:
        raise SpoolUnavailable("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(Spool, "_start", fail)
        with pytest.raises(SpoolUnavailable):
            make()
    assert list((tmp_path / "spool").iterdir()) == []
    make()


def test_a_spool_does_not_wait_long_for_the_list_of_ended_streams(
    make: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    with directory_lock(first.directory), ended_streams(first.directory) as ended:
        found = settings.load({"SPANSEAL_SPOOL_DIR": str(first.directory)})
        ended.add(found.export.endpoint, found.instance, "", "gone/1", 7)
    with directory_lock(first.directory), monkeypatch.context() as impatient:
        impatient.setattr(spool, "directory_lock", lambda path: directory_lock(path, wait=0.01))
        make()
    make()
    named = [row.attributes["audit.producer.previous"] for row in rows(first)]
    assert named == ["[]", "[]", '[{"stream_id":"gone/1","last":7}]']


def test_a_lock_that_another_process_takes_while_it_is_made_is_made_anew(
    make: MakeSpool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An adopter that looks between the making of a lock file and its locking."""
    create = FileLock.create
    stolen: list[FileLock] = []

    def slow(path: Path) -> FileLock:
        if not stolen:
            path.touch()
            taken = FileLock.take(path)
            assert taken is not None
            stolen.append(taken)
            raise BlockingIOError
        return create(path)

    monkeypatch.setattr(FileLock, "create", slow)
    one = make()
    assert one.lock.path != stolen[0].path
    assert one.lock.held
    stolen[0].release(remove=True)
    assert {path.suffix for path in (tmp_path / "spool").iterdir()} >= {".lock", ".db"}


def test_locks(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = FileLock.create(path)
    assert FileLock.take(path) is None
    with pytest.raises(FileExistsError):
        FileLock.create(path)
    assert (lock.used, lock.dropped) == (False, 0)
    lock.set_used(used=True)
    lock.set_dropped(7)
    lock.release()
    lock.release()
    again = FileLock.take(path)
    assert again is not None
    assert (again.used, again.dropped) == (True, 7)
    # The number of the closed descriptor may be another lock's by now.
    lock.release()
    assert again.held
    assert not lock.held
    with pytest.raises(OSError, match="let go"):
        lock.set_dropped(8)
    again.release(remove=True)
    assert FileLock.take(path) is None
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        FileLock.take(path)


def test_a_lock_that_is_removed_while_it_is_taken_is_a_lock_on_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    flock = fcntl.flock

    def removing(descriptor: int, operation: int) -> None:
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    path.touch()
    assert FileLock.take(path) is None
    with pytest.raises(BlockingIOError):
        FileLock.create(path)


def test_a_file_that_is_used_by_others_can_be_read_by_them(make: MakeSpool) -> None:
    one = make()
    one.begin(body("a"))
    with closing(sqlite3.connect(f"file:{one.file.path}?mode=ro", uri=True)) as reader:
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (2,)
        one.begin(body("b"))
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (3,)
