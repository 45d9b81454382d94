"""What several tests of the storage need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.schema import DATABASE
from spanseal_storage.sql_readers import LIMITS


@contextmanager
def held(directory: DataDirectory) -> Iterator[int]:
    """Let another process hold the directory; yields its id."""
    program = (
        "import sys; from spanseal_storage.directory import DataDirectory\n"
        "with DataDirectory(sys.argv[1]).hold('another command'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other.pid
        finally:
            other.kill()


@contextmanager
def limited_client(directory: DataDirectory) -> Iterator[Any]:
    """Open a client with the rights and limits that the SQL endpoint's have."""
    with directory.hold("test"), open_engine(directory, Role.READER) as engine:
        client = engine.client(**LIMITS)
        client.database = DATABASE
        yield client
        client.close()


def key_material(line: str) -> str:
    """The secret of a signing key's line, whose base64 may hold a + of its own."""
    return line.strip().split("+", 4)[-1]
