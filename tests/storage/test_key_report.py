"""What is told of keys, wherever the private one comes from; it is never told itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.synthetic import make_log
from spanseal_storage.commands import keys
from spanseal_storage.directory import DataDirectory
from spanseal_storage.key_report import report_keys
from spanseal_storage.keys import (
    SIGNING_KEY_COMMAND_VARIABLE,
    SIGNING_KEY_VARIABLE,
    load_signing_key,
    parse_signing_key,
    signing_key_text,
)
from tests.storage.parts import key_material


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataDirectory:
    monkeypatch.delenv(SIGNING_KEY_VARIABLE, raising=False)
    monkeypatch.delenv(SIGNING_KEY_COMMAND_VARIABLE, raising=False)
    return make_log(tmp_path / "data", 1)


def show(directory: DataDirectory, *options: str, code: int = 0) -> Result:
    result = CliRunner().invoke(keys, ["show", "--data", str(directory), *options])
    assert result.exit_code == code, result.output
    return result


def files(directory: DataDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.keys.iterdir()}


def test_of_a_file(directory: DataDirectory) -> None:
    before = files(directory)
    key = load_signing_key(directory).vkey
    path = directory.keys / "signing.key"
    report = report_keys(directory)
    assert (report.source, report.where, report.warning) == ("file", str(path), "")
    assert (report.keys, report.current) == ((key,), key)
    told = json.loads(show(directory, "--json").stdout)
    assert told["log_name"] == "audit.example.org/bench"
    assert told["collector_name"] == "collector-1"
    assert told["verification_keys"] == [{"vkey": str(key), "key_id": key.key_id.hex(), "current": True}]
    assert f"{key}  (current)" in show(directory).stdout
    private = key_material(path.read_text())
    assert private not in show(directory).output + show(directory, "--json").output
    assert files(directory) == before
    path.chmod(0o640)
    assert "0640" in report_keys(directory).warning
    assert "0640" in show(directory).stdout


def test_of_the_environment(directory: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    name = directory.identity().key_name
    text = signing_key_text(name, bytes(range(32)))
    old, new = load_signing_key(directory).vkey, parse_signing_key(text, "test").vkey
    before = files(directory)
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, text)
    report = report_keys(directory)
    assert (report.source, report.where) == ("environment", SIGNING_KEY_VARIABLE)
    assert (report.keys, report.current) == ((old, new), new)
    assert key_material(text) not in show(directory).output
    assert files(directory) == before
    for wrong, message in (
        (signing_key_text("another/name", bytes(32)), "another/name"),
        (text[:-6] + "AAAA==", SIGNING_KEY_VARIABLE),
        ("PRIVATE+KEY+x", SIGNING_KEY_VARIABLE),
        ("nonsense", SIGNING_KEY_VARIABLE),
    ):
        monkeypatch.setenv(SIGNING_KEY_VARIABLE, wrong)
        told = show(directory, code=2).stderr
        assert message in told
        assert len(told.splitlines()) == 1
        assert key_material(wrong) not in told or wrong == "nonsense"


def test_a_command_is_not_run_and_the_current_key_is_known_by_its_signature(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = load_signing_key(directory).vkey
    (directory.keys / "signing.key").unlink()
    # An older key of the log, which did not sign the newest checkpoint.
    older = parse_signing_key(signing_key_text(key.name, bytes(32)), "test").vkey
    (directory.keys / "0older.vkey").write_text(f"{older}\n")
    trace = tmp_path / "it was run"
    monkeypatch.setenv(SIGNING_KEY_COMMAND_VARIABLE, f"touch '{trace}'")
    report = report_keys(directory)
    assert (report.source, report.where) == ("command", SIGNING_KEY_COMMAND_VARIABLE)
    assert (set(report.keys), report.current) == ({older, key}, key)
    assert not trace.exists()
    directory.checkpoint_log.unlink()
    assert report_keys(directory).current is None
    assert "(current)" not in show(directory).stdout


def test_of_a_directory_that_has_none_yet(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    report = report_keys(directory)
    assert (report.source, report.keys, report.current) == ("none", (), None)
    assert "none yet" in show(directory).stdout
    assert files(directory) == {}


def test_a_damaged_file_is_told(directory: DataDirectory) -> None:
    path = directory.keys / "signing.key"
    text = path.read_text()
    path.write_bytes(b"\xff" + text.encode())
    assert str(path) in show(directory, code=2).stderr
    path.write_text(text)
    (directory.keys / "x.vkey").write_text("not a key\n")
    assert "x.vkey, line 1" in show(directory, code=2).stderr
