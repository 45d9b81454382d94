"""The gate before a privileged action: who, confirmed when, approved by whom. Knows nothing of Flask.

What cannot be found out is denied: `GateUnavailable`. What is not allowed is denied: `Denied`. There is no third way
out but the one that is open.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from spanseal.actors.actor import Actor
from spanseal.identifiers import uuid7
from spanseal.request import AuditedRequest
from spanseal.runtime import Runtime

from .approval import SECOND, Approval, Attempt, Clock, Person, State, iso, same_person
from .errors import GateUnavailable, NotPending, OwnApproval, TooManyRequests, UnknownApproval
from .policy import Policy, Requirement, load_function
from .records import noting
from .store import Store, Verdict

__all__ = ["Denied", "Gate", "Passed"]


class Denied(Exception):
    """It is not allowed; the view must not run.

    Args:
        reason: A few fixed words, for the record.
        message: What to do about it, for the person.
        approval: The approval that it is about, if it is about one.
        status: Of HTTP.
    """

    def __init__(
        self, reason: str, message: str, approval: Approval | None = None, *, status: int = 403
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.approval = approval


@dataclass(frozen=True, slots=True)
class Passed:
    """What a request showed at the gate."""

    confirmed_at: int = 0
    """Nanoseconds since the Unix epoch; 0 where no confirmation was needed."""
    approval: Approval | None = None

    @property
    def attributes(self) -> dict[str, object]:
        """For the request's own record."""
        found: dict[str, object] = {}
        if self.confirmed_at:
            found["mfa_verified_at"] = iso(self.confirmed_at)
        if self.approval is not None:
            found["approval_id"] = self.approval.id
        return found


_WAITING = {
    Verdict.REQUESTED: ("approval required", "This needs somebody else's approval, which is asked for now."),
    Verdict.WAITING: (
        "approval required",
        "This needs somebody else's approval, which nobody has given yet.",
    ),
    Verdict.RENEWED: (
        "approval expired",
        "The last approval's time is over: a new one is asked for now.",
    ),
    Verdict.DENIED: ("approval denied", "Somebody has denied this."),
    Verdict.FROM_THE_FUTURE: (
        "approval invalid",
        "There is an approval of a later time than now: a clock was changed, so it is not used.",
    ),
}


