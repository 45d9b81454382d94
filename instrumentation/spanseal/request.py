"""One request while it is audited: what is known of it so far, and the record that this makes."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from .actors.actor import ANONYMOUS, Actor
from .actors.proxy_header import peer_of
from .actors.sources import Evidence, Found
from .api.annotation import Annotation
from .errors import NotAudited
from .identifiers import uuid7
from .meaning.json_answer import JsonAnswer
from .meaning.mapping import IMPERSONATED, KNOWN_METHODS, OWN, SIGNED_IN, Meaning, is_state_changing
from .meaning.marks import Mark
from .parent import PARENT, parent_of
from .runtime import Pending, Runtime
from .wire import AuditRecord

__all__ = ["AuditedRequest", "client_address", "current_request", "exception_type", "header"]

logger = logging.getLogger("spanseal")

_named: ContextVar[AuditedRequest | None] = ContextVar("spanseal_request", default=None)


class _CurrentRequest:
    """A context variable; what it names may be judged before it is given out."""

    def __init__(self) -> None:
        self.judge: Callable[[AuditedRequest | None], AuditedRequest | None] | None = None
        """Says which request a context works for that names this one: where requests are audited by their spans, a
        context may be left over from one, or be shared by several."""

    def get(self) -> AuditedRequest | None:
        named = _named.get()
        return named if self.judge is None else self.judge(named)

    def named(self) -> AuditedRequest | None:
        """Return what the variable holds."""
        return _named.get()

    def set(self, request: AuditedRequest | None) -> Token[AuditedRequest | None]:
        return _named.set(request)

    def reset(self, token: Token[AuditedRequest | None]) -> None:
        _named.reset(token)


current_request = _CurrentRequest()
"""The request that this context works for; copied with the context into threads and tasks."""

# What goes back in a header: visible ASCII.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_MAX_HEADER = 2048
"""Characters of a header that are kept."""
_MAX_BAGGAGE = 8192
"""Characters of a baggage header that are read, as W3C Baggage bounds it."""


@dataclass(slots=True, kw_only=True)
class AuditedRequest:
    """What is known of one request. Made at the WSGI boundary, filled in by the framework's signals."""

    runtime: Runtime
    request_id: str
    record_id: str = field(default_factory=uuid7)
    event_time: int = field(default_factory=time.time_ns)
    method: str
    client_address: str
    user_agent: str
    tenant: str
    incoming_id: str
    """The request's own X-Request-Id header, or empty."""
    sent_method: str = ""
    """The method that the client sent, where something in the application has put another one in its place."""
    parent_id: str = ""
    """The id of another service's request that caused this one, as its sender says."""
    route: str | None = None
    """The route's template."""
    view_args: Mapping[str, str] = field(default_factory=dict)
    """The values of its variables as text. There may be credentials among them: only the mapping reads them."""
    skipped: str = ""
    """Why it is not recorded; empty where it is."""
    mark: Mark | None = None
    """What the view says that it does."""
    said: Annotation = field(default_factory=Annotation)
    actor: Actor | None = None
    """Who acts, as far as could be found, with the role of now."""
    found: Found | None = None
    """The same, with where it was found."""
    at_view: Actor | None = None
    """Who was known when the view began, which may put somebody else in the place."""
    peer: str | None = None
    """The address of the connection's other end: a proxy's, where there is one."""
    explicit_actor: Actor | None = None
    """Of `set_actor()`: goes before everything that was found."""
    session_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    status: int = 0
    """Of the answer; 0 where there is none yet."""
    media_type: str = ""
    """Of the answer, in lower case and without parameters."""
    json_answer: JsonAnswer | None = None
    """Looks into the answer as it passes, where a rule asks for an id that stands in it."""
    in_answer: Mapping[str, str] = field(default_factory=dict)
    """What was found there, by its JSON pointers."""
    exception: str = ""
    """Type of the exception that nobody handled."""
    incomplete: bool = False
    """Whether the answer's body was not sent to its end."""
    refused: bool = False
    """Whether the view was not run, since what it does could not be audited."""
    withheld: bool = False
    """Whether the answer was replaced, since it could not be audited."""
    own_request_id: str = ""
    """The X-Request-Id that the application gave its answer."""
    pending: Pending = field(default_factory=Pending)
    ended: bool = False
    evidence: Evidence | None = None
    """What the actor is found by, once that was looked at."""
    look: Callable[[AuditedRequest], None] | None = None
    """Looks for the actor again, as far as the framework's context is at hand."""
    _changed: bool = False
    _said: int = 0
    """How often the application has said something about it."""
    _as_made: Actor | None = None
    """Who acts, as it was when this one was found first."""

    @classmethod
    def of_environ(cls, environ: Mapping[str, Any], runtime: Runtime) -> AuditedRequest:
        """Take from a WSGI environ (PEP 3333) what is known at the boundary. Query and cookies are not read.

        Raises:
            ConfigurationError: A setting has a value that cannot be used.
        """
        settings = runtime.settings
        incoming = header(environ, "HTTP_X_REQUEST_ID").strip()
        trusted = settings.trust_request_id and _REQUEST_ID.fullmatch(incoming)
        return cls(
            runtime=runtime,
            request_id=incoming if trusted else uuid7(),
            method=str(environ.get("REQUEST_METHOD", "")).upper(),
            client_address=client_address(environ, settings.trusted_proxies),
            user_agent=header(environ, "HTTP_USER_AGENT"),
            tenant=settings.tenant,
            incoming_id=incoming,
            parent_id=parent_of(header(environ, "HTTP_BAGGAGE", _MAX_BAGGAGE)) if settings.baggage else "",
            peer=peer_of(environ),
        )

    def failed(self, error: BaseException) -> None:
        """Take notice of an exception that left the application."""
        self.exception = exception_type(error)
        self._changed = True

    def matched(self, route: str | None, view_args: Mapping[str, str]) -> None:
        """The framework has found a route, or none.

        Raises:
            NotAudited: What it means is not known, and it must not go on.
        """
        self.route, self.view_args = route, view_args
        # What is written down already is not left out any more: nothing would ever make it final.
        self.skipped = "" if self.pending.row is not None else self.runtime.rules.skips(self.method, route)

    def served_as(self, method: str) -> None:
        """The application answers it as this method, whatever was sent (`X-HTTP-Method-Override`): what is done counts."""
        if self.route is None and method != self.method:
            self.sent_method = self.sent_method or self.method
            self.method = method

    def changed(self) -> None:
        """Take notice that the application has said more about it."""
        self._said += 1
        self._changed = self._changed or self.pending.answered

    def recognise(self, found: Found) -> None:
        """Take notice of who was found by now."""
        known = self.found
        if known is None or (known.source, known.actor.id) != (found.source, found.actor.id):
            self._as_made = found.actor
        self.found, self.actor = found, found.actor

    def act_as(self, actor: Actor) -> None:
        """Take the actor from the application, which knows best."""
        self.explicit_actor = actor
        self.changed()

    def give_way(self, inner: AuditedRequest, path: str) -> None:
        """Let an application inside record the same request, where it is the same. One at a boundary never does.

        Args:
            inner: The request as that application gets it.
            path: What is asked of it.
        """

    # --- stages ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The route is known and the view is about to run.

        Raises:
            NotAudited: The request must not go on.
        """
        if self.pending.row is None and is_state_changing(self.method) and not self.skipped:
            self.runtime.begin(self.pending, self.record)

    def answer(self, status: int) -> None:
        """The answer is about to begin.

        Raises:
            NotAudited: The answer must not be given.
        """
        self.status = status
        if not self.skipped:
            said = self._said
            self.runtime.answer(self.pending, self.record)
            # Another thread may have said more while that was written down.
            self._changed = self._changed or self._said != said

    def watch(self, headers: Iterable[tuple[str, str]]) -> None:
        """The answer has these headers: look into it, where a rule asks for that. Never raises."""
        if self.skipped or self.replaced():
            return
        try:
            pointers = self.runtime.rules.pointers(self.method, self.route, self.status)
            self.json_answer = JsonAnswer.expected(pointers, headers) if pointers else None
        except Exception:
            logger.exception("the answer to request %s cannot be looked into", self.request_id)

    def end(self) -> None:
        """The answer has ended, or there will be none. Twice is once. Never raises."""
        if self.ended:
            return
        self.ended = True
        if self.skipped:
            return
        try:
            if self.json_answer is not None:
                self.in_answer = self.json_answer.values()
            changed = self._changed or self.incomplete or self.withheld or bool(self.in_answer)
            if not self.pending.answered:
                # Nobody was answered by the application: it is on record before the server answers.
                with suppress(NotAudited):
                    self.runtime.answer(self.pending, self.record)
                changed = not self.pending.answered
            self.runtime.finish(self.pending, self.record if changed else None)
        except Exception:
            logger.exception("the end of request %s cannot be recorded", self.request_id)

    def replaced(self) -> bool:
        """Say whether the client gets 503 instead of what the application answers."""
        return self.refused or self.withheld

    def record(self) -> AuditRecord:
        """Make the record of what is known now."""
        meaning = self.runtime.rules.meaning(
            self.method, self.route, self.view_args, self.status, self.in_answer
        )
        if self.mark is not None:
            meaning = self.mark.over(meaning, self.view_args)
        said = self.said
        who = self.explicit_actor or self._doer()
        action = said.action or meaning.action
        if action == IMPERSONATED and self.explicit_actor is None and self.at_view is not None:
            who = self.at_view  # afterwards the session is of the one who is impersonated, who did nothing
        outcome, reason = self._outcome(meaning, action, who)
        resource_id = said.resource_id or meaning.resource_id or (who.id if action in OWN else "")
        known = self.method in KNOWN_METHODS
        attributes: dict[str, object] = {
            **meaning.attributes,
            **said.attributes,
            "audit.capture": "wsgi",
            "http.request.method": self.method if known else "_OTHER",
        }
        optional = (
            ("http.request.method_original", (self.sent_method or ("" if known else self.method))[:64]),
            ("http.route", self.route or ""),
            ("http.response.status_code", self.status),
            ("exception.type", self.exception),
            ("audit.subject.type", said.attributes.get("audit.subject.type", meaning.subject_type)),
            ("audit.subject.id", said.attributes.get("audit.subject.id", meaning.subject_id)),
            (PARENT, self.parent_id),
            ("spanseal.response.incomplete", self.incomplete),
            ("spanseal.response.withheld", self.withheld),
        )
        attributes.update((name, value) for name, value in optional if value)
        if self.incoming_id and self.incoming_id != self.request_id:
            attributes["http.request.header.x-request-id"] = [self.incoming_id]
        if self.own_request_id:
            attributes["http.response.header.x-request-id"] = [self.own_request_id]
        return AuditRecord(
            record_id=self.record_id,
            event_time=self.event_time,
            action=action,
            outcome=outcome,
            failure_reason=reason,
            actor=who,
            session_id=self.session_id,
            resource_type=said.resource_type or meaning.resource_type,
            resource_id=resource_id,
            request_id=self.request_id,
            tenant=self.tenant,
            trace_id=self.trace_id,
            span_id=self.span_id,
            client_address=self.client_address,
            user_agent=self.user_agent,
            attributes=attributes,
        )

    def _doer(self) -> Actor:
        # A role that the request itself changes is not the one with which it was made.
        made = self._as_made
        if made is not None and self.found and self.found.actor is self.actor:
            return made
        return self.actor or ANONYMOUS

    def _outcome(self, meaning: Meaning, action: str, who: Actor) -> tuple[str, str]:
        if self.exception:
            return "failure", self.exception
        for known in (self.said, meaning):
            if known.outcome:
                return known.outcome, known.failure_reason
        if not self.status:
            return "unknown", ""
        if self.status < 400:
            outcome, reason = self._sign_in() if action == SIGNED_IN and not who.id else ("success", "")
        else:
            outcome, reason = "failure", _phrase(self.status)
        return outcome, (meaning.failure_reason or reason) if outcome == "failure" else ""

    def _sign_in(self) -> tuple[str, str]:
        """Say what it means that a sign-in is answered without an error, and yet nobody is known."""
        if self.status >= 300:
            return "unknown", ""  # to another service, perhaps, which asks for the password
        if self.media_type in _PAGES and self.status != 204:  # which has no page, whatever its type says
            return "failure", "not signed in"  # the form again
        return "success", ""  # with a token in the answer, which is not read


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"


def exception_type(error: BaseException) -> str:
    """Name an exception's type, with its module unless it is a builtin. Never its message: that leaks data."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def client_address(environ: Mapping[str, Any], trusted_proxies: int) -> str:
    """Find the client's address.

    Args:
        environ: The WSGI environ.
        trusted_proxies: How many proxies stand before this server. Only what the outermost of them added to
            X-Forwarded-For is believed; with 0 the header is not read.

    Returns:
        The address, or empty where the server knows none.
    """
    peer = peer_of(environ) or ""
    if trusted_proxies:
        hops = [hop.strip() for hop in str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",")]
        if len(hops) >= trusted_proxies and (address := _address(hops[-trusted_proxies])):
            return address
    return peer[:_MAX_HEADER]


def _address(text: str) -> str:
    """Return an IP address without port and brackets; empty where it is none."""
    candidates: Iterable[str] = (text, text.rpartition(":")[0], text.partition("]")[0].removeprefix("["))
    for candidate in candidates:
        try:
            return str(ipaddress.ip_address(candidate.removeprefix("[").removesuffix("]")))
        except ValueError:
            continue
    return ""


def header(environ: Mapping[str, Any], name: str, most: int = _MAX_HEADER) -> str:
    """Return a header's value as text, its beginning if it is long; empty where there is none."""
    # PEP 3333 gives header bytes as Latin-1; what clients send is UTF-8.
    text = str(environ.get(name, ""))[:most]
    return text if text.isascii() else text.encode("latin-1", "replace").decode("utf-8", "replace")
