"""Reading back exactly, also after a statement that failed in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic import make_log
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.errors import EngineError
from spanseal_storage.rows import query


def test_an_answer_holds_nothing_of_a_statement_that_failed_before_it(tmp_path: Path) -> None:
    directory = make_log(tmp_path / "data", 1)
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        failing = "SELECT number, throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_threads = 1"
        with pytest.raises(EngineError):
            query(client, failing)
        assert query(client, "SELECT 42, 0") == [(42, 0)]
        client.close()
