"""Which spool files belong to a living process: lock files under `flock`.

Every spool file `<id>.db` has a lock file `<id>.lock` beside it, locked as long as its process lives
and unlocked by the kernel however it dies. (SQLite's own locks are no help: POSIX locks vanish when any
descriptor of the file is closed.) A child made by `fork` inherits the descriptor and would keep the lock
of a dead parent alive, so it closes all of them: `forget_all`.

The lock file also holds, at fixed places that were written when it was made, what must be countable when
the disk is full: the number of records that could not be stored.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("<QQ")  # dropped records, process id
_held: set[int] = set()


class FileLock:
    """A held lock file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(descriptor)

    @classmethod
    def create(cls, path: Path) -> FileLock:
        """Make a new lock file and hold it.

        Raises:
            OSError: It exists, cannot be made, or someone was faster.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, _HEADER.pack(0, os.getpid()), 0)
        except OSError:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """Hold the lock file of a dead process; None if its process lives, or it is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it just before: then this is a lock on nothing.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    @property
    def dropped(self) -> int:
        """How many records this file's process could not store, since its start."""
        return read_header(self._descriptor)[0]

    def set_dropped(self, count: int) -> None:
        """Write that number down, in place: this needs no space on the disk.

        Raises:
            OSError: It cannot be written, or the lock is not held any more.
        """
        if self._descriptor not in _held:
            raise OSError(errno.EBADF, "the lock was let go", str(self.path))
        os.pwrite(self._descriptor, struct.pack("<Q", count), 0)

    def release(self, *, remove: bool = False) -> None:
        """Let go, and remove the file if asked to."""
        if self._descriptor not in _held:
            return
        if remove:
            with suppress(OSError):
                self.path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of the whole directory for a short time; waits for it."""
    descriptor = os.open(directory / "directory.flock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def read_header(descriptor: int) -> tuple[int, int]:
    """Read (dropped records, process id) of an open lock file."""
    data = os.pread(descriptor, _HEADER.size, 0)
    if len(data) < _HEADER.size:
        return 0, 0
    dropped, pid = _HEADER.unpack(data)
    return int(dropped), int(pid)


def forget_all() -> None:
    """Close every inherited lock, in a child: the parent's descriptors keep its locks."""
    for descriptor in tuple(_held):
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
