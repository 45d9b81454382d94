"""What an application says is checked here, at once: at the collector, nobody is left who could mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spanseal.actors.actor import Actor
from spanseal.errors import InvalidRecord
from spanseal.meaning.mapping import wrong_action
from spanseal.wire import INT64, any_value, clean

__all__ = ["actor_of", "check_action", "check_attributes", "check_outcome", "text_id"]

_OUTCOMES = ("success", "failure", "unknown")
_AUDIT_KEYS = frozenset(
    {
        "audit.data_classes",
        "audit.on_behalf_of",
        "audit.retention_class",
        "audit.severity",
        "audit.subject.id",
        "audit.subject.type",
    }
)
"""What an application may say under the reserved prefix."""
_TAKEN = frozenset({"client.address", "session.id", "user.email", "user_agent.original"})
"""What the request and its actor say."""
_MOST_ATTRIBUTES = 900
"""A collector admits 1,024 pairs in all: the rest is for what the request and the service say."""
_MOST_BYTES = 768 << 10
"""Of all attributes of one record; a collector admits 1 MiB in all."""


def check_action(action: str) -> None:
    """Check the form of an action.

    Raises:
        InvalidRecord: It is not `<resource>.<verb>`, or it is one of Spanseal's own.
    """
    if wrong := wrong_action(str(action)):
        raise InvalidRecord(f"the action {_short(action)} {wrong}")


def check_outcome(outcome: str, failure_reason: str) -> None:
    """Check an outcome with its reason.

    Raises:
        InvalidRecord: The outcome is none, or a success has a reason.
    """
    if outcome not in _OUTCOMES:
        raise InvalidRecord(f"the outcome {_short(outcome)} is not one of {', '.join(_OUTCOMES)}")
    clean(failure_reason, "failure_reason")
    if failure_reason and outcome == "success":
        raise InvalidRecord("a success has no failure_reason")


def check_attributes(attributes: Mapping[Any, object]) -> None:
    """Check the attributes that an application gives a record, all of them together.

    Raises:
        InvalidRecord: A key is reserved, a value has no form in a record, or they are too many or too long.
    """
    if len(attributes) > _MOST_ATTRIBUTES:
        raise InvalidRecord(
            f"{len(attributes)} attributes are more than the {_MOST_ATTRIBUTES} of one record"
        )
    size = 0
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise InvalidRecord(f"an attribute's key must be text and not empty, not {type(key).__name__}")
        if key in _TAKEN:
            raise InvalidRecord(f"the attribute {key!r} is taken from the request and its actor")
        if key.startswith("audit.personal."):
            if not isinstance(value, str):
                raise InvalidRecord(f"the attribute {key!r} must be text")
        elif key.startswith("audit.") and key not in _AUDIT_KEYS:
            raise InvalidRecord(f"the attribute key {_short(key)} is reserved")
        if isinstance(value, str):
            size += len(clean(value, f"the attribute {_short(key)}").encode())
        else:
            size += any_value(value).ByteSize()
        size += len(clean(key, "an attribute's key").encode())
    if size > _MOST_BYTES:
        raise InvalidRecord(f"the attributes have {size} bytes, a record's may have {_MOST_BYTES}")


def text_id(resource_id: str | int) -> str:
    """Return a resource's id as text.

    Raises:
        InvalidRecord: It is a number of more than 64 bits, or neither text nor a number.
    """
    if isinstance(resource_id, int):
        if resource_id not in INT64:
            raise InvalidRecord("resource_id needs more than 64 bits: give it as text")
        return str(resource_id)
    return clean(resource_id, "resource_id")


def actor_of(actor: Actor | str) -> Actor:
    """Return an actor, of a user's id or as it is given.

    Raises:
        InvalidRecord: It is neither.
    """
    if isinstance(actor, Actor):
        return actor
    return Actor(actor)


def _short(text: object) -> str:
    """Return a text for a message."""
    return ascii(text if isinstance(text, str) and len(text) <= 64 else str(text)[:64] + "…")
