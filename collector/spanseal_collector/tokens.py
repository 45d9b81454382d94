"""Bearer tokens and the file that knows them: made, listed, revoked by commands, read by the collector.

::

    DIR/keys/
      tokens.json    one entry for each token: id, SHA-256 of the token, scope, tenant, name, times (0600)
      tokens.lock    flock of whoever changes it

A token is `sst_<id>_<secret>`. Its secret is 32 random bytes, so a plain SHA-256 of it is as good as a slow hash.
A revoked token stays in the file: who sends it is told something else than who sends one that never was.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from spanseal_collector.errors import TokenError, TokenFileError
from spanseal_storage.directory import DataDirectory, write_private

__all__ = ["TOKEN", "Scope", "State", "Token", "TokenFile", "digest", "new_token", "parse_lifetime"]

TOKEN = re.compile(r"sst_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_ID = re.compile(r"[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_VERSION = 1
_MAX_BYTES = 8 << 20
_MAX_TEXT = 255
_COLLECTOR_TENANT = "_collector"


class Scope(enum.Enum):
    """What a token is for."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"
    """Both of the others."""

    def covers(self, needed: Scope) -> bool:
        """Tell whether a token of this scope may do what needs the other."""
        return self in (needed, Scope.ADMIN)


class State(enum.Enum):
    """Whether a token is good."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Not the token itself. Times are whole seconds since the epoch."""

    id: str
    sha256: str
    """Hex digest of the whole token."""
    scope: Scope
    tenant: str
    """Into which its records go; empty where they may name theirs."""
    name: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def ended_at(self) -> int | None:
        """Return since when, or from when on, it is good no more; None where it has no end."""
        ends = [at for at in (self.expires_at, self.revoked_at) if at is not None]
        return min(ends, default=None)

    def state(self, now: float) -> State:
        """Tell whether it is good at a time."""
        ended = self.ended_at()
        if ended is None or now < ended:
            return State.ACTIVE
        return State.REVOKED if ended == self.revoked_at else State.EXPIRED


