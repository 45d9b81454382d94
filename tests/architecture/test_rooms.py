"""Arrows between rooms point one way (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "ledger/spanseal_ledger": {"cryptography"},
    "instrumentation/spanseal": {
        "opentelemetry",
        "google",
        "grpc",
        "requests",
        "click",
        "flask",
        "werkzeug",
        "blinker",
        "pytest",
        "yaml",
        "rich",
    },
    "storage/spanseal_storage": {
        "spanseal_ledger",
        "clickhouse_connect",
        "chdb",
        "click",
        "rich",
        "starlette",
    },
    "collector/spanseal_collector": {
        "spanseal_ledger",
        "spanseal_storage",
        "click",
        "rich",
        "starlette",
        "uvicorn",
        "google",
        "grpc",
        "backports",
        "compression",
        "opentelemetry",
    },
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    own = room.rpartition("/")[2]
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name not in ROOMS[room] | {own} | sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ["opentelemetry.sdk.trace.export", "chdb"])
def test_the_instrumentation_names_no_engine(package: str) -> None:
    for path in (ROOT / "instrumentation").rglob("*.py"):
        assert f"import {package}" not in path.read_text("utf-8")


def test_modules_are_of_a_readable_size() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (count := len(path.read_text("utf-8").splitlines())) > 420
    }
    assert not long
