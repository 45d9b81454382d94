"""The moment before the answer: other frameworks' instrumentations ask then what is to be added to its headers.

OpenTelemetry lets a response propagator put headers into answers. This one gives back `X-Request-Id`, and where the
answer's beginning passes here (ASGI), it has the record written down before: the span itself ends after the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import (
    ResponsePropagator,
    default_setter,
    get_global_response_propagator,
    set_global_response_propagator,
)
from opentelemetry.propagators.textmap import Setter

from spanseal.errors import NotAudited
from spanseal.throttle import Throttle
from spanseal.wsgi import REQUEST_ID_HEADER

from .request import SpanRequest

__all__ = ["RequestIdPropagator", "ensure"]

logger = logging.getLogger("spanseal")

_NAME = REQUEST_ID_HEADER.lower().encode()
_MAX_HEADER = 2048


class RequestIdPropagator(ResponsePropagator):
    """Asks the application's own propagator first.

    Args:
        inner: That one, or None.
        find: Finds the request of a span that has not ended.
    """

    def __init__(
        self, inner: ResponsePropagator | None, find: Callable[[trace.Span], SpanRequest | None]
    ) -> None:
        self.inner = inner
        self._find = find
        self._throttle = Throttle()

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: Setter[Any] = default_setter,  # type: ignore[assignment]  # as OpenTelemetry's own have it
    ) -> None:
        """Add what is to be added to an answer. What goes wrong here stays here."""
        if self.inner is not None:
            self.inner.inject(carrier, context=context, setter=setter)
        try:
            span = trace.get_current_span(context)
            request = self._find(span)
            if request is not None and not request.taken_over:
                self._passes(carrier, setter, span, request)
        except NotAudited:
            pass  # said already: the answer cannot be kept from here
        except Exception as error:
            if self._throttle.due(type(error).__name__):
                logger.exception("an answer cannot be recorded before it is given")

    def _passes(self, carrier: Any, setter: Setter[Any], span: Any, request: SpanRequest) -> None:
        if not hasattr(carrier, "get"):
            setter.set(carrier, REQUEST_ID_HEADER, request.request_id)
            return
        kind = carrier.get("type") if isinstance(carrier, dict) else None
        if kind is None:
            # Django's answer: its span ends next, and only then is it given to the server.
            own = carrier.get(REQUEST_ID_HEADER)
            if isinstance(own, str) and own:
                request.own_request_id = own[:_MAX_HEADER]
            request.media_type = _media_type(carrier.get("Content-Type"))
            carrier[REQUEST_ID_HEADER] = request.request_id
            return
        request.messages = True
        match kind:
            case "http.response.start" | "websocket.accept":
                _put(carrier, request)
                request.answer_early(span)
            case "http.response.body":
                request.complete = not carrier.get("more_body", False)
            case "websocket.close" if not request.pending.answered:
                request.turned_away = True


def _put(message: dict[str, Any], request: SpanRequest) -> None:
    headers = [tuple(pair) for pair in message.get("headers") or ()]
    for name, value in headers:
        if name.lower() == _NAME:
            request.own_request_id = value[:_MAX_HEADER].decode("utf-8", "replace")
        elif name.lower() == b"content-type":
            request.media_type = _media_type(value.decode("latin-1"))
    # Another list: the application may keep its own for its next answer.
    message["headers"] = [pair for pair in headers if pair[0].lower() != _NAME]
    message["headers"].append((_NAME, request.request_id.encode()))


def _media_type(text: object) -> str:
    return text.partition(";")[0].strip().lower() if isinstance(text, str) else ""


def ensure(find: Callable[[trace.Span], SpanRequest | None]) -> None:
    """Put it before the application's propagator, also before one that was set since."""
    present = get_global_response_propagator()  # type: ignore[no-untyped-call]
    if not isinstance(present, RequestIdPropagator):
        set_global_response_propagator(RequestIdPropagator(present, find))  # type: ignore[no-untyped-call]