class TokenFile:
    """The token file of a data directory. Making one of these touches nothing on disk."""

    def __init__(self, directory: DataDirectory) -> None:
        self.path = directory.keys / "tokens.json"
        self._directory = directory
        self._lock = directory.keys / "tokens.lock"

    def stamp(self) -> tuple[int, ...] | None:
        """Return what changes whenever the file does; None where there is no file.

        Raises:
            TokenFileError: that cannot be told.

        """
        try:
            return _stamp(self.path.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TokenFileError(f"cannot read {self.path}: {error.strerror}") from error

    def read(self) -> tuple[tuple[Token, ...], tuple[int, ...] | None]:
        """Read all tokens, and the stamp of the file that they were read from; none and None without a file.

        Raises:
            TokenFileError: it cannot be read, is damaged, or others than its owner may use it.

        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_IMODE(status.st_mode) & 0o077:
                    raise TokenFileError(f"others than its owner may use {self.path}: chmod 600 it")
                text = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return (), None
        except OSError as error:
            raise TokenFileError(f"cannot read {self.path}: {error.strerror}") from error
        if len(text) > _MAX_BYTES:
            raise TokenFileError(f"{self.path} is larger than {_MAX_BYTES} bytes; it was damaged")
        try:
            tokens = _parse(text)
        except (ValueError, KeyError, TypeError, RecursionError):
            # Not the error's own text: it may hold a part of the file.
            raise TokenFileError(
                f"{self.path} is not a token file of this version; restore it, or delete it and make new tokens"
            ) from None
        return tokens, _stamp(status)

    def add(self, token: Token) -> None:
        """Add a token, durably. The directory is made where there is none.

        Raises:
            TokenFileError: the file cannot be read or written.
            TokenError: the directory is not for a log.

        """
        self._prepare()
        with self._changing() as tokens:
            tokens.append(token)

    def revoke(self, token_id: str, now: int) -> Token:
        """Revoke a token, durably; one that is revoked stays as it is.

        Args:
            token_id: its id.
            now: seconds since the epoch.

        Returns:
            The token as it is now.

        Raises:
            TokenError: there is none with this id.
            TokenFileError: the file cannot be read or written.

        """
        if not _ID.fullmatch(token_id):
            # Not shown: somebody may have given the token itself.
            raise TokenError("a token's id has 12 hex digits; `spanseal tokens list` shows them")
        missing = TokenError(f"there is no token {token_id} in {self._directory}")
        if all(token.id != token_id for token in self.read()[0]):
            raise missing  # without making anything
        with self._changing() as tokens:
            for place, token in enumerate(tokens):
                if token.id == token_id:
                    if token.revoked_at is None:
                        tokens[place] = replace(token, revoked_at=now)
                    return tokens[place]
        raise missing

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        try:
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                before = self.read()[0]
                tokens = list(before)
                yield tokens
                if tuple(tokens) != before:
                    write_private(self.path, _text(tokens))
            finally:
                os.close(handle)
        except OSError as error:
            raise TokenFileError(f"cannot write {self.path}: {error.strerror}") from error

    def _prepare(self) -> None:
        """Make the directory, in which a collector will then put the rest; its log is not named yet."""
        directory = self._directory
        try:
            if not directory.exists():
                directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if any(path.name not in {"lock", "keys"} for path in directory.path.iterdir()):
                    raise TokenError(
                        f"{directory} is not empty and not a data directory; give another one with --data"
                    )
            directory.keys.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise TokenFileError(f"cannot make {directory.keys}: {error.strerror}") from error


def new_token(
    scope: Scope, *, tenant: str = "", name: str = "", lifetime: int | None = None, now: int | None = None
) -> tuple[str, Token]:
    """Draw a token.

    Args:
        scope: what it is for.
        tenant: into which its records go; empty where they may name theirs.
        name: for people.
        lifetime: seconds until it expires; None where it does not.
        now: seconds since the epoch; the clock's where None.

    Returns:
        The token, which is nowhere else and must be kept, and what is to be stored of it.

    Raises:
        TokenError: the tenant or the name cannot be one.

    """
    if tenant == _COLLECTOR_TENANT:
        raise TokenError("the tenant _collector is the collector's own")
    for text, what in ((tenant, "tenant"), (name, "name")):
        if len(text) > _MAX_TEXT or (text and not text.isprintable()):
            raise TokenError(f"the {what} must be printable, and at most {_MAX_TEXT} characters long")
    created = int(time.time()) if now is None else now
    token_id = secrets.token_hex(6)
    text = f"sst_{token_id}_{secrets.token_urlsafe(32)}"
    expires = None if lifetime is None else created + lifetime
    return text, Token(token_id, digest(text), scope, tenant, name, created, expires)


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def parse_lifetime(text: str) -> int:
    """Read a time such as 90d (m, h, d, w), in seconds.

    Raises:
        TokenError: it is not one.

    """
    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise TokenError(f"{text[:40]!r} is not a time such as 12h, 90d or 52w")
    return int(found[1]) * _SECONDS[found[2]]


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    # An inode may be used again; whoever changes the mode changes neither it nor the time of the content.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _text(tokens: Sequence[Token]) -> str:
    entries = [asdict(token) | {"scope": token.scope.value} for token in tokens]
    return json.dumps({"version": _VERSION, "tokens": entries}, indent=1, ensure_ascii=False) + "\n"


def _parse(text: bytes) -> tuple[Token, ...]:
    data = json.loads(text)
    if data["version"] != _VERSION:
        raise ValueError("another version")
    tokens = tuple(_token(entry) for entry in data["tokens"])
    if len({token.id for token in tokens}) != len(tokens):
        raise ValueError("an id is given twice")
    return tokens


def _token(entry: dict[str, Any]) -> Token:
    if not all(isinstance(entry[key], str) for key in ("id", "sha256", "tenant", "name")):
        raise TypeError("a text is none")
    token = Token(**{**entry, "scope": Scope(entry["scope"])})
    if not (_ID.fullmatch(token.id) and _DIGEST.fullmatch(token.sha256)):
        raise ValueError("a malformed id or digest")
    for at in (token.created_at, token.expires_at or 0, token.revoked_at or 0):
        if type(at) is not int:
            raise TypeError("a time is none")
    return token
