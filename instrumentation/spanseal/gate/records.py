"""What becomes of a request for approval, as audit records.

| action | actor | when |
|---|---|---|
| `approval.requested` | the requester | somebody wants to do what needs an approval |
| `approval.granted`, `approval.denied` | who decided | |
| `approval.used` | the requester | before what was approved is done |
| `approval.expired` | `spanseal` (system) | when it is found that its time was over |

The resource is the approval. Their attributes, all of them metadata of the stored record:

| attribute | meaning |
|---|---|
| `approval.action`, `approval.method`, `approval.route` | what is approved |
| `approval.resource.type`, `approval.resource.id` | to what it would be done |
| `approval.requester`, `approval.approver` | their ids |
| `approval.expires_at` | until when it waits or can be used |
| `approval.requested_by`, `approval.used_by` | the ids of the requests that asked for it and that use it |

An id that contains `@` and the reason that somebody gave are personal: they stand under `audit.personal.approval.*`
instead, so that they can be erased.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from spanseal.actors.actor import Actor
from spanseal.errors import NotAudited
from spanseal.identifiers import uuid7
from spanseal.request import AuditedRequest
from spanseal.runtime import Runtime
from spanseal.wire import AuditRecord

from .approval import Approval, Note, State, iso
from .errors import StoreUnavailable

__all__ = ["attributes_of", "noting"]

_ACTIONS = {
    State.PENDING: "approval.requested",
    State.GRANTED: "approval.granted",
    State.DENIED: "approval.denied",
    State.USED: "approval.used",
    State.EXPIRED: "approval.expired",
}
_SELF = Actor("spanseal", type="system")
_PERSONAL = "audit.personal."


@contextmanager
def noting(
    runtime: Runtime, actor: Actor, request: AuditedRequest | None, extra: Mapping[str, object] | None = None
) -> Iterator[Note]:
    """Give what a store is to call: it records, durably, or raises.

    Where the store fails after that, a second record of the same action says that it did not come to be.

    Args:
        runtime: Of this process.
        actor: Who does it; what expires does so by itself.
        request: In which request; None for a command.
        extra: Further attributes.
    """
    noted: list[tuple[State, Approval]] = []

    def keep(state: State, approval: Approval, failure: str = "") -> None:
        record = _record(runtime, request)
        record.action = _ACTIONS[state]
        record.actor = _SELF if state is State.EXPIRED else actor
        record.outcome, record.failure_reason = ("failure" if failure else "success"), failure
        record.resource_type, record.resource_id = "approval", approval.id
        record.attributes = {
            "audit.capture": "api",
            **attributes_of(approval),
            **({} if state is State.EXPIRED else extra or {}),
        }
        runtime.append(record, must=True)

    def note(state: State, approval: Approval) -> None:
        keep(state, approval)
        noted.append((state, approval))

    try:
        yield note
    except StoreUnavailable:
        for state, approval in noted:
            with suppress(NotAudited):
                keep(state, approval, "not stored")
        raise


def _record(runtime: Runtime, request: AuditedRequest | None) -> AuditRecord:
    """Make a record of its own that shares the request's correlation."""
    now = time.time_ns()
    if request is None:
        return AuditRecord(record_id=uuid7(now), event_time=now, action="", tenant=runtime.settings.tenant)
    return replace(request.record(), record_id=uuid7(now), event_time=now)


def attributes_of(approval: Approval) -> dict[str, object]:
    """Describe an approval in attributes, those that are empty left out."""
    named = (
        ("approval.action", approval.action),
        ("approval.method", approval.method),
        ("approval.route", approval.route),
        ("approval.resource.type", approval.resource.type),
        ("approval.resource.id", approval.resource.id),
        ("approval.requester", approval.requester.id),
        ("approval.approver", approval.approver.id),
        ("approval.expires_at", iso(approval.expires_at)),
        ("approval.requested_by", approval.request_id),
        ("approval.used_by", approval.used_by),
    )
    found: dict[str, object] = {
        (f"{_PERSONAL}{key}" if "@" in value else key): value for key, value in named if value
    }
    if approval.reason:
        found[f"{_PERSONAL}approval.reason"] = approval.reason
    return found
