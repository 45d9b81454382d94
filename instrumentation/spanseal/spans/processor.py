"""Server spans of other frameworks than Flask become records.

A span is known from its start to its end by its ids, and by the variable `current_request` of the context in which it
began: handlers run in that context, or in a task or thread that got a copy of it. OpenTelemetry's own context is the
witness: where it says that another span's request is at work, or none, that one is believed.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind

from spanseal.correlation import carry, mark_span
from spanseal.errors import ConfigurationError, NotAudited
from spanseal.parent import BAGGAGE_KEY, parent_in
from spanseal.request import AuditedRequest, current_request
from spanseal.runtime import Runtime, current
from spanseal.settings import refuses
from spanseal.throttle import Throttle

from . import django_requests, response_header
from .request import SpanKey, SpanRequest, span_key

__all__ = ["SpanAuditor", "auditor"]

logger = logging.getLogger("spanseal")

_MOST = 1 << 16
"""Spans that are followed at once. Beyond that the oldest are recorded as what they are by then."""
_FLASK = "opentelemetry.instrumentation.flask"


@dataclass(frozen=True, slots=True)
class _Followed:
    request: SpanRequest
    span: weakref.ref[Span]
    """Tells when nobody holds the span any more: it can never end then."""


class SpanAuditor(SpanProcessor):
    """Follows the server spans of a process. Nothing that goes wrong in here reaches the application."""

    def __init__(self) -> None:
        self._followed: dict[SpanKey, _Followed] = {}
        self._throttle = Throttle()
        self._warned = False

    # --- what the SDK calls ------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Follow a server span, and write down at once what may change something."""
        if span.kind is not SpanKind.SERVER:
            return
        try:
            self._start(span, parent_context)
        except NotAudited:
            pass  # said already: it cannot be refused from here
        except Exception as error:  # noqa: BLE001 - it is said in there
            self._wrong(error)

    def on_end(self, span: ReadableSpan) -> None:
        """Record a followed span."""
        followed = self._followed.pop(span_key(span), None) if span.kind is SpanKind.SERVER else None
        if followed is None:
            return
        request = followed.request
        try:
            if request.look is not None:
                request.look(request)
        except NotAudited:
            pass
        except Exception as error:  # noqa: BLE001 - it is said in there
            self._wrong(error)
        try:
            request.end_with(span)
        except Exception as error:  # noqa: BLE001 - it is said in there
            self._wrong(error)
            request.end()
        # A thread that serves the next request in the same context must not see this one. Where the span is current
        # still, its handler goes on (background tasks), and the context ends with it.
        if current_request.named() is request and span_key(trace.get_current_span()) != span_key(span):
            current_request.set(request.outer)

    def shutdown(self) -> None:
        """Do nothing: what is not ended is found by whoever adopts this process's spool."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's own
        """Do nothing: records are durable when a span has ended."""
        return True

    # --- for the rest of the package ----------------------------------------------------------------------

    def wanted(self) -> bool:
        """Say whether a server span that begins here is of use: not where a boundary audits its request."""
        request = current_request.named()
        if request is not None and not isinstance(request, SpanRequest) and not request.ended:
            return False
        try:
            return current().settings.spans
        except ConfigurationError:
            return True  # what is wrong is said where a record is made

    def inside(self, context: Context | None, route: str) -> None:
        """Take notice of a route inside of a followed span. Never raises."""
        try:
            request = self.of_span(trace.get_current_span(context))
            if request is not None:
                request.see_inside(route)
        except NotAudited:
            pass  # said already
        except Exception as error:  # noqa: BLE001 - it is said in there
            self._wrong(error)

    def of_span(self, span: trace.Span) -> SpanRequest | None:
        """Return the request of a span that has not ended."""
        followed = self._followed.get(span_key(span))
        return followed.request if followed is not None else None

    def find(self, request: AuditedRequest | None) -> AuditedRequest | None:
        """Say which request this context works for.

        Args:
            request: The one that `current_request` names.
        """
        if request is not None and not isinstance(request, SpanRequest):
            return request
        span = trace.get_current_span()
        ids = span.get_span_context()
        if not ids.is_valid:
            return None
        # Also where only OpenTelemetry's context was carried into a thread.
        if (exact := self.of_span(span)) is not None:
            return exact
        if request is not None and (
            not request.ended or request.trace_id == trace.format_trace_id(ids.trace_id)
        ):
            return request
        parent = getattr(span, "parent", None)
        followed = self._followed.get((parent.trace_id, parent.span_id)) if parent is not None else None
        return followed.request if followed is not None else None

    # -------------------------------------------------------------------------------------------------------

    def _start(self, span: Span, parent_context: Context | None) -> None:
        scope = span.instrumentation_scope
        name = scope.name if scope is not None else ""
        if not self.wanted() or (name == _FLASK and _flask_is_audited()):
            return
        runtime = current()
        try:
            request = SpanRequest.of_span(span, runtime)
        except Exception as error:  # noqa: BLE001 - whatever it is, the policy decides
            runtime.trouble(error)
            return
        around = self.of_span(trace.get_current_span())
        if around is not None and around.is_seen_again_by(request):
            return
        self._follow(span, request, runtime)
        response_header.ensure(self.of_span)
        carry()
        mark_span(span, request.request_id)
        if runtime.settings.baggage:
            request.parent_id = parent_in(baggage.get_baggage(BAGGAGE_KEY, parent_context))
        request.outer = current_request.named()
        if isinstance(request.outer, SpanRequest) and request.outer.ended:
            request.outer = None
        current_request.set(request)
        if not self._warned and refuses():
            self._warned = True
            logger.warning(
                "SPANSEAL_ON_ERROR is closed, but a request that is audited by its span cannot be refused: "
                "what cannot be stored of it is counted and named"
            )
        if django_requests.follows(name):
            return  # it is told of Django's request next, and begins with what that knows
        request.begin_early()

    def _follow(self, span: Span, request: SpanRequest, runtime: Runtime) -> None:
        key = span_key(span)

        def gone(_: object) -> None:
            # A finalizer: it runs in the middle of anything.
            followed = self._followed.pop(key, None)
            if followed is not None:
                runtime.orphaned(followed.request.end)

        self._followed[key] = _Followed(request, weakref.ref(span, gone))
        if len(self._followed) > _MOST:
            with suppress(StopIteration, RuntimeError):
                oldest = next(iter(self._followed))
                if (followed := self._followed.pop(oldest, None)) is not None:
                    followed.request.end()

    def _wrong(self, error: Exception) -> None:
        if self._throttle.due(type(error).__name__):
            logger.error("a server span cannot be recorded", exc_info=error)


def _flask_is_audited() -> bool:
    # Asked without an import: there may be no Flask. A span processor that runs in a thread of its own
    # (ConcurrentMultiSpanProcessor) does not see the request's context.
    module: Any = sys.modules.get("spanseal.flask_app")
    return module is not None and bool(module.audits_every_app())


_auditor: SpanAuditor | None = None
_lock = threading.Lock()


def auditor() -> SpanAuditor:
    """Return this process's span processor."""
    global _auditor  # noqa: PLW0603 - one for each process
    with _lock:
        if _auditor is None:
            _auditor = SpanAuditor()
            current_request.judge = _auditor.find
        return _auditor
