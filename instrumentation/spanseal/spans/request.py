"""One request as its server span shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from spanseal.actors.actor import Actor
from spanseal.actors.sources import Evidence, Found, resolve
from spanseal.errors import ConfigurationError, NotAudited
from spanseal.meaning.mapping import UNMATCHED, is_state_changing
from spanseal.meaning.rules import DEFAULTS
from spanseal.request import AuditedRequest, client_address
from spanseal.runtime import Runtime
from spanseal.wire import AuditRecord

from .facts import Facts, actor_of, facts_of, rpc_meaning
from .route_templates import template

__all__ = ["SpanRequest", "span_key"]

_ASGI_SCOPES = (
    "opentelemetry.instrumentation.asgi",
    "opentelemetry.instrumentation.fastapi",
    "opentelemetry.instrumentation.starlette",
    "starlette",
)
_NO_FACTS = Facts(kind="other")
_SWITCHING = 101
"""The status that a WebSocket's handshake is answered with."""

SpanKey = tuple[int, int]
"""Trace and span id."""


def span_key(span: trace.Span | ReadableSpan) -> SpanKey:
    """Return what tells a span from all others."""
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context is not None else (0, 0)


@dataclass(slots=True, kw_only=True)
class SpanRequest(AuditedRequest):
    """What is known of a request that another framework than Flask answers."""

    scope: str = ""
    """Name of the instrumentation that made the span."""
    facts: Facts = field(default_factory=lambda: _NO_FACTS)
    longest: int | None = None
    """The characters that the SDK cuts the span's texts to."""
    outer: AuditedRequest | None = None
    """The request that was current before it."""
    environ: Mapping[str, Any] = field(default_factory=dict)
    """What looks like a WSGI environ of it; of most frameworks, little."""
    framework: Any = None
    """The framework's own request, where it is known."""
    route_is_known: bool = False
    """Whether the framework itself has told the route, which it knows better than the span."""
    inner_route: str = ""
    """Of an application that is mounted in the span's own, as it writes it, with where it is mounted."""
    messages: bool = False
    """Whether what is sent to the client is seen passing (ASGI)."""
    complete: bool = False
    """Whether the last of it passed."""
    turned_away: bool = False
    """Whether a WebSocket was closed before it was accepted."""
    has_failed: bool = False
    """Whether the span says so."""
    error_type: str = ""
    taken_over: bool = False
    """Whether a Flask application inside records it: a record at its boundary knows more."""
    framework_actor: Actor | None = None
    """Whom the framework's own authentication knows."""
    _span_actor: Actor | None = None
    _stored: tuple[object, ...] = ()

    @classmethod
    def of_span(cls, span: ReadableSpan, runtime: Runtime) -> SpanRequest:
        """Take what is known as a span begins.

        Raises:
            ConfigurationError: A setting has a value that cannot be used.
        """
        scope = span.instrumentation_scope
        request = cls(
            runtime=runtime,
            request_id="",
            method="",
            client_address="",
            user_agent="",
            tenant=runtime.settings.tenant,
            incoming_id="",
            scope=scope.name if scope is not None else "",
        )
        context = span.get_span_context()
        if context is not None:
            request.trace_id = trace.format_trace_id(context.trace_id)
            request.span_id = trace.format_span_id(context.span_id)
        request.facts = facts = request._read(span)
        request.come_from(
            {
                "REMOTE_ADDR": facts.client,
                "HTTP_X_FORWARDED_FOR": facts.forwarded_for,
                "HTTP_X_REQUEST_ID": facts.request_id,
            }
        )
        request.see(span, early=True)
        return request

    def come_from(self, environ: Mapping[str, Any]) -> None:
        """Take from what looks like a WSGI environ where it came from, and under which id."""
        known = AuditedRequest.of_environ(environ, self.runtime)
        self.environ = environ
        self.request_id, self.incoming_id, self.peer = known.request_id, known.incoming_id, known.peer
        self.parent_id = known.parent_id or self.parent_id
        self.client_address = known.client_address or self.client_address
        self.user_agent = known.user_agent or self.user_agent

    def is_seen_again_by(self, other: SpanRequest) -> bool:
        """Say whether a server span inside of its own shows the same request: two middlewares make one each."""
        mine, others = self.facts, other.facts
        return bool(mine.path) and (mine.kind, mine.method, mine.path) == (
            others.kind,
            others.method,
            others.path,
        )

    def give_way(self, inner: AuditedRequest, path: str) -> None:
        """Let a Flask application that is mounted here record it: at its boundary more is known. It stays one record."""
        # PEP 3333 gives a path's bytes as Latin-1; what the span says of it may be as the client wrote it.
        asked = path.encode("latin-1", "replace").decode("utf-8", "replace")
        mine = unquote(self.facts.path) if self.facts.encoded else self.facts.path
        same = inner.method == self.method and bool(asked) and mine.endswith(asked)
        if not same or self.ended or self.taken_over or self.pending.answered:
            return  # a call of the handler's own, perhaps
        self.taken_over = True
        inner.request_id, inner.record_id, inner.event_time = self.request_id, self.record_id, self.event_time
        inner.pending, inner.said, inner.explicit_actor = self.pending, self.said, self.explicit_actor

    # --- what the span says ----------------------------------------------------------------------------

    def see(self, span: ReadableSpan, *, early: bool = False) -> None:
        """Take what the span says now. Its name is not used: there are paths in some.

        Args:
            span: The request's.
            early: Whether nothing of the application has run yet.
        """
        facts = self.facts = self._read(span)
        if not self.sent_method:
            self.method = "GET" if facts.kind == "websocket" else facts.method
        self.user_agent = facts.user_agent or self.user_agent
        if facts.status and facts.kind != "websocket":
            self.status = facts.status
        if facts.forwarded_for and self.framework is None:
            came_by = {"REMOTE_ADDR": facts.client, "HTTP_X_FORWARDED_FOR": facts.forwarded_for}
            self.client_address = client_address(came_by, self.runtime.settings.trusted_proxies)
        self.incoming_id = self.incoming_id or facts.request_id
        if facts.route and not self.route_is_known:
            route = template(self.inner_route or facts.route)
            self.matched(route.text, route.values(facts.path, encoded=facts.encoded))
        self._see_failure(span)
        self.find_actor(early=early)

    def see_inside(self, route: str) -> None:
        """Take the route of an application that is mounted at this one's, if the path is what both say."""
        whole = f"{self.facts.route.rstrip('/')}/{route.lstrip('/')}"
        if self.facts.route and not self.taken_over and template(whole).fits(self.facts.path):
            self.inner_route = whole
            read = template(whole)
            self.matched(read.text, read.values(self.facts.path, encoded=self.facts.encoded))

    def served_as(self, method: str) -> None:
        """As of any request; here it is known late, from what the framework has in the end."""
        if method != self.method:
            self.sent_method = self.sent_method or self.method
            self.method = method

    def matched(self, route: str | None, view_args: Mapping[str, str]) -> None:
        """As of any request; but one that was begun is not left out any more."""
        AuditedRequest.matched(self, route, view_args)
        if self.pending.row is not None:
            self.skipped = ""

    def find_actor(self, *, early: bool = False) -> None:
        """Look for the actor: the resolver, the span, the framework, a proxy; else it stays who it was.

        Args:
            early: Whether nothing of the application has run yet, so that a resolver may find nothing to read.
        """
        settings = self.runtime.settings
        try:
            resolver = self.runtime.resolver
        except ConfigurationError as error:
            self.runtime.trouble(error, "the actor is looked for elsewhere")
            resolver = None
        evidence = Evidence(g=None, environ=self.environ, peer=self.peer, header=settings.proxy_header)
        found = resolve(resolver, settings.actor_sources, evidence, self.found, early=early)
        if found is None or found.source != "resolver":
            for known, source in ((self._span_actor, "span"), (self.framework_actor, "framework")):
                if known is not None:
                    found = Found(known, source)
                    break
        if found is not None:
            self.recognise(found)

    def _read(self, span: ReadableSpan) -> Facts:
        # Only the span itself knows its limits, what is read in the end is a copy of it.
        limits = getattr(span, "_limits", None)
        if limits is not None:
            self.longest = getattr(limits, "max_span_attribute_length", None)
        facts = facts_of(
            span.attributes or {},
            longest=self.longest,
            asgi=self.scope in _ASGI_SCOPES,
        )
        self._span_actor = actor_of(span.attributes or {}) or self._span_actor
        return facts

    def _see_failure(self, span: ReadableSpan) -> None:
        self.has_failed = span.status.status_code is StatusCode.ERROR
        text = (span.attributes or {}).get("error.type")
        self.error_type = text if isinstance(text, str) else ""
        # An exception that the application has handled stands on the span too: it is none of the request's. Nor is
        # one that is how a framework says a status (Django's Http404).
        if not (self.has_failed or self.status >= 500) or 400 <= self.status < 500:
            return
        for event in reversed(span.events):
            kind = (event.attributes or {}).get("exception.type") if event.name == "exception" else None
            if isinstance(kind, str):
                self.exception = kind
                return

    # --- stages ----------------------------------------------------------------------------------------

    def begin_early(self) -> None:
        """Write it down before the handler runs, where it may change something."""
        facts = self.facts
        if facts.kind == "rpc":
            reading = rpc_meaning(facts.rpc_service, facts.rpc_method).reading
        elif facts.kind == "http" and facts.method:
            reading = not is_state_changing(facts.method)
        else:
            reading = True
        if self.pending.row is None and not reading and not self.skipped:
            self.runtime.begin(self.pending, self.record)

    def answer_early(self, span: ReadableSpan) -> None:
        """Write it down before the answer goes to the client, where the framework lets that be known."""
        self.see(span)
        if self.look is not None:
            self.look(self)
        self.answer(_SWITCHING if self.facts.kind == "websocket" else self.status)
        self._stored = self._known()

    def end_with(self, span: ReadableSpan) -> None:
        """Its span has ended."""
        if self.taken_over:
            self.ended = True
            return
        try:
            self.see(span)
        except NotAudited:
            pass  # said already; what was known before is recorded
        finally:
            self.incomplete = self.messages and not self.complete and self.pending.answered
            if self.facts.kind == "websocket":
                self.incomplete = False
            self._changed = self._changed or self._stored != self._known()
            self.end()

    def _known(self) -> tuple[object, ...]:
        return (
            self.status,
            self.exception,
            self.has_failed,
            self.actor,
            self.session_id,
            self.route,
            self.facts,
        )

    # --- its record --------------------------------------------------------------------------------------

    def record(self) -> AuditRecord:
        """Make the record of what is known now."""
        made = AuditedRequest.record(self)
        attributes = {**made.attributes, "audit.capture": "span"}
        if self.scope:
            attributes["otel.scope.name"] = self.scope
        facts = self.facts
        if facts.kind in ("rpc", "other") or not self.method:
            attributes.pop("http.request.method", None)
        if facts.kind == "rpc":
            self._as_call(made, attributes)
        elif facts.kind == "websocket":
            self._as_websocket(made, attributes)
        made.attributes = attributes
        self._judge(made)
        return made

    def _as_call(self, made: AuditRecord, attributes: dict[str, object]) -> None:
        facts = self.facts
        meaning = rpc_meaning(facts.rpc_service, facts.rpc_method)
        if not self.said.action:
            made.action = meaning.action if facts.rpc_service or facts.rpc_method else UNMATCHED
        made.resource_type = self.said.resource_type or meaning.resource_type
        named = (
            ("rpc.system.name", facts.rpc_system),
            ("rpc.service", facts.rpc_service),
            ("rpc.method", facts.rpc_method),
            ("rpc.response.status_code", facts.rpc_status),
        )
        attributes.update((name, text) for name, text in named if text)

    def _as_websocket(self, made: AuditRecord, attributes: dict[str, object]) -> None:
        attributes["network.protocol.name"] = "websocket"
        usual = DEFAULTS.meaning(self.method, self.route, self.view_args, self.status).action
        if made.action == usual and self.route is not None:
            made.action = f"{made.action.rpartition('.')[0]}.connected"

    def _judge(self, made: AuditRecord) -> None:
        """Set the outcome where the span knows what no HTTP status says."""
        if self.exception or self.said.outcome:
            return
        facts = self.facts
        if self.turned_away:
            made.outcome, made.failure_reason = "failure", "WebSocket not accepted"
        elif facts.rpc_status and facts.rpc_status not in ("OK", "0"):
            made.outcome, made.failure_reason = "failure", facts.rpc_status
        elif self.has_failed and made.outcome != "failure":
            made.outcome, made.failure_reason = "failure", self.error_type or "error"
        elif self.ended and made.outcome == "unknown" and facts.kind != "http":
            made.outcome = "success"
