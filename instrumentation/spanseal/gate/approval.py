"""A request for approval, from its beginning to its use. Plain data: what may follow what is held by the store."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from spanseal.actors.actor import Actor

__all__ = [
    "Approval",
    "Attempt",
    "Clock",
    "Note",
    "Person",
    "Resource",
    "State",
    "iso",
    "same_person",
]

SECOND = 1_000_000_000

Clock = Callable[[], int]
"""Gives the time in nanoseconds since the Unix epoch."""


class State(StrEnum):
    """Of an approval."""

    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Resource:
    """To what something is done."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Person:
    """Who asked or approved, as far as it takes to tell two people apart."""

    id: str = ""
    email: str = ""
    behalf: str = ""
    """The id of whoever is acted for."""

    @classmethod
    def of(cls, actor: Actor) -> Person:
        """Take from an actor what tells him apart."""
        return cls(actor.id, actor.email, getattr(actor, "on_behalf_of", ""))

    @property
    def names(self) -> frozenset[str]:
        """Everything that names him, without regard to case."""
        found = (self.id, self.email, self.behalf)
        return frozenset(
            filter(None, (unicodedata.normalize("NFKC", one).strip().casefold() for one in found))
        )


def same_person(one: Person, other: Person) -> bool:
    """Say whether two may be the same: any of one's names is one of the other's."""
    return bool(one.names & other.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody is about to do, to its last detail."""

    action: str
    resource: Resource
    method: str
    route: str
    host: str = ""
    path: str = ""
    """Whole, from the host on: the values of the route's variables stand in it."""
    values: tuple[tuple[str, str], ...] = ()
    """Of the route's variables, by name; of a subdomain too."""
    query: bytes = b""
    body: bytes | None = None
    """None where the approval is not bound to it."""
    tenant: str = ""
    service: str = ""

    def binding(self, requester: Person) -> str:
        """Name exactly this attempt of this person: what an approval is for.

        Returns:
            SHA-256 in hex. Path, query and body may be confidential: only this is stored.
        """
        parts: list[bytes] = [
            b"spanseal approval 1",
            *map(
                _bytes,
                (
                    self.tenant,
                    self.service,
                    self.action,
                    self.resource.type,
                    self.resource.id,
                    self.method,
                    self.route,
                    self.host,
                    self.path,
                    requester.id,
                ),
            ),
            hashlib.sha256(self.query).digest(),
            b"" if self.body is None else hashlib.sha256(self.body).digest(),
        ]
        for name, value in sorted(self.values):
            parts += (_bytes(name), _bytes(value))
        return _digest(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One request for approval. Times are nanoseconds since the Unix epoch, 0 where there is none yet."""

    id: str
    binding: str
    tenant: str
    service: str
    action: str
    resource: Resource
    method: str
    route: str
    requester: Person
    request_id: str
    """Of the request that asked for it."""
    confirm: int
    """How old, in seconds, the approver's own confirmation may be; 0 where none is needed."""
    use_within: int
    """Seconds."""
    requested_at: int
    expires_at: int
    """Until when it waits, and once it is granted, until when it can be used."""
    state: State = State.PENDING
    approver: Person = Person()
    decided_at: int = 0
    reason: str = ""
    """Of who decided."""
    used_at: int = 0
    used_by: str = ""
    """The id of the request that used it."""


Note = Callable[[State, Approval], None]
"""Records a change before it takes effect: is given the new state, and the approval as it will be. Where it raises,
nothing has changed."""


def iso(nanoseconds: int) -> str:
    """Return a time as ISO 8601 UTC with microseconds."""
    seconds, rest = divmod(nanoseconds, SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(parts: Iterable[bytes]) -> str:
    # With their lengths, so that no two lists of parts give the same bytes.
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
