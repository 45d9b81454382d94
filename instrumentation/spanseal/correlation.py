"""How what others write can be joined to audit records: an attribute of the request's span, and W3C baggage.

Both are off unless they are configured. With them off, spans and what is sent to other services are as they would be
without Spanseal.

Baggage is added where a propagator writes headers, not to a context: it is then right in threads, tasks, streaming
answers and error handlers without anything that would have to be undone afterwards.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators import textmap
from opentelemetry.trace import Span

from .api.units import request_id
from .errors import SpansealError
from .parent import BAGGAGE_KEY
from .runtime import current

__all__ = ["SPAN_ATTRIBUTE", "carry", "mark_span"]

SPAN_ATTRIBUTE = "audit.request.id"


def mark_span(span: Span, identifier: str) -> None:
    """Write a request's id on its span, where that is configured.

    Raises:
        ConfigurationError: A setting has a value that cannot be used.
    """
    if current().settings.span_attribute and span.is_recording():
        span.set_attribute(SPAN_ATTRIBUTE, identifier)


def carry() -> None:
    """Let this process's propagators carry the current request's id, where that is configured. Never raises."""
    try:
        configured = current().settings.baggage
    except SpansealError:
        return  # said where a record is made
    if configured and not isinstance(present := propagate.get_global_textmap(), _Carrying):
        propagate.set_global_textmap(_Carrying(present))


class _Carrying(textmap.TextMapPropagator):
    """The application's own propagators, whose baggage gets one more member."""

    def __init__(self, inner: textmap.TextMapPropagator) -> None:
        self._inner = inner

    def extract(
        self,
        carrier: Any,
        context: Context | None = None,
        getter: textmap.Getter[Any] = textmap.default_getter,
    ) -> Context:
        return self._inner.extract(carrier, context, getter)

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: textmap.Setter[Any] = textmap.default_setter,
    ) -> None:
        if identifier := request_id():
            context = baggage.set_baggage(BAGGAGE_KEY, identifier, context)
        self._inner.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        return self._inner.fields
