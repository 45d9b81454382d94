"""The data directory of an embedded log: what lies where, who holds it, what it is called.

::

    DIR/
      identity.json       log name and collector name, made once
      lock                flock; holds pid and command of the holder
      runtime.json        where a running collector answers queries, and the token for it (0600)
      checkpoints.jsonl   the checkpoint log, outside the database
      keys/               signing key (0600) and trusted verification keys
      clickhouse/         the embedded engine's own files
      engine/             the engine's configuration, written at each start
      tmp/                what an insert puts down for a moment (0700), emptied at each start
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanseal_storage.errors import DirectoryBusyError, IdentityError, NotADataDirectoryError

__all__ = ["DataDirectory", "Identity", "Runtime", "write_private"]

_NAME = re.compile(r"[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """Names that are part of every checkpoint, made once and never changed."""

    log_name: str
    """A schema-less URL without space or `+`, such as `audit.example.org/prod`."""
    collector_name: str

    @property
    def key_name(self) -> str:
        """Name of the signing key: `<log name>/<collector name>`."""
        return f"{self.log_name}/{self.collector_name}"


@dataclass(frozen=True, slots=True)
class Runtime:
    """How to reach the collector that holds a directory."""

    pid: int
    host: str
    port: int
    token: str


class DataDirectory:
    """A directory with an embedded log. Making one of these touches nothing on disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.keys = self.path / "keys"
        self.checkpoint_log = self.path / "checkpoints.jsonl"
        self.engine_path = self.path / "clickhouse"
        self.engine_config = self.path / "engine"
        self._identity = self.path / "identity.json"
        self._runtime = self.path / "runtime.json"
        self._lock = self.path / "lock"

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Tell whether this is a data directory already."""
        return self._identity.is_file()

    def require(self) -> None:
        """Raise unless this is a data directory.

        Raises:
            NotADataDirectoryError: it is not; the message says how to make one.

        """
        if not self.exists():
            raise NotADataDirectoryError(
                f"{self.path} is not a Spanseal data directory (it has no identity.json); "
                f"`spanseal collector --data {self.path}` makes one"
            )

    def identity(self) -> Identity:
        """Read the names of the log and the collector.

        Raises:
            NotADataDirectoryError: there is no identity.json.
            IdentityError: it cannot be read, or a name in it is malformed.

        """
        self.require()
        try:
            data = json.loads(self._identity.read_text("utf-8"))
            found = Identity(str(data["log_name"]), str(data["collector_name"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IdentityError(
                f"cannot read {self._identity}: {error}; restore it, never make it anew"
            ) from error
        _check_name(found.log_name, "log name")
        _check_name(found.collector_name, "collector name")
        return found

    def create(self, log_name: str | None = None, collector_name: str | None = None) -> Identity:
        """Make the directory and its identity, or return the identity that it has.

        Args:
            log_name: the log's name; made up where None and the directory is new.
            collector_name: likewise.

        Raises:
            IdentityError: a name is malformed, or not the one the directory was made with.
            NotADataDirectoryError: the directory cannot be made, or holds something else.

        """
        if self.exists():
            found = self.identity()
            for given, had, what in (
                (log_name, found.log_name, "log name"),
                (collector_name, found.collector_name, "collector name"),
            ):
                if given is not None and given != had:
                    raise IdentityError(
                        f"{self.path} was made with the {what} {had!r}, not {given!r}; "
                        "a log keeps its name for ever: leave the option out, or use another directory"
                    )
            return found
        identity = Identity(
            _check_name(log_name or f"spanseal.local/{secrets.token_hex(4)}", "log name"),
            _check_name(collector_name or "collector-1", "collector name"),
        )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            strangers = sorted(p.name for p in self.path.iterdir() if p.name not in {"lock", "keys"})
            if strangers:
                raise NotADataDirectoryError(
                    f"{self.path} is not empty and not a data directory (it holds {strangers[0]!r}); "
                    "give an empty or a new directory"
                )
            self.keys.mkdir(mode=0o700, exist_ok=True)
            text = json.dumps(
                {"log_name": identity.log_name, "collector_name": identity.collector_name}, indent=1
            )
            write_private(self._identity, text + "\n")
        except OSError as error:
            raise NotADataDirectoryError(f"cannot make the data directory {self.path}: {error}") from error
        return identity

    @contextlib.contextmanager
    def hold(self, what: str, *, wait: float = 0.0) -> Iterator[None]:
        """Hold the directory alone: the embedded engine is one process.

        Args:
            what: the command that holds it, told to whoever is refused.
            wait: seconds to wait for the holder to let go.

        Raises:
            DirectoryBusyError: it is held; names the holder and its pid.

        """
        deadline = time.monotonic() + wait
        try:
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotADataDirectoryError(f"cannot open {self._lock}: {error}") from error
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise
                if time.monotonic() >= deadline:
                    holder, pid = self.holder()
                    raise DirectoryBusyError(str(self.path), holder, pid)
                time.sleep(_POLL_SECONDS)
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def holder(self) -> tuple[str, int | None]:
        """Tell who holds the directory, as far as the lock file says."""
        try:
            data = json.loads(self._lock.read_text("utf-8"))
            return str(data["what"]), int(data["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return "another process", None

    def is_held(self) -> bool:
        """Tell whether a process holds the directory now."""
        try:
            handle = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def publish_runtime(self, runtime: Runtime) -> None:
        """Say where this process answers queries; readable by the directory's owner only."""
        data = {"pid": runtime.pid, "host": runtime.host, "port": runtime.port, "token": runtime.token}
        write_private(self._runtime, json.dumps(data) + "\n")

    def withdraw_runtime(self) -> None:
        """Take back what `publish_runtime` said."""
        self._runtime.unlink(missing_ok=True)

    def runtime(self) -> Runtime | None:
        """Where the collector that holds this directory answers queries; None where none does."""
        try:
            data: dict[str, Any] = json.loads(self._runtime.read_text("utf-8"))
            return Runtime(int(data["pid"]), str(data["host"]), int(data["port"]), str(data["token"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotADataDirectoryError(f"cannot read {self._runtime}: {error}") from error


def _check_name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise IdentityError(
            f"the {what} {name!r} is not usable: letters, digits and ._~- in parts separated by '/', "
            "at most 255 characters, such as audit.example.org/prod"
        )
    return name


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a small file whole or not at all, durable, readable by its owner only unless told otherwise.

    Raises:
        OSError: it cannot be written.

    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # a rename is durable only once its directory is
    finally:
        os.close(directory)
