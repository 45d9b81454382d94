"""`@audited`: one record for each call of a function, written down before it runs."""

from __future__ import annotations

import inspect
import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from spanseal.actors.actor import ANONYMOUS
from spanseal.errors import InvalidRecord, NotAudited
from spanseal.identifiers import uuid7
from spanseal.request import exception_type
from spanseal.runtime import Pending, Runtime, current
from spanseal.wire import AuditRecord, clean

from .calls import wrapped
from .checks import check_action, check_attributes
from .differences import Watched
from .units import Unit, acting_in, current_unit
from .values import REDACTED, is_secret, plain
from .work import describe

__all__ = ["audited"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LONGEST_ID = 2048
"""Characters of a resource's id that are kept."""

ResourceId = str | Callable[..., object]
Attributes = Mapping[str, object] | Sequence[str] | Callable[..., Mapping[str, object]]


def audited(
    action: str,
    *,
    resource_type: str = "",
    resource_id: ResourceId = "",
    attributes: Attributes = (),
    changes: Watched | None = None,
    on: Literal["start", "end"] = "start",
) -> Callable[[_Function], _Function]:
    """Decorate a function so that each of its calls is recorded: a success, or a failure with the exception's type.

    Functions, asynchronous ones, generators of both kinds, methods, class methods and static ones can be decorated,
    and stay what they are. Nothing of the arguments is recorded unless it is named here; the result never is.

    The record is written down before the function runs and completed when it ends: whatever happens in between, it is
    there, with the outcome `unknown` where nobody could say how it ended. A generator's record begins and ends with its
    body; one that is not read to its end has the outcome `unknown` and the attribute `spanseal.call.incomplete`. Where
    `SPANSEAL_ON_ERROR` is `closed` and the record cannot be stored, the function does not run.

    Args:
        action: `<resource>.<verb>`, as of `record()`.
        resource_type: To what kind of thing; that of the action where empty.
        resource_id: To which one: the name of a parameter; a template over parameters, as of `str.format`
            (`{order.id}/{line}`); or a function that is called with the same arguments.
        attributes: More for the record, as of `record()`: a mapping of fixed values; or the names of parameters whose
            values are recorded under these names; or a function that is called with the same arguments and returns a
            mapping.
        changes: What to compare before and after, of `spanseal.changes_of()`.
        on: `end` writes the record only when the call has ended: at half of the cost, for what changes nothing. A
            process that dies in between leaves none.

    Raises:
        InvalidRecord: An argument is none that a record can hold, or names a parameter that the function lacks.
        TypeError: What is decorated is no function.
    """
    check_action(action)
    kind = clean(resource_type, "resource_type") or action.partition(".")[0]
    if on not in ("start", "end"):
        raise InvalidRecord(f"on is {str(on)[:64]!r}: use start or end")
    if isinstance(attributes, str):
        raise InvalidRecord("attributes are a list of parameters, a mapping or a function, not one text")
    if isinstance(attributes, Mapping):
        check_attributes(attributes)

    def decorate(function: _Function) -> _Function:
        given: Any = function
        if isinstance(given, classmethod | staticmethod):
            given = given.__func__
        if inspect.isclass(given) or not callable(given):
            raise TypeError(f"only functions and methods can be audited, not {ascii(given)[:100]}")
        parameters = _Parameters(inspect.signature(given))
        plan = _Plan(
            action,
            kind,
            parameters.reader_of_id(resource_id),
            parameters.reader_of_attributes(attributes),
            changes,
            parameters.reader(changes.source) if changes is not None else None,
            on == "start",
            f"{given.__module__}.{given.__qualname__}",
        )
        return wrapped(function, lambda arguments, named: _Recorded(plan, arguments, named))

    return decorate


# --- what is read of the arguments ----------------------------------------------------------------------------

Reader = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Of one function. Each method makes a function of a call's arguments, and finds out now what cannot be right."""

    signature: inspect.Signature

    def _bound(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        return bound.arguments

    def _check(self, name: str) -> None:
        if name not in self.signature.parameters:
            raise InvalidRecord(f"the function has no parameter {name[:64]!r}: it has {self.signature}"[:500])

    def reader(self, source: str | Callable[..., Any]) -> Reader:
        """Read the value of one parameter, or what a function makes of all."""
        if callable(source):
            made: Callable[..., Any] = source
            return lambda arguments, named: made(*arguments, **named)
        name = source
        self._check(name)
        return lambda arguments, named: self._bound(arguments, named)[name]

    def reader_of_id(self, source: ResourceId) -> Reader | None:
        """Read a resource's id."""
        if not isinstance(source, str):
            return self.reader(source)
        if not source:
            return None
        if "{" not in source:
            return self.reader(source)
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(source) if name is not None]
        except ValueError as error:
            raise InvalidRecord(f"resource_id {source[:64]!r} is no template: {error}") from None
        for field in fields:
            self._check(field.partition(".")[0].partition("[")[0])
        return lambda arguments, named: source.format_map(self._bound(arguments, named))

    def reader_of_attributes(self, source: Attributes) -> Reader:
        """Read the attributes."""
        if isinstance(source, Mapping):
            fixed = dict(source)
            return lambda _arguments, _named: fixed
        if callable(source):
            made: Callable[..., Mapping[str, object]] = source
            return lambda arguments, named: dict(made(*arguments, **named))
        names = tuple(source)
        for name in names:
            self._check(name)
        check_attributes(dict.fromkeys(names, ""))
        if not names:
            return lambda _arguments, _named: {}
        return lambda arguments, named: _chosen(names, self._bound(arguments, named))


def _chosen(names: Iterable[str], bound: Mapping[str, Any]) -> dict[str, object]:
    return {name: REDACTED if is_secret(name) else plain(bound[name]) for name in names}


# --- one call -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be recorded of a function's calls."""

    action: str
    resource_type: str
    resource_id: Reader | None
    attributes: Reader
    changes: Watched | None
    watched: Reader | None
    ahead: bool
    function: str


class _Recorded:
    """A call on its way: a `Call`, whose record takes the way of a request's."""

    def __init__(self, plan: _Plan, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._plan = plan
        self._arguments = arguments
        self._named = named
        self._runtime: Runtime = current()
        self._pending = Pending()
        self._unit: Unit | None = None
        self._before: dict[str, object] = {}
        self._attributes: dict[str, object] = {}
        self._record = AuditRecord(
            record_id=uuid7(),
            event_time=time.time_ns(),
            action=plan.action,
            resource_type=plan.resource_type,
        )

    def begin(self) -> None:
        """Write down that the function is about to run.

        Raises:
            NotAudited: It must not run.
        """
        plan, record = self._plan, self._record
        self._unit = current_unit()
        describe(record)
        if plan.resource_id is not None:
            record.resource_id = self._read(plan.resource_id, _as_id, "")
        self._attributes = self._read(plan.attributes, _checked, {})
        self._before = self._state()
        if plan.ahead:
            self._runtime.begin(self._pending, self._made)

    def step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def done(self) -> None:
        """Write down that it ran to its end.

        Raises:
            NotAudited: It could not be written, and nothing must go on.
        """
        with suppress(NotAudited):
            self._recognise(look=True)
        self._end("success", "")

    def failed(self, error: BaseException) -> None:
        # The exception that leaves the function is worth more than ours.
        with suppress(NotAudited):
            self._recognise(look=True)
        with suppress(NotAudited):
            if isinstance(error, SystemExit) and error.code in (None, 0):
                self._end("success", "")
            else:
                reason = exception_type(error)
                self._end("failure", reason, {"exception.type": reason})

    def left(self) -> None:
        # A finalizer may be what calls this, in the middle of anything: nothing is written, and nobody is asked.
        self._recognise(look=False)
        self._runtime.orphaned(self._give_up)

    def _give_up(self) -> None:
        with suppress(NotAudited):
            self._end("unknown", "", {"spanseal.call.incomplete": True})

    def _end(self, outcome: str, reason: str, more: Mapping[str, object] | None = None) -> None:
        record, runtime, pending = self._record, self._runtime, self._pending
        record.outcome, record.failure_reason = outcome, reason
        self._attributes = {**self._attributes, **self._difference(), **(more or {})}
        try:
            runtime.answer(pending, self._made)
        finally:
            runtime.finish(pending, None if pending.answered else self._made)

    def _made(self) -> AuditRecord:
        record = self._record
        record.tenant = self._runtime.settings.tenant
        record.attributes = {
            **self._attributes,
            "audit.capture": "call",
            "code.function.name": self._plan.function,
        }
        return record

    def _recognise(self, *, look: bool) -> None:
        """Take the actor that the call itself has made known: a sign-in, or `set_actor()`."""
        unit, record = self._unit, self._record
        if unit is None:
            return
        if look and record.actor is ANONYMOUS:
            describe(record)
        if unit.explicit_actor is not None and acting_in(unit) in (None, unit.explicit_actor):
            record.actor = unit.explicit_actor

    def _state(self) -> dict[str, object]:
        plan = self._plan
        if plan.changes is None or plan.watched is None:
            return {}
        fields = plan.changes.fields
        found: dict[str, object] = self._read(plan.watched, lambda source: fields.read(source, keep=True), {})
        return found

    def _difference(self) -> dict[str, object]:
        if self._plan.changes is None:
            return {}
        # It has happened: what can be told of it is told in any case.
        with suppress(NotAudited):
            return self._plan.changes.fields.compare(self._before, self._state())
        return {}

    def _read(self, reader: Reader, finish: Callable[[Any], Any], otherwise: Any) -> Any:
        """Ask the application's own code; what goes wrong in it is no reason not to run the function.

        Raises:
            NotAudited: It is one, by configuration.
        """
        try:
            return finish(reader(self._arguments, self._named))
        except Exception as error:  # noqa: BLE001 - whatever it is, the policy decides
            self._runtime.trouble(error, f"the records of {self._plan.function} lack what it would say")
            return otherwise


def _as_id(value: object) -> str:
    found = plain(value)
    return "" if found is None else clean(str(found)[:_LONGEST_ID])


def _checked(found: Mapping[str, object]) -> dict[str, object]:
    attributes = dict(found)
    check_attributes(attributes)
    return attributes
