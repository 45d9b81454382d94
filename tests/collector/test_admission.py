from __future__ import annotations

import hashlib
import hmac
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord

from spanseal_collector.admission import PRODUCER_KEYS, Admitter, Draft, Rejected
from spanseal_collector.errors import DecodeError
from spanseal_collector.otlp import decode_logs
from spanseal_ledger.personal import pseudonym
from spanseal_ledger.record import check_limits
from tests.collector.wire import field, nested, record, request

KEY = bytes(range(32))


def admit(*records: LogRecord, resource: dict[str, object] | None = None) -> list[Draft | Rejected]:
    body = request(*records, resource=resource).SerializeToString()
    return list(Admitter(KEY).admit(decode_logs(body)))


def admitted(log: LogRecord, resource: dict[str, object] | None = None) -> Draft:
    (item,) = admit(log, resource=resource)
    assert isinstance(item, Draft), item
    return item


def reason(log: LogRecord) -> str:
    (item,) = admit(log)
    assert isinstance(item, Rejected), item
    return item.reason


def test_every_mapped_attribute_reaches_its_column() -> None:
    log = record(
        audit__stream_id="web-1/0192f000-0000-7000-8000-0000000000aa",
        audit__sequence__number=7,
        audit__tenant="acme",
        audit__actor__role="nurse",
        audit__outcome="failure",
        audit__failure__reason="Forbidden",
        audit__target__type="patient",
        audit__target__id="42",
        audit__request__id="r-1",
        session__id="s-1",
        user__email="zoe@example.org",
        client__address="192.0.2.1",
        user_agent__original="curl/8",
        audit__personal__full_name="Zoë",
        http__route="/patients/<pid>",
    )
    log.trace_id, log.span_id = bytes(range(16)), bytes(range(8))
    found = admitted(log).record
    assert (found.producer_id, found.producer_seq) == ("web-1/0192f000-0000-7000-8000-0000000000aa", 7)
    assert (found.tenant, found.service, found.action) == ("acme", "clinic", "patient.viewed")
    assert (found.actor_type, found.actor_id, found.actor_role) == ("user", "u-17", "nurse")
    assert (found.outcome, found.failure_reason) == ("failure", "Forbidden")
    assert (found.resource_type, found.resource_id, found.request_id) == ("patient", "42", "r-1")
    assert (found.actor_email, found.actor_ip, found.session_id) == ("zoe@example.org", "192.0.2.1", "s-1")
    assert found.personal == {"user_agent.original": "curl/8", "full_name": "Zoë"}
    assert (found.trace_id, found.span_id) == (bytes(range(16)).hex(), bytes(range(8)).hex())
    assert found.metadata == {"http.route": "/patients/<pid>"}
    assert found.event_time == log.time_unix_nano


def test_metadata_keeps_types_in_key_order() -> None:
    log = record(zz=True, aa=1, mm=12.5, nn=b"\x00\x01", é=math.nan)
    log.attributes.append(KeyValue(key="empty"))
    log.attributes.append(
        KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1)])))
    )
    pairs = [KeyValue(key="b", value=AnyValue(bool_value=True))] * 2
    log.attributes.append(KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=pairs))))
    found = admitted(log).record
    assert list(found.metadata) == ["aa", "empty", "list", "map", "mm", "nn", "zz", "é"]
    assert found.metadata_types == "inakdxbd"
    assert found.metadata["list"] == '[{"intValue":"1"}]'
    twice = '{"key":"b","value":{"boolValue":true}}'
    assert found.metadata["map"] == f"[{twice},{twice}]"


def test_resource_scope_and_log_fields_become_metadata() -> None:
    log = record()
    log.body.string_value = "a sentence"
    log.severity_number = SEVERITY_NUMBER_INFO
    log.severity_text, log.flags = "INFO", 1
    log.observed_time_unix_nano = log.time_unix_nano + 5
    found = admitted(log, resource={"service.name": "clinic", "host.name": "web-1"}).record
    assert found.metadata["resource.host.name"] == "web-1"
    assert "resource.service.name" not in found.metadata
    assert found.metadata["log.body"] == "a sentence"
    assert found.metadata["log.severity_number"] == "9"
    assert found.metadata["log.severity_text"] == "INFO"
    assert found.metadata["log.observed_time_unix_nano"] == str(log.time_unix_nano + 5)


