"""On a terminal people see what the command says, and nothing of what the engine logs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic import make_log

SPANSEAL = Path(sys.executable).parent / "spanseal"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("terminal") / "data", 20).path


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run the command with a pseudo terminal for all of its streams."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(SPANSEAL), *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": "140", "TERM": "xterm-256color"},
    )
    os.close(follower)
    parts = []
    try:
        while part := os.read(leader, 65536):
            parts.append(part)
    except OSError:  # how Linux tells that nobody holds the other end any more
        pass
    os.close(leader)
    return process.wait(), b"".join(parts).decode()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("events", "--limit", "3"), "patient.viewed"),
        (("verify",), "CLEAN"),
        (("query", "SELECT 41 + 1 AS answer"), "42"),
        (("storage", "status"), "schema version"),
    ],
)
def test_a_terminal_shows_the_answer_alone(data: Path, arguments: tuple[str, ...], expected: str) -> None:
    command, *rest = arguments
    at = 1 if command == "storage" else 0
    code, shown = on_a_terminal(command, *rest[:at], "--data", str(data), *rest[at:])
    assert code == 0, shown
    assert expected in shown
    assert not [
        line for line in shown.splitlines() if "Debug" in line or "Trace" in line or "Information" in line
    ]
    assert len(shown.splitlines()) < 40
