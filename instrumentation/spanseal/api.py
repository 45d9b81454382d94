"""What an application may call, though it need not: records of its own, and who acts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from .actor import ANONYMOUS, Actor
from .errors import InvalidRecord
from .identifiers import uuid7
from .runtime import current
from .spans import audited_request
from .wire import INT64, AuditRecord

__all__ = ["record", "request_id", "set_actor"]

_ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_OUTCOMES = ("success", "failure", "unknown")
_RESERVED = ("audit_log.", "producer.")
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


def request_id() -> str:
    """Return the id that all records of the current request share; empty outside of a request."""
    request = audited_request()
    return request.request_id if request is not None else ""


def set_actor(actor: Actor | str) -> None:
    """Say who acts in the current request, before everything that Spanseal would find by itself.

    Args:
        actor: An `Actor`, or the id of a user.

    Raises:
        InvalidRecord: There is no current request.
    """
    request = audited_request()
    if request is None:
        raise InvalidRecord("set_actor() was called outside of a request: give record() its actor instead")
    request.act_as(actor if isinstance(actor, Actor) else Actor(actor))


def record(
    action: str,
    *,
    resource_type: str = "",
    resource_id: str | int = "",
    outcome: str = "success",
    failure_reason: str = "",
    actor: Actor | str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Record something that the request itself does not show. It is durable when this returns.

    Args:
        action: `<resource>.<verb>`, lower case, the verb in the past tense: `invoice.approved`.
        resource_type: To what kind of thing; that of the action where empty.
        resource_id: To which one.
        outcome: `success`, `failure` or `unknown`.
        failure_reason: Why; only where the outcome is not success.
        actor: Who, an `Actor` or a user's id; the current request's actor where not given.
        attributes: Everything else: text, numbers, bools, bytes, None, and lists and mappings of these. Of the keys
            that begin with `audit.`, only `audit.severity`, `audit.data_classes`, `audit.retention_class`,
            `audit.on_behalf_of`, `audit.subject.type`, `audit.subject.id` and `audit.personal.*` are taken.

    Raises:
        InvalidRecord: An argument is none that a record can hold.
        NotAudited: It cannot be stored, and `SPANSEAL_ON_ERROR` is `closed`.
    """
    _check(action, outcome, failure_reason)
    _check_attributes(attributes or {})
    if isinstance(resource_id, int):
        if resource_id not in INT64:
            raise InvalidRecord("resource_id needs more than 64 bits: give it as text")
        resource_id = str(resource_id)
    who = Actor(actor) if isinstance(actor, str) else actor
    request = audited_request()
    runtime = current()
    made = AuditRecord(
        record_id=uuid7(),
        event_time=time.time_ns(),
        action=action,
        outcome=outcome,
        failure_reason=failure_reason,
        actor=who or ANONYMOUS,
        resource_type=resource_type or action.partition(".")[0],
        resource_id=resource_id,
        attributes={**(attributes or {}), "audit.capture": "api"},
    )
    if request is not None:
        if request.look is not None:
            request.look(request)
        made.actor = who or request.explicit_actor or request.actor or ANONYMOUS
        made.session_id = request.session_id
        made.request_id = request.request_id
        made.trace_id, made.span_id = request.trace_id, request.span_id
        made.client_address = request.client_address
        made.user_agent = request.user_agent
    runtime.append(made)


# What the collector would not admit is refused here: there, nobody is left who could mend it.


def _check(action: str, outcome: str, failure_reason: str) -> None:
    if not _ACTION.fullmatch(str(action)):
        raise InvalidRecord(
            f"the action {action!r} is not of the form <resource>.<verb>, such as invoice.approved"
        )
    if action.startswith(_RESERVED):
        raise InvalidRecord(f"actions {action.partition('.')[0]}.* are Spanseal's own")
    if outcome not in _OUTCOMES:
        raise InvalidRecord(f"the outcome {outcome!r} is not one of {', '.join(_OUTCOMES)}")
    if failure_reason and outcome == "success":
        raise InvalidRecord("a success has no failure_reason")


def _check_attributes(attributes: Mapping[Any, object]) -> None:
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise InvalidRecord(f"an attribute's key must be text and not empty, not {type(key).__name__}")
        if key in _TAKEN:
            raise InvalidRecord(f"the attribute {key!r} is taken from the request and its actor")
        if key.startswith("audit.personal."):
            if not isinstance(value, str):
                raise InvalidRecord(f"the attribute {key!r} must be text")
        elif key.startswith("audit.") and key not in _AUDIT_KEYS:
            raise InvalidRecord(f"the attribute key {key!r} is reserved")
