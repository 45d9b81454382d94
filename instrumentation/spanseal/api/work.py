"""Who acts: `with actor(...)`, and `set_actor()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from opentelemetry import trace

from spanseal.actors.actor import ANONYMOUS, Actor
from spanseal.correlation import carry
from spanseal.errors import InvalidRecord
from spanseal.request import AuditedRequest
from spanseal.wire import AuditRecord

from .calls import wrapped
from .checks import actor_of
from .units import Block, Job, acting_in, current_block, current_unit, innermost, open_block

__all__ = ["actor", "describe", "set_actor"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _new_block(who: Actor) -> Block:
    outer, unit = current_block(), current_unit()
    if unit is None:
        unit = Job()
        carry()
    return Block(who, unit, outer)


class actor:  # noqa: N801 - reads as a function, like contextlib's own
    """Say who acts in what follows: in a block of a request, or in a command or job outside of requests.

    The records that are made inside bear this actor, before everything that is found otherwise; of blocks within each
    other the innermost counts. A request's own record keeps the request's actor: that one is changed by `set_actor()`.
    Outside of requests the outermost block begins a job: the records inside share an id, see `request_id()`.

    It can decorate functions as well, also asynchronous ones and generators; each call is then a block.

    Args:
        actor: An `Actor`, or the id of a user.
        type: Where only the id is given: `user`, `service` or `system`.
        role: Where only the id is given: the role at this moment.

    Raises:
        InvalidRecord: It cannot be an actor.
    """

    def __init__(self, actor: Actor | str, *, type: str = "user", role: str = "") -> None:  # noqa: A002 - as of Actor
        if isinstance(actor, Actor) and (type != "user" or role):
            raise InvalidRecord("type and role are said by the Actor itself")
        self._actor = actor if isinstance(actor, Actor) else Actor(actor, type=type, role=role)
        self._entered: list[Block] = []

    def __enter__(self) -> Actor:
        """Begin the block; gives the actor."""
        block = _new_block(self._actor)
        self._entered.append(block)
        innermost.set(block)
        return self._actor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block."""
        inside = innermost.get()
        block = inside
        # The same object may have been entered by several threads, and twice by this one.
        while block is not None and (block.closed or block not in self._entered):
            block = block.outer
        if block is None:  # it ends in another context than it began in, as asynchronous generators may
            block = self._entered[-1]
        self._entered.remove(block)
        block.closed = True
        innermost.set(open_block(inside))

    def __call__(self, function: _Function) -> _Function:
        """Decorate a function.

        Raises:
            TypeError: It is none.
        """
        return wrapped(function, lambda _arguments, _named: _Acting(self._actor))


class _Acting:
    """A call of a function that `actor` decorates."""

    def __init__(self, who: Actor) -> None:
        self._who = who
        self._block: Block | None = None
        self._innermost: Block | None = None

    def begin(self) -> None:
        self._block = self._innermost = _new_block(self._who)

    @contextmanager
    def step(self) -> Iterator[None]:
        # A generator runs in its caller's context: what it is in the middle of is taken out there while it waits.
        outside = innermost.get()
        innermost.set(self._innermost)
        try:
            yield
        finally:
            self._innermost = innermost.get()
            innermost.set(outside)

    def done(self) -> None:
        if self._block is not None:
            self._block.closed = True

    def failed(self, _error: BaseException) -> None:
        self.done()

    def left(self) -> None:
        self.done()


def set_actor(actor: Actor | str) -> None:
    """Say who acts in the current request or job, before everything that Spanseal would find by itself.

    Args:
        actor: An `Actor`, or the id of a user.

    Raises:
        InvalidRecord: There is neither, or it cannot be an actor.
    """
    unit = current_unit()
    if unit is None:
        raise InvalidRecord(
            "set_actor() was called outside of a request: use `with spanseal.actor(...)`, or give record() its actor"
        )
    who = actor_of(actor)
    if isinstance(unit, Job):
        unit.explicit_actor = who
    else:
        unit.act_as(who)


def describe(made: AuditRecord, who: Actor | None = None) -> None:
    """Tell a record whose it is: who acts, in which request or job, and in which span.

    Args:
        made: The record.
        who: Said by its maker; what is known otherwise counts where this is None.

    Raises:
        NotAudited: The actor cannot be looked for, and what cannot be audited must not be done.
    """
    unit = current_unit()
    made.actor = who or acting_in(unit) or ANONYMOUS
    made.request_id = unit.request_id if unit is not None else ""
    if not isinstance(unit, AuditedRequest):
        ids = trace.get_current_span().get_span_context()
        if ids.is_valid:
            made.trace_id, made.span_id = (
                trace.format_trace_id(ids.trace_id),
                trace.format_span_id(ids.span_id),
            )
        return
    if unit.look is not None:
        unit.look(unit)
    if made.actor is ANONYMOUS:
        made.actor = unit.explicit_actor or unit.actor or ANONYMOUS
    made.session_id = unit.session_id
    made.trace_id, made.span_id = unit.trace_id, unit.span_id
    made.client_address = unit.client_address
    made.user_agent = unit.user_agent
