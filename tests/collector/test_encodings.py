"""One record in protobuf and in JSON is one record."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from spanseal_collector.admission import Admitter, Draft, Rejected
from spanseal_collector.otlp import decode_logs
from spanseal_collector.otlp_json import decode_json_logs
from tests.collector import otlp_json

ADMITTER = Admitter(bytes(32))
EXAMPLES = 100 * int(os.environ.get("SPANSEAL_FUZZ_FACTOR", "1"))

texts = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.one_of(
    st.builds(lambda plain: AnyValue(string_value=plain), texts),
    st.builds(lambda plain: AnyValue(bool_value=plain), st.booleans()),
    st.builds(lambda plain: AnyValue(int_value=plain), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.builds(lambda plain: AnyValue(double_value=plain), st.floats()),
    st.builds(lambda plain: AnyValue(bytes_value=plain), st.binary(max_size=12)),
    st.just(AnyValue()),
)


def pairs(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    valued = st.builds(lambda key, value: KeyValue(key=key, value=value), texts, values)
    return st.lists(valued | st.builds(lambda key: KeyValue(key=key), texts), max_size=3)


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda found: AnyValue(array_value=ArrayValue(values=found))),
        pairs(inner).map(lambda found: AnyValue(kvlist_value=KeyValueList(values=found))),
    ),
    max_leaves=12,
)
times = st.integers(0, (1 << 64) - 1)
words = st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}", fullmatch=True) | texts


@st.composite
def records(draw: st.DrawFn) -> LogRecord:
    log = LogRecord(
        time_unix_nano=draw(times),
        observed_time_unix_nano=draw(times),
        severity_number=draw(st.integers(0, 24)),  # type: ignore[arg-type]  # an enum is an int
        severity_text=draw(texts),
        attributes=[*draw(pairs(values)), KeyValue(key="audit.record.id")],
        flags=draw(st.integers(0, (1 << 32) - 1)),
        dropped_attributes_count=draw(st.integers(0, (1 << 32) - 1)),
        trace_id=draw(st.sampled_from((b"", bytes(range(16)), b"\xff"))),
        span_id=draw(st.sampled_from((b"", bytes(range(8)), bytes(8)))),
        event_name=draw(words),
        body=draw(values) if draw(st.booleans()) else None,
    )
    # Else the collector would make one, which differs.
    log.attributes[-1].value.string_value = str(uuid.UUID(int=draw(st.integers(0, (1 << 128) - 1))))
    return log


@st.composite
def requests(draw: st.DrawFn) -> ExportLogsServiceRequest:
    message = ExportLogsServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        logs = message.resource_logs.add()
        logs.resource.attributes.extend(draw(pairs(values)))
        for _ in range(draw(st.integers(0, 2))):
            scoped = logs.scope_logs.add()
            scoped.scope.name, scoped.scope.version = draw(texts), draw(texts)
            scoped.scope.attributes.extend(draw(pairs(values)))
            scoped.log_records.extend(draw(st.lists(records(), max_size=3)))
    return message


def outcome(item: Draft | Rejected) -> object:
    if isinstance(item, Draft):
        return item.record, item.untimed
    return item.reason, item.producer_id, item.producer_seq


layouts = st.fixed_dictionaries({"ensure_ascii": st.booleans(), "indent": st.sampled_from((None, 1))})


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests(), layouts)
def test_json_is_read_as_protobuf_is(message: ExportLogsServiceRequest, layout: dict[str, Any]) -> None:
    raw = message.SerializeToString()
    text = json.dumps(otlp_json.request(message), **layout)
    expected = [outcome(item) for item in ADMITTER.admit(decode_logs(raw))]
    found = list(ADMITTER.admit(decode_json_logs(text.encode())))
    assert [outcome(item) for item in found] == expected
    # What is set aside says what was sent, and is read as it was.
    for item in found:
        if isinstance(item, Rejected):
            again = b'{"resourceLogs":[' + item.raw + b"]}"
            (once_more,) = ADMITTER.admit(decode_json_logs(again))
            assert outcome(once_more) == outcome(item)
