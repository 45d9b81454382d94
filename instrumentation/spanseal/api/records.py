"""What an application may call, though it need not: records of its own, and more about the request's."""

from __future__ import annotations

import time
from collections.abc import Mapping

from spanseal.actors.actor import ANONYMOUS, Actor
from spanseal.errors import InvalidRecord
from spanseal.identifiers import uuid7
from spanseal.request import current_request
from spanseal.runtime import current
from spanseal.wire import AuditRecord, clean

from .checks import actor_of, check_action, check_attributes, check_outcome, text_id
from .work import describe

__all__ = ["annotate", "record"]


def record(
    action: str,
    *,
    resource_type: str = "",
    resource_id: str | int = "",
    outcome: str = "success",
    failure_reason: str = "",
    actor: Actor | str | None = None,
    attributes: Mapping[str, object] | None = None,
    changes: Mapping[str, object] | None = None,
) -> None:
    """Record something that the request itself does not show. It is durable when this returns.

    Args:
        action: `<resource>.<verb>`, lower case, the verb in the past tense: `invoice.approved`.
        resource_type: To what kind of thing; that of the action where empty.
        resource_id: To which one.
        outcome: `success`, `failure` or `unknown`.
        failure_reason: Why; only where the outcome is not success.
        actor: Who, an `Actor` or a user's id; where not given, that of the innermost `with actor(...)`, or of the
            current request or job.
        attributes: Everything else: text, numbers, bools, bytes, None, and lists and mappings of these. Of the keys
            that begin with `audit.`, only `audit.severity`, `audit.data_classes`, `audit.retention_class`,
            `audit.on_behalf_of`, `audit.subject.type`, `audit.subject.id` and `audit.personal.*` are taken.
        changes: What changed, of `spanseal.changes()`.

    Raises:
        InvalidRecord: An argument is none that a record can hold.
        NotAudited: It cannot be stored, and `SPANSEAL_ON_ERROR` is `closed`.
    """
    check_action(action)
    check_outcome(outcome, failure_reason)
    given = {**(attributes or {}), **(changes or {})}
    check_attributes(given)
    made = AuditRecord(
        record_id=uuid7(),
        event_time=time.time_ns(),
        action=action,
        outcome=outcome,
        failure_reason=failure_reason,
        actor=ANONYMOUS,
        resource_type=clean(resource_type, "resource_type") or action.partition(".")[0],
        resource_id=text_id(resource_id),
        attributes={**given, "audit.capture": "api"},
    )
    describe(made, None if actor is None else actor_of(actor))
    current().append(made)


def annotate(
    *,
    action: str = "",
    resource_type: str = "",
    resource_id: str | int = "",
    outcome: str = "",
    failure_reason: str = "",
    attributes: Mapping[str, object] | None = None,
    changes: Mapping[str, object] | None = None,
) -> None:
    """Say more about the current request's own record, or say it better. It goes before rules and defaults.

    What is not given stays as it is; several calls add up. It counts until the answer has ended, also while its body
    is being sent. An exception that nobody handles is a failure whatever was said of the outcome.

    Args:
        action: As of `record`.
        resource_type: As of `record`.
        resource_id: As of `record`.
        outcome: As of `record`; instead of what the status says.
        failure_reason: As of `record`; it needs an outcome that is not success.
        attributes: As of `record`; added to those of earlier calls.
        changes: As of `record`.

    Raises:
        InvalidRecord: There is no current request, its record is complete, or an argument is none that a record can
            hold. Nothing has changed then.
    """
    request = current_request.get()
    if request is None:
        raise InvalidRecord("annotate() was called outside of a request: use record() there")
    if request.ended:
        raise InvalidRecord(
            f"the request {request.request_id} has ended: use record() for what comes afterwards"
        )
    said = request.said
    if action:
        check_action(action)
    if outcome:
        check_outcome(outcome, failure_reason)
    elif failure_reason:
        if said.outcome in ("", "success"):
            raise InvalidRecord("failure_reason needs an outcome: failure or unknown")
        check_outcome(said.outcome, failure_reason)
    clean(resource_type, "resource_type")
    text = text_id(resource_id)
    # Not changed in place: another thread may be reading it.
    added = {**said.attributes, **(attributes or {}), **(changes or {})}
    check_attributes(added)
    said.attributes = added
    said.action = action or said.action
    said.resource_type = resource_type or said.resource_type
    said.resource_id = text or said.resource_id
    if outcome:
        said.outcome, said.failure_reason = outcome, failure_reason
    else:
        said.failure_reason = failure_reason or said.failure_reason
    request.changed()
