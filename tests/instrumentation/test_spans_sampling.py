"""Server spans are recorded whatever the sampler says, and exported only where it said so."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

import spanseal
from spanseal.spans.sampling import RecordServerSpans
from tests.instrumentation.conftest import Audit

TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


class Custom(Sampler):
    """Drops what is begun with `quiet`, adds to what it keeps, and changes the trace state of all."""

    # As samplers were written before there was a trace_state.
    def should_sample(  # type: ignore[override]
        self,
        parent_context: Context | None,  # noqa: ARG002
        trace_id: int,  # noqa: ARG002
        name: str,
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        state = TraceState([("custom", name[:4])])
        if attributes and attributes.get("quiet"):
            return SamplingResult(Decision.DROP, {"why": "quiet"}, state)
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {**(attributes or {}), "why": "loud"}, state)

    def get_description(self) -> str:
        return "Custom"


class Counting(IdGenerator):
    """The same ids for the same spans."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        self.last += 1
        return self.last << 64 | self.last << 60


def remote(*, sampled: bool) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = SpanContext(
        TRACE, PARENT, is_remote=True, trace_flags=flags, trace_state=TraceState([("v", "1")])
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def traffic(provider: TracerProvider) -> list[tuple[Any, ...]]:
    """Begin and end all sorts of spans; return what their contexts were."""
    tracer = provider.get_tracer("t")
    seen = []
    for context in (Context(), remote(sampled=True), remote(sampled=False)):
        for kind in SpanKind:
            for quiet in (False, True):
                begun: dict[str, Any] = {"context": context, "kind": kind, "attributes": {"quiet": quiet}}
                with (
                    tracer.start_as_current_span(kind.name, **begun) as outer,
                    tracer.start_as_current_span("inner") as inner,
                ):
                    ids = [span.get_span_context() for span in (outer, inner)]
                seen.append(
                    tuple((i.trace_id, i.span_id, int(i.trace_flags), i.trace_state.to_header()) for i in ids)
                )
    return seen


@pytest.mark.parametrize(
    "sampler",
    [
        ALWAYS_OFF,
        ALWAYS_ON,
        ParentBased(ALWAYS_ON),
        ParentBased(ALWAYS_OFF),
        ParentBased(TraceIdRatioBased(0.5)),
        TraceIdRatioBased(0.5),
        Custom(),
        ParentBased(Custom()),
    ],
    ids=lambda sampler: sampler.get_description()[:40],
)
def test_what_is_exported_and_handed_on_is_the_same_with_and_without(audit: Audit, sampler: Sampler) -> None:
    outcomes = []
    for audited in (False, True):
        simple, batched = InMemorySpanExporter(), InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, id_generator=Counting())
        provider.add_span_processor(SimpleSpanProcessor(simple))
        provider.add_span_processor(BatchSpanProcessor(batched))
        if audited:
            spanseal.instrument_provider(provider)
        handed_on = traffic(provider)
        provider.force_flush()
        exported = [
            sorted(
                (span.name, span.context.span_id, str(dict(span.attributes or {})))
                for span in exporter.get_finished_spans()
                if span.context
            )
            for exporter in (simple, batched)
        ]
        assert provider.sampler.get_description() == sampler.get_description()
        provider.shutdown()
        outcomes.append((handed_on, exported))
    assert outcomes[0] == outcomes[1]
    # And yet each of the six server spans is on record.
    assert len(audit.records()) == 6


def test_only_dropped_server_spans_are_changed_and_keep_what_they_were_begun_with() -> None:
    sampler = RecordServerSpans(Custom(), lambda: True)
    result = sampler.should_sample(None, 1, "name", SpanKind.SERVER, {"quiet": True, "http.method": "GET"})
    assert result.decision is Decision.RECORD_ONLY
    assert dict(result.attributes or {}) == {"quiet": True, "http.method": "GET", "why": "quiet"}
    assert result.trace_state is not None
    assert result.trace_state.to_header() == "custom=name"
    for kind in (None, *(kind for kind in SpanKind if kind is not SpanKind.SERVER)):
        assert sampler.should_sample(None, 1, "name", kind, {"quiet": True}).decision is Decision.DROP
    assert sampler.should_sample(None, 1, "name", SpanKind.SERVER, {}).decision is Decision.RECORD_AND_SAMPLE
    unwanted = RecordServerSpans(Custom(), lambda: False)
    assert unwanted.should_sample(None, 1, "name", SpanKind.SERVER, {"quiet": True}).decision is Decision.DROP


def test_the_applications_sampler_can_still_be_asked() -> None:
    sampler = RecordServerSpans(TraceIdRatioBased(0.25), lambda: True)
    assert sampler.rate == 0.25
    assert copy.copy(sampler).rate == 0.25
    with pytest.raises(AttributeError):
        _ = sampler.nothing


def test_a_provider_is_instrumented_once_with_the_tracers_it_has(audit: Audit) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    early = provider.get_tracer("early")
    spanseal.instrument_provider(provider)
    spanseal.instrument_provider(provider)
    early.start_span("x", kind=SpanKind.SERVER, attributes={"http.method": "GET", "http.route": "/a"}).end()
    assert audit.record().action == "a.viewed"


def test_what_is_no_provider_of_the_sdk_is_refused() -> None:
    with pytest.raises(spanseal.ConfigurationError, match="NoOpTracerProvider"):
        spanseal.instrument_provider(trace.NoOpTracerProvider())  # type: ignore[arg-type]