@dataclass(slots=True)
class Gate:
    """The gate of one process. Safe to use from any thread."""

    policy: Policy
    open_store: Callable[[], Store]
    clock: Clock = field(default=time.time_ns)
    _store: Store | None = None

    @property
    def store(self) -> Store:
        """Where approvals are.

        Raises:
            GateUnavailable: The policy names a store that cannot be made.
        """
        if self._store is None:
            self._store = self.open_store()
        return self._store

    # --- whoever wants to do something -----------------------------------------------------------------

    def check(
        self,
        actor: Actor | None,
        attempt: Attempt,
        requirement: Requirement,
        *,
        session: object,
        runtime: Runtime,
        request: AuditedRequest,
        may_claim: bool = True,
    ) -> Passed:
        """Let somebody through who has shown all that it takes; an approval is used up by this.

        Args:
            actor: Who; None for nobody.
            attempt: What, and to what.
            requirement: What it takes.
            session: Of the request.
            runtime: Records.
            request: Shares its correlation with the records.
            may_claim: Whether an approval may be asked for and used; else it is denied where one is needed.

        Raises:
            Denied: Something is missing.
            GateUnavailable: It cannot be found out.
        """
        who = self._known(actor)
        now = self.clock()
        confirmed_at = self.confirmed(who, requirement.confirm, session, now) if requirement.confirm else 0
        if not requirement.approval:
            return Passed(confirmed_at)
        if not may_claim:
            raise Denied("approval required", "This needs an approval, which this method cannot use.")
        person = Person.of(who)
        wanted = Approval(
            id=uuid7(),
            binding=attempt.binding(person),
            tenant=attempt.tenant,
            service=attempt.service,
            action=attempt.action,
            resource=attempt.resource,
            method=attempt.method,
            route=attempt.route,
            requester=person,
            request_id=request.request_id,
            confirm=requirement.confirm,
            use_within=requirement.use_within,
            requested_at=now,
            expires_at=now + requirement.approval * SECOND,
        )
        try:
            with noting(runtime, who, request) as note:
                claim = self.store.claim(wanted, now, request.request_id, note)
        except TooManyRequests as error:
            raise Denied("too many requests for approval", str(error)) from error
        if claim.verdict is not Verdict.USED:
            reason, message = _WAITING[claim.verdict]
            raise Denied(reason, message, claim.approval)
        if claim.approval.binding != wanted.binding or same_person(claim.approval.approver, person):
            # A store does not give such: its file was written by somebody else.
            raise Denied("own approval", "Nobody approves what he asked for himself.", claim.approval)
        return Passed(confirmed_at, claim.approval)

    def confirmed(self, actor: Actor, within: int, session: object, now: int) -> int:
        """Return when somebody last confirmed with a second factor, if that was not too long ago.

        Args:
            actor: Who.
            within: Seconds.
            session: Of the request.
            now: Nanoseconds since the Unix epoch.

        Raises:
            Denied: It was never, too long ago, or is no time at all.
            GateUnavailable: The policy's function failed.
        """
        again = "Confirm with your second factor, then try again."
        try:
            at = _moment(self._confirmation(session), actor)
        except ValueError as error:
            raise Denied(
                "confirmation invalid", f"The confirmation cannot be used: {error}. {again}"
            ) from error
        if at is None:
            raise Denied("confirmation required", again)
        if at > now:
            raise Denied("confirmation invalid", f"The confirmation is of a time that has not come. {again}")
        if now - at > within * SECOND:
            raise Denied("confirmation expired", f"The last confirmation is too long ago. {again}")
        return at

    # --- whoever decides -------------------------------------------------------------------------------

    def may_decide(self, actor: Actor, approval: Approval) -> bool:
        """Say whether somebody is among those who may approve, whatever else it takes.

        Raises:
            GateUnavailable: The policy's function failed.
        """
        policy = self.policy
        if policy.approvers:
            # Nothing but True: a coroutine or a text would be true as well.
            return (
                self._call(policy.approvers, "approvers", actor, approval.action, approval.resource) is True
            )
        if policy.approver_roles:
            return not policy.approver_roles.isdisjoint(one.strip() for one in actor.role.split(","))
        return True

    def decide(
        self,
        actor: Actor | None,
        identifier: str,
        *,
        grant: bool,
        reason: str,
        session: object,
        runtime: Runtime,
        request: AuditedRequest,
    ) -> Approval:
        """Let somebody approve or deny. Arguments as of `check`.

        Raises:
            Denied: This person may not, or not now.
            GateUnavailable: It cannot be found out.
            UnknownApproval: There is none of that id.
        """
        who = self._known(actor)
        now = self.clock()
        approval = self.find(identifier, request.tenant)
        if same_person(Person.of(who), approval.requester):
            raise Denied("own approval", "Nobody decides about what he asked for himself.", approval)
        if not self.may_decide(who, approval):
            raise Denied("not an approver", "You are not among those who may decide this.", approval)
        extra: dict[str, object] = {"approval.via": "web"}
        if approval.confirm:
            confirmed_at = self.confirmed(who, approval.confirm, session, now)
            extra["mfa_verified_at"] = iso(confirmed_at)
        try:
            with noting(runtime, who, request, extra) as note:
                return self.store.decide(
                    identifier, grant=grant, by=Person.of(who), reason=reason, now=now, note=note
                )
        except OwnApproval as error:
            raise Denied("own approval", str(error), approval) from error
        except NotPending as error:
            raise Denied("approval not pending", f"{error}.", self.store.find(identifier)) from error

    def find(self, identifier: str, tenant: str) -> Approval:
        """Return a tenant's approval.

        Raises:
            UnknownApproval: There is none of that id, or it is another tenant's.
        """
        found = self.store.find(identifier)
        if found.tenant != tenant:
            raise UnknownApproval(f"there is no approval {identifier!r}")
        return found

    def sees(self, actor: Actor, approval: Approval) -> bool:
        """Say whether somebody may see an approval: his own, and those that he may decide. Errors as `may_decide`."""
        return same_person(Person.of(actor), approval.requester) or self.may_decide(actor, approval)

    def listed(
        self,
        actor: Actor,
        states: tuple[State, ...],
        *,
        runtime: Runtime,
        request: AuditedRequest,
        limit: int,
    ) -> list[Approval]:
        """Return what somebody may see, the newest first; what is over by now is found on the way."""
        with noting(runtime, actor, request) as note:
            self.store.expire(request.tenant, self.clock(), note)
        return [one for one in self.store.list(request.tenant, states, limit) if self.sees(actor, one)]

    # --- what the policy names -------------------------------------------------------------------------

    @staticmethod
    def _known(actor: Actor | None) -> Actor:
        if actor is None or actor.type == "anonymous" or not actor.id.strip():
            raise Denied("actor unknown", "Sign in first: nobody unknown may do this.")
        return actor

    def _confirmation(self, session: object) -> object:
        if self.policy.confirmation:
            return self._call(self.policy.confirmation, "confirmation")
        return session.get(self.policy.session_key) if isinstance(session, Mapping) else None

    @staticmethod
    def _call(name: str, what: str, *arguments: object) -> Any:
        try:
            return _loaded(name, f"`privileged: {what}`")(*arguments)
        except Exception as error:
            raise GateUnavailable(f"`privileged: {what}` ({name}) failed: {type(error).__name__}") from error


_loaded = lru_cache(maxsize=64)(load_function)


def _moment(value: object, actor: Actor) -> int | None:
    """Read a time, and whose it is if it says so.

    Returns:
        Nanoseconds since the Unix epoch, or None where there is none.

    Raises:
        ValueError: It is none that can be used.
    """
    if isinstance(value, Mapping):
        if str(value.get("actor", "")) != actor.id:
            raise ValueError("it is somebody else's")
        return _moment(value.get("at"), actor)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return round(value.timestamp() * 1_000_000) * 1000
    if isinstance(value, int) and not isinstance(value, bool):
        return value * SECOND
    if isinstance(value, float) and math.isfinite(value):
        return round(value * 1_000_000) * 1000
    raise ValueError("it is no time")
