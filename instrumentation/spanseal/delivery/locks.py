"""Which spool files belong to a living process: lock files under `flock`.

Every spool file `<id>.db` has a lock file `<id>.lock` beside it, locked as long as its process lives
and unlocked by the kernel however it dies. (SQLite's own locks are no help: POSIX locks vanish when any
descriptor of the file is closed.) A child made by `fork` inherits the descriptor and would keep the lock
of a dead parent alive, so it closes all of them: `forget_all`.

The lock file also holds, at fixed places that were written when it was made, what must be known of the spool
file when the disk is full or the file is gone: the number of records that could not be stored, and whether the
spool file holds, or held, any.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("<QQQ")  # dropped records, process id, 1 while the spool file holds records
_PID_AT, _USED_AT = 8, 16
_WAIT = 2.0
_PAUSE = 0.005


class _Descriptor:
    """An open file descriptor. An object, since the system gives the same number again after a close."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


_held: set[_Descriptor] = set()


class FileLock:
    """A held lock file."""

    def __init__(self, path: Path, descriptor: _Descriptor) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path) -> FileLock:
        """Make a new lock file and hold it.

        Raises:
            BlockingIOError: Someone took the new file for a dead process's before it could be held.
            OSError: It exists or cannot be made.
        """
        descriptor = _open(path, os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(descriptor.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, descriptor):
                raise BlockingIOError(errno.EWOULDBLOCK, "taken and removed by another process", str(path))
            if os.pwrite(descriptor.number, _HEADER.pack(0, os.getpid(), 0), 0) != _HEADER.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except BlockingIOError:
            _close(descriptor)
            raise
        except OSError:
            path.unlink(missing_ok=True)
            _close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """Hold the lock file of a dead process; None if its process lives, or it is gone."""
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it just before: then this is a lock on nothing.
            if _is_at(path, descriptor):
                with suppress(OSError):  # for people to see: whose it is now
                    os.pwrite(descriptor.number, struct.pack("<Q", os.getpid()), _PID_AT)
                return cls(path, descriptor)
        except BlockingIOError:
            pass
        except OSError:
            _close(descriptor)
            raise
        _close(descriptor)
        return None

    @property
    def held(self) -> bool:
        """Whether it is still held."""
        return self._descriptor in _held

    @property
    def dropped(self) -> int:
        """How many records this file's process could not store, since its start."""
        return read_header(self._descriptor.number)[0]

    @property
    def used(self) -> bool:
        """Whether the spool file beside it held records when this was last written."""
        return bool(read_header(self._descriptor.number)[2])

    def set_used(self, *, used: bool) -> None:
        """Write that down: True once the spool file is made, False before it is deleted.

        Raises:
            OSError: It cannot be written.
        """
        os.pwrite(self._descriptor.number, struct.pack("<Q", int(used)), _USED_AT)

    def set_dropped(self, count: int) -> None:
        """Write that number down, in place: this needs no space on the disk.

        Raises:
            OSError: It cannot be written, or the lock is not held any more.
        """
        if not self.held:
            raise OSError(errno.EBADF, "the lock was let go", str(self.path))
        os.pwrite(self._descriptor.number, struct.pack("<Q", count), 0)

    def release(self, *, remove: bool = False) -> None:
        """Let go, and remove the file if asked to."""
        if not self.held:
            return
        if remove:
            with suppress(OSError):
                self.path.unlink()
        _close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Seen:
    """A lock file, looked at from outside."""

    held: bool
    """Whether its process lives; True also while the file is being made."""
    dropped: int
    pid: int
    """Of who holds it or held it last, as that process knew itself: in a container, another number than outside."""


def look_at(path: Path) -> Seen:
    """Look at a lock file without holding it.

    For a moment it is held together with whoever looks, too: who wants it for himself just then tries again later.

    Raises:
        OSError: It is gone or cannot be read.
    """
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        made = os.fstat(number).st_size >= _HEADER.size
        held = True
        # A file without its header is being made: its process must find it free.
        if made:
            with suppress(BlockingIOError):
                fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
                held = False
        dropped, pid, _ = read_header(number)
        return Seen(held, dropped, pid)
    finally:
        os.close(number)


@contextmanager
def directory_lock(directory: Path, wait: float = _WAIT) -> Iterator[None]:
    """Hold the lock of the whole directory for a short time.

    Args:
        directory: The spool's directory.
        wait: Seconds. Nobody holds it for long, unless stopped in the middle by a debugger or SIGSTOP.

    Raises:
        BlockingIOError: It cannot be had in that time.
        OSError: The file cannot be made.
    """
    descriptor = _open(directory / "directory.flock", os.O_CREAT)
    try:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)
        yield
    finally:
        if descriptor in _held:
            _close(descriptor)


def read_header(descriptor: int) -> tuple[int, int, int]:
    """Read (dropped records, process id, used) of an open lock file."""
    data = os.pread(descriptor, _HEADER.size, 0)
    dropped, pid, used = _HEADER.unpack(data.ljust(_HEADER.size, b"\0"))
    return int(dropped), int(pid), int(used)


def forget_all() -> None:
    """Close every inherited lock, in a child: the parent's descriptors keep its locks."""
    for descriptor in tuple(_held):
        with suppress(OSError):
            os.close(descriptor.number)
    _held.clear()


def _open(path: Path, flags: int = 0) -> _Descriptor:
    descriptor = _Descriptor(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600))
    # At once: a child forked before this line would keep the lock of a dead parent alive.
    _held.add(descriptor)
    return descriptor


def _is_at(path: Path, descriptor: _Descriptor) -> bool:
    try:
        return os.fstat(descriptor.number).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _close(descriptor: _Descriptor) -> None:
    _held.discard(descriptor)
    os.close(descriptor.number)