def test_an_empty_body_that_a_relay_added_is_no_body() -> None:
    log = record()
    log.body.SetInParent()
    assert "log.body" not in admitted(log).record.metadata


def test_times_are_marked_with_whose_they_are() -> None:
    log = record()
    log.observed_time_unix_nano = 5
    log.time_unix_nano = 0
    observed = admitted(log)
    assert (observed.record.event_time, observed.record.metadata["audit.event_time"]) == (5, "observed")
    log.observed_time_unix_nano = 0
    none = admitted(log)
    assert none.untimed
    assert none.record.metadata["audit.event_time"] == "collector"


def test_a_plain_log_record_is_admitted_with_an_id_made_here() -> None:
    log = LogRecord(event_name="report.printed", time_unix_nano=1)
    found = admitted(log).record
    assert found.metadata["audit.record_id"] == "collector"
    assert len(found.record_id) == 36
    assert (found.actor_type, found.outcome) == ("anonymous", "unknown")


def test_identifiers_that_are_addresses_become_pseudonyms() -> None:
    log = record(
        audit__actor__id="zoe@example.org",
        audit__subject__id="max@example.org",
        audit__on_behalf_of="uma@example.org",
        audit__tenant="acme",
    )
    found = admitted(log).record
    key = hmac.new(KEY, b"spanseal/pseudonym/acme", hashlib.sha256).digest()
    assert found.actor_id == pseudonym(key, "zoe@example.org")
    assert found.metadata["audit.subject.id"] == pseudonym(key, "max@example.org")
    assert found.personal["audit.actor.id"] == "zoe@example.org"
    assert found.personal["audit.subject.id"] == "max@example.org"
    assert found.metadata["audit.on_behalf_of"] == pseudonym(key, "uma@example.org")
    assert found.personal["audit.on_behalf_of"] == "uma@example.org"
    plain = admitted(record(audit__on_behalf_of="u-7")).record
    assert (plain.metadata["audit.on_behalf_of"], plain.personal) == ("u-7", {})
    other = admitted(record(audit__actor__id="zoe@example.org", audit__tenant="other")).record
    assert other.actor_id != found.actor_id


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (record(""), "no event_name"),
        (record("nonsense"), "<resource>.<verb>"),
        (record("audit_log.stopped"), "collector's own"),
        (record("audit_log.erased"), "collector's own"),
        (record(audit__outcome="maybe"), "outcome"),
        (record(audit__outcome=1), "must be a string"),
        (record(audit__actor__type="robot"), "actor"),
        (record(audit__record__id="ABC"), "UUID"),
        (record(audit__record__id="0192F000-0000-7000-8000-000000000000"), "UUID"),
        (record(audit__tenant="_collector"), "collector's own"),
        (record(audit__chain__key="x"), "reserved"),
        (record(audit__erasure__chain="x"), "reserved"),
        (record(audit__quarantine__id="x"), "reserved"),
        (record(audit__invented="x"), "reserved"),
        (record(audit__event_time="collector"), "reserved"),
        (record(audit__schema__version="2"), "schema.version"),
        (record(audit__schema__version=True), "schema.version"),
        (record(audit__schema__version=1.0), "schema.version"),
        (record("AUDIT_LOG.stopped"), "<resource>.<verb>"),
        (record("Audit_Log.stopped"), "<resource>.<verb>"),
        (record("audit_log.stopped "), "<resource>.<verb>"),
        (record("audit_log.stopped\n"), "<resource>.<verb>"),
        (record("\u0430udit_log.stopped"), "<resource>.<verb>"),
        (record("audit_log.stopped.x"), "<resource>.<verb>"),
        (record("a\x00b.c"), "<resource>.<verb>"),
        (record(audit__record__id="0192f000-0000-7000-8000-00000000000\x00"), "UUID"),
        (record(audit__tenant=None, **{"audit.": "x"}), "reserved"),
        (record(audit__producer__last=1), "producer's own events"),
        (record(audit__producer__gap__first=1), "producer's own events"),
        (record("producer.gap", audit__producer__gap__invented=1), "reserved"),
        (record(audit__personal__audit__actor__id="x"), "reserved"),
        (
            record(
                audit__personal__a="x",
                **{"audit.personal.user_agent.original": "x", "user_agent.original": "y"},
            ),
            "given twice",
        ),
        (record(audit__sequence__number=1), "without audit.stream_id"),
        (record(audit__stream_id="a/b"), "needs audit.sequence.number"),
        (record(audit__stream_id="a/b", audit__sequence__number=-1), "needs audit.sequence.number"),
        (record(audit__stream_id="a/b", audit__sequence__number=True), "needs audit.sequence.number"),
        (record(audit__failure__reason="x"), "with the outcome success"),
        (record(audit__personal__name=5), "must be a string"),
        (record(big="x" * 65_537), "metadata"),
        (record(**{f"k{n}": n for n in range(10_000)}), "metadata"),
        (record(**{f"k{n}": "x" * 60_000 for n in range(20)}), "record"),
    ],
)
def test_what_cannot_be_admitted_is_rejected_with_its_reason(log: LogRecord, expected: str) -> None:
    assert expected in reason(log)


