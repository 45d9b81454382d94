"""The data directory, its keys and its checkpoint log as files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanseal_ledger.checkpoint_log import Line
from spanseal_storage.checkpoint_file import CheckpointFile, read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import (
    CheckpointLogError,
    DirectoryBusyError,
    IdentityError,
    KeyFileError,
    NotADataDirectoryError,
)
from spanseal_storage.keys import (
    SIGNING_KEY_COMMAND_VARIABLE,
    SIGNING_KEY_VARIABLE,
    load_signing_key,
    signing_key_text,
    trusted_keys,
)
from tests.storage.parts import held, key_material


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.create("audit.example.org/test", "collector-1")
    return made


def test_who_holds_it_is_told_and_death_lets_go(directory: DataDirectory) -> None:
    with held(directory) as pid:
        assert directory.is_held()
        with (
            pytest.raises(DirectoryBusyError, match=f"another command .pid {pid}."),
            directory.hold("test"),
        ):
            pass
    with directory.hold("test"):
        assert directory.is_held()
    assert not directory.is_held()


def test_names_are_made_once(directory: DataDirectory, tmp_path: Path) -> None:
    assert directory.create() == directory.identity()
    for names in (("audit.example.org/other", None), (None, "collector-2")):
        with pytest.raises(IdentityError, match="keeps its name"):
            directory.create(*names)
    for bad in ("has space", "with+plus", "https://x", "/x", "x" * 300, "ü"):
        with pytest.raises(IdentityError):
            DataDirectory(tmp_path / "new").create(bad)
    assert not (tmp_path / "new").exists()


def test_what_is_no_data_directory_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("42")
    with pytest.raises(NotADataDirectoryError, match=r"thesis\.txt"):
        DataDirectory(tmp_path).create()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]
    with pytest.raises(NotADataDirectoryError, match="spanseal collector --data"):
        DataDirectory(tmp_path / "nothing").identity()


def test_a_damaged_identity_is_never_made_anew(directory: DataDirectory) -> None:
    (directory.path / "identity.json").write_text("{")
    with pytest.raises(IdentityError, match="never make it anew"):
        directory.create()


def test_the_signing_key_is_made_once_and_is_the_owners(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_signing_key(directory)
    path = directory.keys / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signing_key(directory).vkey == key.vkey
    assert trusted_keys(directory) == [key.vkey]
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_signing_key(directory)
    path.chmod(0o600)
    text = path.read_text()
    path.write_text(text[:-8] + "AAAA" + text[-4:])
    with pytest.raises(KeyFileError) as damaged:
        load_signing_key(directory)
    assert key_material(text)[:20] not in str(damaged.value)

    name = directory.identity().key_name
    line = signing_key_text(name, bytes(range(32)))
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, line)
    from_variable = load_signing_key(directory)
    monkeypatch.delenv(SIGNING_KEY_VARIABLE)
    monkeypatch.setenv(SIGNING_KEY_COMMAND_VARIABLE, f"echo {line}")
    assert load_signing_key(directory).vkey == from_variable.vkey
    monkeypatch.setenv(SIGNING_KEY_COMMAND_VARIABLE, "false")
    with pytest.raises(KeyFileError, match=SIGNING_KEY_COMMAND_VARIABLE):
        load_signing_key(directory)
    monkeypatch.setenv(SIGNING_KEY_COMMAND_VARIABLE, f"echo {signing_key_text('another/name', bytes(32))}")
    with pytest.raises(KeyFileError, match="named 'another/name'"):
        load_signing_key(directory)


def test_a_torn_last_line_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    first, second = Line(1, "a\n\n— k AAAA\n"), Line(2, "b\n\n— k AAAA\n")
    with CheckpointFile(path) as log:
        log.append(first)
    with path.open("ab") as file:
        file.write(b'{"t":9,"no')
    assert read_checkpoint_file(path) == ([first], [])
    with CheckpointFile(path) as log:
        log.append(second)
    assert read_checkpoint_file(path) == ([first, second], [])
    with path.open("ab") as file:
        file.write(b"not json\n")
    lines, problems = read_checkpoint_file(path)
    assert (lines, len(problems)) == ([first, second], 1)
    assert "line 3" in problems[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail("a tmpfs cannot be mounted here")
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_no_half_line(small_disk: Path) -> None:
    path = small_disk / "checkpoints.jsonl"
    line = Line(1, "x" * 1000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(16384))
    with CheckpointFile(path) as log:
        written = 0
        with pytest.raises(CheckpointLogError, match="cannot append"):  # noqa: PT012 - fills it up
            while True:
                log.append(line)
                written += 1
        assert read_checkpoint_file(path) == ([line] * written, [])
        ballast.unlink()
        log.append(line)
    assert read_checkpoint_file(path) == ([line] * (written + 1), [])
