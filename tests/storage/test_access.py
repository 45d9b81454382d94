"""How a command gets at a log: by itself, through the collector that holds it, and not at all."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from benchmarks.synthetic import make_log
from examples.demo.processes import Collector
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory, Runtime
from spanseal_storage.errors import (
    DirectoryBusyError,
    EngineError,
    NotADataDirectoryError,
    SchemaError,
)
from spanseal_storage.raw_query import is_embedded
from spanseal_storage.rows import query
from tests.storage.parts import held

RECORDS = 20


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return make_log(tmp_path / "data", RECORDS)


def test_alone_and_through_a_collector_it_is_the_same(directory: DataDirectory, tmp_path: Path) -> None:
    statement = (
        "SELECT count(), max(seq), groupBitXor(cityHash64(hash)) FROM records WHERE tenant = 'default'"
    )
    with open_reader(directory, "test") as client:
        assert is_embedded(client)
        alone = query(client, statement)
        with pytest.raises(EngineError):
            query(client, "SELECT 1", max_threads=1)  # it is read-only, settings and all
    assert not directory.is_held()
    with Collector(directory.path, tmp_path / "collector.txt"), open_reader(directory, "test") as client:
        assert not is_embedded(client)
        assert query(client, statement) == alone
        long = "x" * 100_000
        assert query(client, "SELECT length({text:String})", {"text": long}) == [(100_000,)]
    assert alone[0][:2] == (RECORDS, RECORDS)


def test_one_that_holds_it_and_answers_nothing_is_named(directory: DataDirectory) -> None:
    with held(directory) as pid:
        with (
            pytest.raises(DirectoryBusyError, match=rf"another command \(pid {pid}\)"),
            open_reader(directory, "test", wait=0.1),
        ):
            pass
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            port = deaf.getsockname()[1]
        directory.publish_runtime(Runtime(pid, "127.0.0.1", port, "token"))
        with (
            pytest.raises(EngineError, match=rf"does not answer queries.*another command \(pid {pid}\)"),
            open_reader(directory, "test", wait=0.1),
        ):
            pass


def test_the_token_is_not_shown_to_whoever_listens_where_a_dead_collector_did(
    directory: DataDirectory,
) -> None:
    with held(directory), socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0)
        directory.publish_runtime(Runtime(os.getpid(), "127.0.0.1", stranger.getsockname()[1], "token"))
        with pytest.raises(DirectoryBusyError), open_reader(directory, "test", wait=0.5):
            pass
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_it_waits_for_one_that_is_about_to_let_go(directory: DataDirectory) -> None:
    with held(directory) as pid:
        letting_go = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        letting_go.start()
        with open_reader(directory, "test") as client:
            assert query(client, "SELECT count() FROM records") == [(RECORDS + 2,)]
        letting_go.join()


def test_what_cannot_be_read_is_told(tmp_path: Path, directory: DataDirectory) -> None:
    with pytest.raises(NotADataDirectoryError), open_reader(DataDirectory(tmp_path / "none"), "test"):
        pass
    empty = DataDirectory(tmp_path / "empty")
    empty.create()
    with pytest.raises(SchemaError, match="spanseal storage migrate"), open_reader(empty, "test"):
        pass
    (directory.path / "runtime.json").write_text("{")
    with pytest.raises(NotADataDirectoryError, match=r"runtime\.json"), open_reader(directory, "test"):
        pass
