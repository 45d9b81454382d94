"""The checkpoint log as a file outside the database: appended, fdatasync'ed, never rewritten."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from spanseal_ledger.checkpoint_log import Line, encode, parse_log
from spanseal_storage.errors import CheckpointLogError

__all__ = ["CheckpointFile", "read_checkpoint_file"]


def read_checkpoint_file(path: Path) -> tuple[list[Line], list[str]]:
    """Read a checkpoint log.

    Returns:
        Its lines in file order, and what was wrong with lines that could not be read.

    Raises:
        CheckpointLogError: the file cannot be read.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointLogError(f"cannot read the checkpoint log {path}: {error}") from error
    lines, problems = parse_log(data)
    return list(lines), [str(problem) for problem in problems]


class CheckpointFile:
    """A checkpoint log that is open for appending. One process at a time, which the caller sees to."""

    def __init__(self, path: Path) -> None:
        """Open the file, make it where there is none, and cut off a last line without newline.

        Such a line was never whole, so nothing was acknowledged on its word; left in place it would be
        glued to the next one.

        Raises:
            CheckpointLogError: the file cannot be opened.

        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._end = self._whole_lines()
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise CheckpointLogError(f"cannot open the checkpoint log {path}: {error}") from error

    def append(self, line: Line) -> None:
        """Append a line and make it durable. A line that could not be written whole leaves no trace.

        Raises:
            CheckpointLogError: it could not be written; nothing that it covers may be acknowledged.

        """
        data = encode(line)
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
            os.fdatasync(self._file)
        except OSError as error:
            with_cut = ""
            try:
                os.ftruncate(self._file, self._end)
            except OSError as second:
                with_cut = f" (and it could not be cut back: {second})"
            raise CheckpointLogError(
                f"cannot append to the checkpoint log {self.path}: {error}{with_cut}"
            ) from error
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _whole_lines(self) -> int:
        size = os.fstat(self._file).st_size
        position = size
        while position > 0:
            start = max(0, position - 65536)
            block = os.pread(self._file, position - start, start)
            if (newline := block.rfind(b"\n")) >= 0:
                return start + newline + 1
            position = start
        return 0
