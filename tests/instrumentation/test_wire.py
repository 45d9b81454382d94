"""The bytes that leave the process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from spanseal import __version__
from spanseal.actors.actor import Actor
from spanseal.errors import InvalidRecord
from spanseal.wire import (
    MAX_DEPTH,
    MAX_TEXT,
    AuditRecord,
    any_value,
    attribute,
    clean,
    encode_resource,
    export_request,
)
from tests.instrumentation.fake_receiver import decode, plain


def record(**changes: Any) -> AuditRecord:
    fields: dict[str, Any] = {"record_id": "r-1", "event_time": 5, "action": "patient.viewed"}
    return AuditRecord(**fields | changes)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        "",
        "text",
        "\x00",
        0,
        -1,
        2**63 - 1,
        -(2**63),
        0.5,
        b"",
        b"\xff",
        [],
        {},
        [1, "a", None],
    ],
)
def test_values_come_back_as_they_were(value: object) -> None:
    assert plain(any_value(value)) == value


def test_lists_and_mappings_nest() -> None:
    assert plain(any_value({"a": [1, {"b": (True, {})}], 5: "key"})) == {
        "a": [1, {"b": [True, {}]}],
        "5": "key",
    }


@given(st.text(st.characters()))
def test_text_is_kept_but_for_what_utf8_cannot_hold(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert cleaned == text


def test_a_lone_surrogate_becomes_its_escape_everywhere() -> None:
    body = record(
        action="patient.viewed",
        resource_id="a\udcffb",
        actor=Actor("\ud800", role="\udfff"),
        user_agent="\udc80",
        attributes={"k\udcff": "v\udcff", "list": ["\udcff", {"\udcfe": "\udcfd"}]},
    ).encode()
    log = LogRecord.FromString(body)
    found = {item.key: plain(item.value) for item in log.attributes}
    assert found["audit.target.id"] == "a\\udcffb"
    assert found["k\\udcff"] == "v\\udcff"
    assert found["list"] == ["\\udcff", {"\\udcfe": "\\udcfd"}]
    assert found["audit.actor.id"] == "\\ud800"


def nested(levels: int, kind: str) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value] if kind == "list" else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_what_is_nested_can_be_read_by_protobuf_or_is_refused(kind: str) -> None:
    body = record(attributes={"a": nested(MAX_DEPTH, kind)}).encode()
    (received,) = decode(export_request(b"", [(body, "s", 0)]))
    assert received.attributes["a"] == nested(MAX_DEPTH, kind)
    for levels in (MAX_DEPTH + 1, 10_000):
        with pytest.raises(InvalidRecord, match="nested"):
            record(attributes={"a": nested(levels, kind)}).encode()


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidRecord, match="holds itself"):
        any_value(ring)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**5000], ids=["more", "less", "unprintable"])
def test_an_int_beyond_64_bits_is_refused(value: int) -> None:
    with pytest.raises(InvalidRecord, match="64 bits"):
        any_value([value])


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, Exception("s3cret")])
def test_a_value_of_another_type_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(InvalidRecord) as caught:
        any_value(value)
    assert type(value).__name__ in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["s" * (MAX_TEXT + 1), "é" * (MAX_TEXT // 2 + 1), "\udcff" * (MAX_TEXT // 6 + 1)]
)
def test_a_text_that_no_collector_admits_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecord, match=r"audit.target.id has \d+ bytes"):
        record(resource_id=text).encode()
    with pytest.raises(InvalidRecord, match="bytes"):
        record(attributes={"k": [text]}).encode()
    record(resource_id="s" * MAX_TEXT, attributes={"k": "é" * (MAX_TEXT // 2)}).encode()


def test_what_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(InvalidRecord, match=r"audit\.target\.id must be text, not int"):
        record(resource_id=17).encode()


def test_a_record_has_its_names_on_the_wire() -> None:
    made = record(
        outcome="failure",
        failure_reason="Forbidden",
        actor=Actor("u-1", role="doctor", email="u@example.org", name="Uma"),
        session_id="s",
        resource_type="patient",
        resource_id="17",
        request_id="q",
        tenant="t",
        trace_id="0a" * 16,
        span_id="0b" * 8,
        client_address="192.0.2.1",
        user_agent="agent",
        attributes={"http.route": "/patients/<pid>", "http.response.status_code": 403},
    )
    resource = encode_resource({"service.name": "clinic", "n": 1, "tuple": ("a", "b")})
    (received,) = decode(export_request(resource, [(made.encode(), "desk/1", 41)]))
    assert received.resource == {"service.name": "clinic", "n": 1, "tuple": ["a", "b"]}
    assert (received.action, received.time) == ("patient.viewed", 5)
    assert (received.trace_id, received.span_id) == ("0a" * 16, "0b" * 8)
    assert received.attributes == {
        "audit.record.id": "r-1",
        "audit.schema.version": "1",
        "audit.outcome": "failure",
        "audit.failure.reason": "Forbidden",
        "audit.actor.type": "user",
        "audit.actor.id": "u-1",
        "audit.actor.role": "doctor",
        "user.email": "u@example.org",
        "audit.personal.user.name": "Uma",
        "session.id": "s",
        "audit.target.type": "patient",
        "audit.target.id": "17",
        "audit.request.id": "q",
        "audit.tenant": "t",
        "client.address": "192.0.2.1",
        "user_agent.original": "agent",
        "http.route": "/patients/<pid>",
        "http.response.status_code": 403,
        "audit.stream_id": "desk/1",
        "audit.sequence.number": 41,
    }


def test_a_trace_without_a_span_is_left_out_and_so_is_what_is_empty() -> None:
    (received,) = decode(export_request(b"", [(record(trace_id="0a" * 16).encode(), "s", 0)]))
    assert received.trace_id == ""
    assert received.attributes.keys() == {
        "audit.record.id",
        "audit.schema.version",
        "audit.outcome",
        "audit.actor.type",
        "audit.stream_id",
        "audit.sequence.number",
    }


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 2**63 - 1))
def test_a_request_is_what_protobuf_makes_of_the_same_parts(texts: list[bytes], number: int) -> None:
    bodies = [record(attributes={"k": text}).encode() for text in texts]
    resource = encode_resource({"service.name": "clinic"})
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.ParseFromString(resource)
    scope = logs.scope_logs.add()
    scope.scope.CopyFrom(InstrumentationScope(name="spanseal", version=__version__))
    for body in bodies:
        log = scope.log_records.add()
        log.ParseFromString(body)
        log.attributes.add(key="audit.stream_id").value.string_value = "s"
        log.attributes.add(key="audit.sequence.number").value.int_value = number
    made = export_request(resource, [(body, "s", number) for body in bodies])
    assert ExportLogsServiceRequest.FromString(made) == request


def test_bytes_that_are_no_record_do_not_keep_the_others_back() -> None:
    """They are the receiver's to judge; the request around them is whole."""
    made = export_request(b"", [(b"\xff\xff", "s", 0)])
    assert b"\xff\xff" in made


def test_attributes_can_be_read_back() -> None:
    assert attribute(record().encode(), ("audit.record.id",)) == {
        "action": "patient.viewed",
        "audit.record.id": "r-1",
    }
