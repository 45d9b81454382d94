"""Whose a record is: the current request's, or the current job's.

A request is found by what audits it. Outside of requests, the outermost `with actor(...)` opens a job: a unit of work
with an id of its own. Both are kept in context variables, so they go where a copied context goes.
"""

from __future__ import annotations

import sys
import threading
import weakref
from contextvars import ContextVar
from dataclasses import dataclass, field

from spanseal.actors.actor import Actor
from spanseal.identifiers import uuid7
from spanseal.request import AuditedRequest, current_request

__all__ = [
    "Block",
    "Job",
    "Unit",
    "acting_in",
    "current_block",
    "current_unit",
    "innermost",
    "open_block",
    "request_id",
]


@dataclass(slots=True)
class Job:
    """A unit of work outside of requests."""

    request_id: str = field(default_factory=uuid7)
    explicit_actor: Actor | None = None
    """Of `set_actor()`."""


Unit = AuditedRequest | Job

_local = threading.local()


def _here() -> tuple[object, object]:
    """Tell where this runs: in which thread or greenlet, and in which task."""
    thread = getattr(_local, "token", None)
    if thread is None:
        thread = _local.token = object()
    asyncio = sys.modules.get("asyncio")
    try:
        task = asyncio.current_task() if asyncio is not None else None
    except RuntimeError:  # no loop runs here
        task = None
    return thread, weakref.ref(task) if task is not None else None


@dataclass(slots=True, eq=False)
class Block:
    """One `with actor(...)` that was entered."""

    actor: Actor
    unit: Unit
    outer: Block | None
    """What was the innermost block before, also one of another request or job."""
    here: tuple[object, object] = field(default_factory=_here)
    closed: bool = False

    @property
    def nested(self) -> bool:
        """Whether another block of the same request or job is around it."""
        return self.outer is not None and self.outer.unit is self.unit


innermost: ContextVar[Block | None] = ContextVar("spanseal_actor", default=None)


def open_block(block: Block | None) -> Block | None:
    """Return this block, or the next one around it that has not ended."""
    while block is not None and block.closed:
        block = block.outer
    return block


def current_block() -> Block | None:
    """Return the innermost block that this context is in.

    A thread or task that got a copy of the context stays in a block that has ended where it began, as it stays in a
    request that has. But where the block itself began it is over, although a generator that was thrown away in the
    middle of it could not take it out of the context.
    """
    block = innermost.get()
    if block is not None and block.closed and block.here == _here():
        block = open_block(block)
        innermost.set(block)
    return block


def current_unit() -> Unit | None:
    """Return the request or job that this context works for."""
    request = current_request.get()
    if request is not None:
        return request
    block = current_block()
    return block.unit if block is not None and isinstance(block.unit, Job) else None


def acting_in(unit: Unit | None) -> Actor | None:
    """Return who acts by the innermost block, if one is about this request or job; a job's first can be replaced."""
    block = current_block()
    if block is None or block.unit is not unit:
        return None
    if isinstance(unit, Job) and not block.nested:
        return unit.explicit_actor or block.actor
    return block.actor


def request_id() -> str:
    """Return the id that all records of the current request or job share; empty outside of both."""
    unit = current_unit()
    return unit.request_id if unit is not None else ""
