"""A sampler that has server spans recorded which the application's own sampler drops.

A dropped span never ends, as far as a span processor can see: whoever keeps spans from being exported, a client with
`traceparent: …-00` among them, would keep requests from being audited. What is recorded only, and not sampled, ends
like any other and is exported by nobody: exporters ask for the sampled flag, and so do the samplers of child spans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

__all__ = ["RecordServerSpans"]


class RecordServerSpans(Sampler):
    """Asks another sampler, and turns its DROP into RECORD_ONLY for server spans.

    Args:
        sampler: The application's own. Its trace state and its attributes are kept, and so are all its other
            answers.
        wanted: Says whether a server span that begins now is of use. Where it is not, it stays dropped.
        inside: Is told of spans that begin inside of others and bear a route, dropped or not: where a server span
            is of an application, and another one is mounted in it, these know what was asked for.
    """

    def __init__(
        self,
        sampler: Sampler,
        wanted: Callable[[], bool],
        inside: Callable[[Context | None, str], None] = lambda _context, _route: None,
    ) -> None:
        self.sampler = sampler
        self._wanted = wanted
        self._inside = inside

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide as the application's sampler does, but for what is said above."""
        # A sampler may be older than its last argument: it is passed on only where it was given.
        more: dict[str, Any] = {} if trace_state is None else {"trace_state": trace_state}
        result = self.sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, **more)
        if (
            kind is SpanKind.INTERNAL
            and attributes
            and isinstance(route := attributes.get("http.route"), str)
        ):
            self._inside(parent_context, route)
        if kind is not SpanKind.SERVER or result.decision is not Decision.DROP or not self._wanted():
            return result
        # What the span was begun with: a sampler that drops gives none of it back.
        return SamplingResult(
            Decision.RECORD_ONLY, {**(attributes or {}), **result.attributes}, result.trace_state
        )

    def get_description(self) -> str:
        """Describe the application's sampler: this one changes nothing that is exported."""
        return self.sampler.get_description()

    def __getattr__(self, name: str) -> Any:
        # For whoever looks for what the application's sampler has besides.
        if name == "sampler":  # not yet there, in a copy that is being made
            raise AttributeError(name)
        return getattr(self.sampler, name)