def test_a_producers_own_events_may_say_what_no_other_may() -> None:
    for action in ("producer.started", "producer.stopped", "producer.gap"):
        found = admitted(record(action, **dict.fromkeys(PRODUCER_KEYS, "x"))).record
        assert set(found.metadata) == PRODUCER_KEYS
    assert "producer's own events" in reason(record("producer.changed", audit__producer__last=1))


def test_a_key_given_twice_is_rejected() -> None:
    log = record(http__route="/a")
    log.attributes.append(KeyValue(key="http.route", value=AnyValue(string_value="/b")))
    assert "given twice" in reason(log)
    log = record()
    log.attributes.append(KeyValue(key="audit.actor.id", value=AnyValue(string_value="other")))
    assert "given twice" in reason(log)


def test_times_out_of_range_and_ids_of_wrong_width_are_rejected() -> None:
    log = record()
    log.time_unix_nano = 1 << 63
    assert "2^63" in reason(log)
    log = record()
    log.trace_id = b"\x01" * 15
    assert "15 bytes" in reason(log)


@pytest.mark.parametrize("depth", [40, 49])  # 49 is more than the runtime parses within a request
def test_deep_nesting_is_rejected_and_leaves_its_neighbours(depth: int) -> None:
    log = record()
    deep = AnyValue(int_value=1)
    for _ in range(depth):
        deep = AnyValue(array_value=ArrayValue(values=[deep]))
    log.attributes.append(KeyValue(key="deep", value=deep))
    good, bad = admit(record(), log)
    assert isinstance(good, Draft)
    assert isinstance(bad, Rejected)
    assert "nested" in bad.reason


