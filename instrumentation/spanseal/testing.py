"""For tests of audited applications: their records as objects, without a collector and without a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast, overload

from opentelemetry import propagate
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from . import runtime as runtime_module
from . import settings as settings_module
from .actors.actor import ANONYMOUS, Actor
from .delivery.keeper import Keeper
from .runtime import Runtime
from .settings import Settings

if TYPE_CHECKING:
    import flask

    from .delivery.spool import Spool

__all__ = ["Record", "Records", "capture_audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as it would be sent. What is not known is empty."""

    action: str
    outcome: str = ""
    failure_reason: str = ""
    actor: Actor = ANONYMOUS
    resource_type: str = ""
    resource_id: str = ""
    request_id: str = ""
    record_id: str = ""
    event_time: int = 0
    """Nanoseconds since the Unix epoch."""
    session_id: str = ""
    tenant: str = ""
    trace_id: str = ""
    span_id: str = ""
    client_address: str = ""
    user_agent: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Everything else, with the keys of the wire, such as `http.route` and `audit.capture`."""

    def __repr__(self) -> str:
        """Show what is not empty."""
        shown = ((item.name, getattr(self, item.name)) for item in fields(self))
        return f"Record({', '.join(f'{name}={value!r}' for name, value in shown if value)})"


class Records(Sequence[Record]):
    """The records made so far, in the order in which they were written down. More come as more happens.

    A request's record is there from when its answer begins, and final when the answer was closed. Of what has begun
    and not been answered yet there is none.
    """

    def __init__(self, capturing: _Capturing) -> None:
        self._capturing = capturing

    def _now(self) -> list[Record]:
        self._capturing.end_orphans()
        return [_decoded(body) for body in self._capturing.memory.bodies()]

    @property
    def actions(self) -> list[str]:
        """The actions alone."""
        return [record.action for record in self]

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[Record]:
        return iter(self._now())

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._now()[index]

    def __repr__(self) -> str:
        """Show one on each line."""
        lines = "".join(f"\n  {record!r}," for record in self)
        return f"[{lines}\n]" if lines else "[]"


@contextmanager
def capture_audit(app: flask.Flask | None = None) -> Iterator[Records]:
    """Capture the audit records of this process instead of spooling and sending them.

    Everything else is as in production, settings in the environment included; records are read back from the bytes
    that would be sent. Afterwards all is as it was before. It holds for all threads, so that two tests of one process
    cannot capture at the same time.

    Args:
        app: A Flask application that is not audited otherwise; it is while this lasts.

    Yields:
        The records so far; they can still be read afterwards.
    """
    capturing = _Capturing()
    with ExitStack() as undo:
        undo.callback(propagate.set_global_textmap, propagate.get_global_textmap())
        undo.callback(runtime_module.exchange, runtime_module.exchange(capturing))
        if app is not None:
            from .flask_app import instrumented  # noqa: PLC0415 - only where Flask is

            undo.enter_context(instrumented(app))
        yield Records(capturing)
        capturing.end_orphans()


class _Capturing(Runtime):
    """Keeps in memory what would be on disk, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = _Memory()
        self.keeper = _Keeping(self.memory, lambda: self.settings, self.end_orphans)

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            # No directory is made, so none needs to be known.
            environ = {"SPANSEAL_SPOOL_DIR": os.devnull, **os.environ}
            self._settings = self._once("settings", lambda: settings_module.load(environ))
        return self._settings


class _Keeping(Keeper):
    """Gives what is in memory for the spool."""

    def __init__(
        self, memory: _Memory, settings: Callable[[], Settings], before_settling: Callable[[], None]
    ) -> None:
        super().__init__(settings, before_settling)
        self._memory = memory

    def _make(self) -> Spool:
        _ = self._settings()  # what is wrong with them is wrong here too
        return cast("Spool", self._memory)


class _Memory:
    """Stands for the spool: holds records' bytes by row."""

    gone = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._bodies: dict[int, bytes] = {}
        """What is written down since the answer began, in this order."""

    def begin(self, body: bytes) -> int:
        del body  # of a request that has not been answered
        with self._lock:
            self._begun += 1
            return self._begun

    def answer(self, row: int | None, body: bytes) -> int:
        with self._lock:
            if row is None:
                self._begun += 1
                row = self._begun
            self._bodies[row] = body
            return row

    def finish(self, row: int, body: bytes | None) -> None:
        if body is not None:
            with self._lock:
                self._bodies[row] = body

    def append(self, body: bytes) -> None:
        self.answer(None, body)

    def drop(self, count: int = 1) -> None:
        """Nothing names what is lost here: the log says why."""

    def bodies(self) -> list[bytes]:
        with self._lock:
            return list(self._bodies.values())


_FIELDS = {
    "audit.outcome": "outcome",
    "audit.failure.reason": "failure_reason",
    "audit.target.type": "resource_type",
    "audit.target.id": "resource_id",
    "audit.request.id": "request_id",
    "audit.record.id": "record_id",
    "audit.tenant": "tenant",
    "session.id": "session_id",
    "client.address": "client_address",
    "user_agent.original": "user_agent",
}


def _decoded(body: bytes) -> Record:
    log = LogRecord.FromString(body)
    attributes = {item.key: _python(item.value) for item in log.attributes}
    attributes.pop("audit.schema.version", None)
    actor = Actor(
        attributes.pop("audit.actor.id", ""),
        type=attributes.pop("audit.actor.type", "anonymous"),
        role=attributes.pop("audit.actor.role", ""),
        email=attributes.pop("user.email", ""),
        name=attributes.pop("audit.personal.user.name", ""),
        on_behalf_of=str(attributes.get("audit.on_behalf_of", "")),
    )
    known = {name: attributes.pop(key, "") for key, name in _FIELDS.items()}
    return Record(
        action=log.event_name,
        event_time=log.time_unix_nano,
        actor=actor,
        trace_id=log.trace_id.hex(),
        span_id=log.span_id.hex(),
        attributes=attributes,
        **known,
    )


def _python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_python(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: _python(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind) if kind else None
