"""What the attributes of server spans say: both generations of the semantic conventions, calls, and nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanseal.spans.facts import Facts, actor_of, facts_of, rpc_meaning

OLD = {
    "http.method": "POST",
    "http.scheme": "http",
    "http.target": "/patients/3?ssn=1",
    "http.url": "http://x/patients/3?ssn=1",
    "http.route": "/patients/{pid}",
    "http.status_code": 201,
    "net.peer.ip": "192.0.2.7",
    "http.user_agent": "curl",
}
NEW = {
    "http.request.method": "POST",
    "url.scheme": "http",
    "url.path": "/patients/3",
    "url.query": "ssn=1",
    "http.route": "/patients/{pid}",
    "http.response.status_code": 201,
    "client.address": "192.0.2.7",
    "user_agent.original": "curl",
}


@pytest.mark.parametrize(("attributes", "encoded"), [(OLD, True), (NEW, False), ({**OLD, **NEW}, False)])
def test_both_conventions_say_the_same(attributes: dict[str, Any], *, encoded: bool) -> None:
    assert facts_of(attributes) == Facts(
        kind="http",
        method="POST",
        route="/patients/{pid}",
        path="/patients/3",
        encoded=encoded,
        status=201,
        client="192.0.2.7",
        user_agent="curl",
    )


def test_the_url_will_do_where_there_is_no_target() -> None:
    facts = facts_of({"http.method": "GET", "http.url": "https://x:1/patients/3?ssn=1#f"})
    assert facts.path == "/patients/3"
    assert "ssn" not in repr(facts)
    assert facts_of({"http.method": "GET", "http.target": "http://[/"}).path == ""


def test_a_path_that_was_cut_is_not_used() -> None:
    assert facts_of(OLD, longest=len("/patients/3?ssn=1")).path == ""
    assert facts_of(OLD, longest=len("/patients/3?ssn=1") + 1).path == "/patients/3"
    assert facts_of(NEW, longest=len("/patients/3")).path == ""


def test_asgi_servers_have_decoded_the_path() -> None:
    assert facts_of(OLD, asgi=True).encoded is False


def test_the_connections_end_goes_before_what_a_header_said() -> None:
    facts = facts_of({**NEW, "client.address": "203.0.113.1", "network.peer.address": "192.0.2.1"})
    assert facts.client == "192.0.2.1"


@pytest.mark.parametrize(
    ("attributes", "method"),
    [
        ({"http.method": "get"}, "GET"),
        ({"http.request.method": "_OTHER", "http.request.method_original": "brew"}, "BREW"),
        ({"http.method": "_OTHER"}, "_OTHER"),
    ],
)
def test_methods(attributes: dict[str, str], method: str) -> None:
    facts = facts_of(attributes)
    assert (facts.kind, facts.method) == ("http", method)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"http.scheme": "ws", "http.route": "/rooms/{room}"}, "websocket"),
        ({"url.scheme": "wss"}, "websocket"),
        ({"rpc.system": "grpc", "rpc.service": "a.B", "rpc.method": "C"}, "rpc"),
        ({"messaging.system": "kafka"}, "other"),
        ({}, "other"),
    ],
)
def test_kinds(attributes: dict[str, str], kind: str) -> None:
    assert facts_of(attributes).kind == kind


@pytest.mark.parametrize(
    ("attributes", "service", "method", "status"),
    [
        (
            {
                "rpc.system": "grpc",
                "rpc.service": "clinic.v1.PatientService",
                "rpc.method": "Get",
                "rpc.grpc.status_code": 0,
            },
            "clinic.v1.PatientService",
            "Get",
            "OK",
        ),
        (
            {
                "rpc.system.name": "grpc",
                "rpc.method": "clinic.v1.PatientService/Get",
                "rpc.response.status_code": "OK",
            },
            "clinic.v1.PatientService",
            "Get",
            "OK",
        ),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": 7}, "", "", "PERMISSION_DENIED"),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": 99}, "", "", "status 99"),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": True}, "", "", ""),
    ],
)
def test_calls(attributes: dict[str, Any], service: str, method: str, status: str) -> None:
    facts = facts_of(attributes)
    assert (facts.rpc_service, facts.rpc_method, facts.rpc_status) == (service, method, status)


@pytest.mark.parametrize(
    ("service", "method", "action", "reading"),
    [
        ("clinic.v1.PatientService", "GetPatient", "patient.viewed", True),
        ("clinic.v1.PatientService", "ListPatients", "patient.listed", True),
        ("clinic.v1.PatientService", "BatchGetPatients", "patient.viewed", True),
        ("clinic.v1.PatientService", "CreatePatient", "patient.created", False),
        ("clinic.v1.PatientService", "Discharge", "patient.discharged", False),
        ("clinic.v1.PatientService", "DeleteNote", "note.deleted", False),
        ("grpc.health.v1.Health", "Check", "health.called", False),
        ("Greeter", "SayHello", "greeter.called", False),
        ("", "", "request.called", False),
        ("§", "½", "request.called", False),
    ],
)
def test_what_calls_mean(service: str, method: str, action: str, *, reading: bool) -> None:
    meaning = rpc_meaning(service, method)
    assert (meaning.action, meaning.reading) == (action, reading)


def test_the_actor_of_a_span() -> None:
    assert actor_of({}) is None
    found = actor_of({"enduser.id": "42", "enduser.role": "doctor"})
    assert found is not None
    assert (found.id, found.role, found.type) == ("42", "doctor", "user")
    found = actor_of(
        {"user.id": "7", "user.roles": ("b", "a"), "user.email": "x@example.org", "user.name": "x"}
    )
    assert found is not None
    assert (found.id, found.role, found.email, found.name) == ("7", "a,b", "x@example.org", "x")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=3),
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.dictionaries(
        st.sampled_from(sorted({*OLD, *NEW, "rpc.method", "rpc.service", "enduser.id", "user.roles"})), VALUES
    )
)
def test_nothing_on_a_span_is_too_odd(attributes: dict[str, Any]) -> None:
    facts = facts_of(attributes)
    assert "?" not in facts.path
    rpc_meaning(facts.rpc_service, facts.rpc_method)
    actor_of(attributes)


def test_a_long_forwarded_for_does_not_hide_what_the_proxy_added() -> None:
    key = "http.request.header.x_forwarded_for"
    for padding in range(9):  # wherever it is cut
        sent = " " * padding + "6.6.6.6, " * 400 + "203.0.113.9"
        for value in (sent, [sent], sent.split(",")):
            found = facts_of({"http.request.method": "GET", key: value}).forwarded_for
            assert (len(found) <= 2048, found.split(",")[-1].strip()) == (True, "203.0.113.9")
            # An SDK that cuts texts cuts their end.
            cut = [item[:2000] for item in ([value] if isinstance(value, str) else value)]
            assert facts_of({"http.request.method": "GET", key: cut}, longest=2000).forwarded_for == ""
    assert (
        facts_of({"http.request.method": "GET", key: ["1.1.1.1", "2.2.2.2"]}).forwarded_for
        == "1.1.1.1,2.2.2.2"
    )