def test_one_bad_string_among_a_hundred_leaves_the_others() -> None:
    good = [record(n=n) for n in range(100)]
    body = bytearray(request(*good).SerializeToString())
    at = body.index(b"u-17", len(body) // 2)
    body[at : at + 4] = b"\xff\xfe\xfd\xfc"
    items = list(Admitter(KEY).admit(decode_logs(bytes(body))))
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert len(items) == 100
    assert len(rejected) == 1
    assert "UTF-8" in rejected[0].reason
    ((raw,),) = [group.records for group in decode_logs(field(1, rejected[0].raw))]
    assert b"\xff\xfe\xfd\xfc" in raw
    assert raw in bytes(body)


def test_lone_surrogates_and_nuls() -> None:
    body = request(record(nul="a\x00b")).SerializeToString()
    (item,) = Admitter(KEY).admit(decode_logs(body))
    assert isinstance(item, Draft)
    assert item.record.metadata["nul"] == "a\x00b"
    surrogate = body.replace(b"a\x00b", b"\xed\xa0\x80")
    (item,) = Admitter(KEY).admit(decode_logs(surrogate))
    assert isinstance(item, Rejected)
    assert "UTF-8" in item.reason


def test_a_key_of_the_record_that_is_also_the_resources_is_given_twice() -> None:
    (item,) = admit(record(**{"resource.a": "x"}), resource={"a": "y"})
    assert isinstance(item, Rejected)
    assert "'resource.a' is given twice" in item.reason


def test_a_resource_that_cannot_be_read_sets_its_records_aside_and_no_others() -> None:
    good = request(record()).SerializeToString()
    records = [numbered.SerializeToString() for numbered in (record(), record())]
    for resource in (b"\xff\xff", nested(10_000, number=1), field(1, field(1, b"\xff"))):
        body = field(1, field(1, resource) + b"".join(field(2, field(2, raw)) for raw in records))
        items = list(Admitter(KEY).admit(decode_logs(good + body + good)))
        assert [type(item) for item in items] == [Draft, Rejected, Rejected, Draft]
        for item, raw in zip(items[1:3], records, strict=True):
            assert isinstance(item, Rejected)
            ((kept,),) = [group.records for group in decode_logs(field(1, item.raw))]
            assert kept == raw
            assert resource in item.raw


def test_values_of_countless_parts_are_rejected_before_they_are_made() -> None:
    many = AnyValue(array_value=ArrayValue(values=[AnyValue()] * 30_000))
    spread = AnyValue(
        array_value=ArrayValue(values=[AnyValue(array_value=ArrayValue(values=[AnyValue()] * 300))] * 100)
    )
    for value in (many, spread):
        log = record()
        log.attributes.append(KeyValue(key="many", value=value))
        assert "more parts" in reason(log)
        log = record()
        log.body.CopyFrom(value)
        assert "more parts" in reason(log)


def test_a_record_of_megabytes_is_rejected_and_its_place_in_its_stream_is_kept() -> None:
    log = record(audit__stream_id="web/1", audit__sequence__number=9, big="x" * 5_000_000)
    (item,) = admit(log)
    assert isinstance(item, Rejected)
    assert (item.producer_id, item.producer_seq) == ("web/1", 9)
    assert "bytes long" in item.reason
    assert len(item.raw) > 5_000_000


def test_a_bug_costs_one_record_which_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(value: object) -> tuple[str, str]:
        if value == 7:
            raise TypeError("put in")
        return "", "s"

    monkeypatch.setattr("spanseal_collector.admission.typed_text", broken)
    items = admit(record(n=1), record(n=7), record(n=2))
    assert [type(item) for item in items] == [Draft, Rejected, Draft]
    assert isinstance(items[1], Rejected)
    assert "TypeError" in items[1].reason


def test_what_protobuf_lets_pass_is_admitted_or_rejected_and_never_fails() -> None:
    log = record(far=-(1 << 63), tiny=5e-324, **{"": "empty key"})
    log.severity_number = -5  # type: ignore[assignment]  # an enum is any int on the wire
    log.flags = (1 << 32) - 1
    log.time_unix_nano = (1 << 63) - 1
    raw = log.SerializeToString() + field(99, b"unknown")
    body = field(1, field(1, b"") + field(2, field(2, raw)))
    (item,) = Admitter(KEY).admit(decode_logs(body))
    assert isinstance(item, Draft), item
    assert item.record.metadata["log.severity_number"] == "-5"
    assert item.record.metadata["far"] == str(-(1 << 63))
    assert item.record.metadata[""] == "empty key"
    assert (item.record.service, item.record.event_time) == ("", (1 << 63) - 1)
    observed = record()
    observed.observed_time_unix_nano = 1 << 63
    assert "2^63" in reason(observed)


@given(st.binary(max_size=200), st.binary(max_size=40))
@settings(deadline=None, max_examples=300)
def test_no_bytes_make_it_fail(raw: bytes, other: bytes) -> None:
    bodies = (
        raw,
        field(1, raw),
        field(1, field(1, other) + field(2, raw)),
        field(1, field(1, other) + field(2, field(1, other) + field(2, raw))),
        field(1, field(2, field(2, record().SerializeToString() + raw))),
        field(
            1, field(2, field(2, record().SerializeToString() + field(6, field(1, other) + field(2, raw))))
        ),
    )
    for body in bodies:
        try:
            groups = decode_logs(body)
        except DecodeError:
            continue
        for item in Admitter(KEY).admit(groups):
            if isinstance(item, Draft):
                check_limits(item.record)
            else:
                assert "failed" not in item.reason
                decode_logs(field(1, item.raw))
