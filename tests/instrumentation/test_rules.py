"""Rules before the defaults: which one says what, what is skipped, and what requests become by them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.errors import ConfigurationError
from spanseal.meaning.json_answer import MAX_BYTES, JsonAnswer, value_at
from spanseal.meaning.mapping import Meaning, map_request
from spanseal.meaning.rules import DEFAULTS, Rules, load_rules
from tests.instrumentation.conftest import Audit

Load = Callable[[str], Rules]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str) -> Rules:
        path = tmp_path / "rules.yaml"
        path.write_text(f"version: 1\nrules:\n{text}")
        return load_rules(path)

    return loaded


def test_without_rules_everything_is_as_by_default(tmp_path: Path, load: Load) -> None:
    assert load_rules(None) is DEFAULTS
    empty = tmp_path / "empty.yaml"
    empty.write_text("version: 1")
    for rules in (DEFAULTS, load_rules(empty), load("  - {route: /elsewhere, severity: low}")):
        for route in ("/patients/<pid>", None):
            args = {"pid": "3"}
            assert rules.meaning("GET", route, args, 200) == map_request("GET", route, args)
            assert rules.skips("GET", route) == ""
            assert rules.pointers("GET", route, 200) == ()


def test_each_key_is_taken_from_the_first_rule_that_matches_and_has_it(load: Load) -> None:
    rules = load(
        """
  - {route: /patients/<pid>, method: GET, action: patient_record.viewed, data_classes: [phi, pii]}
  - {route: /patients/*, severity: high, action: patient.touched}
  - {route: /**, severity: low, retention_class: hipaa}
"""
    )
    classes = {"audit.data_classes": "phi,pii"}
    assert rules.meaning("GET", "/patients/<pid>", {"pid": "3"}, 200) == Meaning(
        "patient_record.viewed",
        "patient",
        "3",
        attributes={**classes, "audit.severity": "high", "audit.retention_class": "hipaa"},
    )
    changed = rules.meaning("DELETE", "/patients/<pid>", {"pid": "3"}, 200)
    assert (changed.action, changed.resource_id) == ("patient.touched", "3")
    assert changed.attributes == {"audit.severity": "high", "audit.retention_class": "hipaa"}
    assert rules.meaning("GET", "/x", {}, 200).attributes == {
        "audit.severity": "low",
        "audit.retention_class": "hipaa",
    }
    assert rules.meaning("GET", None, {}, 200) == Meaning("request.unmatched")
    found = rules.resolved("GET", "/patients/<pid>", 200)
    lines = {key: source.rpartition("/")[2] for key, source in found.sources.items()}
    assert lines == {
        "action": "rules.yaml:4",
        "resource": "default: method",
        "data_classes": "rules.yaml:4",
        "severity": "rules.yaml:5",
        "retention_class": "rules.yaml:6",
    }


def test_a_resource_and_a_subject_are_what_the_rule_says(load: Load) -> None:
    rules = load(
        """
  - {route: "/a/<x>/b/<y>", resource: {type: thing}, subject: {type: owner, id: y}}
  - {route: "/c/<x>", resource: {id: ""}, subject: {type: owner, id: ""}}
  - {route: "/d/<code>", resource: {type: country, id: {variable: code, secret: false}}}
  - {route: "/d/<code>/*", action: a.b}
"""
    )
    values = {"x": "1", "y": "2", "code": "ch"}
    assert rules.meaning("GET", "/a/<x>/b/<y>", values, 200) == Meaning(
        "record.viewed", "thing", "2", "owner", "2"
    )
    assert rules.meaning("GET", "/c/<x>", values, 200) == Meaning("record.viewed", "record")
    assert rules.meaning("GET", "/d/<code>", values, 200) == Meaning("record.viewed", "country", "ch")
    # No rule says that this code is none.
    assert rules.meaning("GET", "/d/<code>/e", values, 200) == Meaning("a.b", "e")


def test_the_outcome_may_hang_on_the_status(load: Load) -> None:
    rules = load(
        """
  - {route: /login, method: POST, status: 200, outcome: failure, failure_reason: wrong password}
  - {route: /login, status: 401, failure_reason: locked}
  - {route: /search, status: [404, 5xx], outcome: success}
"""
    )
    assert rules.meaning("POST", "/login", {}, 200).outcome == "failure"
    assert rules.meaning("POST", "/login", {}, 302).outcome == ""
    assert rules.meaning("POST", "/login", {}, 401).failure_reason == "locked"
    for status, outcome in ((404, "success"), (503, "success"), (400, ""), (0, "")):
        assert rules.meaning("GET", "/search", {}, status).outcome == outcome


def test_nothing_has_come_out_before_there_is_a_status(load: Load) -> None:
    rules = load("  - {route: /a, outcome: success}")
    assert rules.meaning("POST", "/a", {}, 0).outcome == ""
    assert rules.meaning("POST", "/a", {}, 500).outcome == "success"


def test_head_is_get_unless_a_rule_before_says_otherwise(load: Load) -> None:
    rules = load(
        """
  - {route: /b, method: HEAD, action: b.looked_for}
  - {route: [/a, /b], method: GET, action: b.read}
"""
    )
    actions = [
        rules.meaning(method, route).action for route in ("/a", "/b") for method in ("GET", "HEAD", "POST")
    ]
    assert actions == ["b.read", "b.read", "a.submitted", "b.read", "b.looked_for", "b.submitted"]


def test_the_first_rule_that_matches_decides_about_skipping(load: Load) -> None:
    rules = load(
        """
  - {method: [OPTIONS], skip: preflights}
  - {route: /health, skip: probes}
  - {route: /patients/**, data_classes: [phi]}
  - {route: /pages/*, status: 5xx, severity: high}
  - {route: unmatched, method: GET, skip: scanners}
  - {route: /**, skip: nothing else is of interest}
"""
    )
    assert rules.skips("OPTIONS", "/patients/<pid>") == "preflights"
    assert rules.skips("OPTIONS", None) == "preflights"
    assert rules.skips("GET", "/health") == rules.skips("HEAD", "/health") == "probes"
    assert rules.skips("GET", "/patients/<pid>") == ""
    assert rules.skips("GET", "/pages/<name>") == ""  # its status is not known when it begins
    assert rules.skips("GET", None) == "scanners"
    assert rules.skips("POST", None) == ""
    assert rules.skips("POST", "/anything") == "nothing else is of interest"
    rule = rules.skipped_by("GET", "/health")
    assert rule is not None
    assert rule.place.endswith("rules.yaml:5")


def test_what_clients_invent_does_not_fill_the_memory(load: Load) -> None:
    rules = load("  - {route: /a, method: PURGE, action: a.purged}")
    for number in range(100):
        assert rules.meaning(f"X{number}", "/a").action == "a.requested"
        assert rules.skips(f"X{number}", "/a") == ""
    assert rules.meaning("PURGE", "/a").action == "a.purged"
    assert rules._resolve.cache_info().currsize == 2
    assert rules._skipping.cache_info().currsize == 1


def test_a_wrong_file_says_which_setting_named_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\nrules:\n- {rout: /a, severity: low}")
    with pytest.raises(ConfigurationError) as caught:
        load_rules(path)
    first, second = str(caught.value).splitlines()
    assert "SPANSEAL_RULES" in first
    assert second == f"{path}:3:4: a rule has no key `rout`: did you mean `route`?"


# --- pointers into JSON ---------------------------------------------------------------------------------------

DOCUMENT = {
    "id": 7,
    "data": {"id": "x", "a/b": "slash", "m~n": "tilde", "~1": "both", "": "empty", "none": None, "yes": True},
    "list": [{"id": 1}, {"id": 2}],
    "deep": {"id": {"id": 1}},
    "pi": 3.5,
    "long": "x" * 3000,
}
POINTED = [
    ("/id", "7"),
    ("/data/id", "x"),
    ("/data/a~1b", "slash"),
    ("/data/m~0n", "tilde"),
    ("/data/~01", "both"),
    ("/data/", "empty"),
    ("/list/1/id", "2"),
    *[
        (pointer, "")
        for pointer in (
            "/nothing",
            "/id/x",
            "/data",
            "/data/none",
            "/data/yes",
            "/list/01/id",
            "/list/-/id",
            "/list/2/id",
            "/list/x",
            "/deep/id",
            "/pi",
            "/long",
        )
    ],
]


@pytest.mark.parametrize(("pointer", "value"), POINTED)
def test_values_at_pointers(pointer: str, value: str) -> None:
    assert value_at(DOCUMENT, pointer) == value


HEADERS = [
    ([("Content-Type", "application/json")], True),
    ([("content-type", "Application/Problem+JSON; charset=utf-8"), ("Content-Length", str(MAX_BYTES))], True),
    ([("Content-Type", "application/json"), ("Content-Encoding", "identity")], True),
    ([("Content-Type", "application/json"), ("Content-Encoding", "gzip")], False),
    ([("Content-Type", "application/json"), ("Content-Length", str(MAX_BYTES + 1))], False),
    ([("Content-Type", "application/json"), ("Content-Length", "9" * 5000)], False),
    ([("Content-Type", "text/html")], False),
    ([("Content-Type", "application/x-ndjson")], False),
    ([], False),
]


@pytest.mark.parametrize(("headers", "looked_into"), HEADERS)
def test_only_json_that_can_be_read_as_it_passes_is_looked_into(
    headers: list[tuple[str, str]],
    looked_into: bool,  # noqa: FBT001
) -> None:
    assert (JsonAnswer.expected(["/id"], headers) is not None) is looked_into


@given(
    st.binary(max_size=50) | st.sampled_from([b"[" * 2000, b'{"id":' + b"9" * 5000 + b"}", b'{"id": NaN}'])
)
def test_whatever_the_answer_is_looking_into_it_raises_nothing(data: bytes) -> None:
    answer = JsonAnswer(["/id", "/0"])
    for at in range(0, len(data), 7):
        answer.take(data[at : at + 7])
    assert all(isinstance(value, str) for value in answer.values().values())


def test_no_more_is_kept_than_the_bound() -> None:
    answer = JsonAnswer(["/id"])
    answer.take(b'{"id": 1, "text": "')
    for _ in range(200):
        answer.take(b"x" * 1000)
        assert sum(map(len, answer._parts)) <= MAX_BYTES
    answer.take(b'"}')
    answer.take(None)  # type: ignore[arg-type]  # an application's mistake
    assert answer._parts == []
    assert answer.values() == {}
    whole = JsonAnswer(["/id"])
    whole.take(json.dumps({"id": 1, "text": "x" * (MAX_BYTES - 30)}).encode())
    assert whole.values() == {"/id": "1"}
    assert whole._parts == []


# --- requests -------------------------------------------------------------------------------------------------

RULES = """\
version: 1
rules:
  - route: /patients
    method: POST
    status: 2xx
    resource: {type: patient, id: {response: /data/id}}
    subject: {type: ward, id: {response: /data/ward}}
    data_classes: [phi]
  - route: /patients/<pid>
    method: GET
    action: patient_record.viewed
    severity: high
    retention_class: hipaa
  - {route: /login, method: POST, status: 200, outcome: failure, failure_reason: wrong password}
  - {route: /login, status: 401, failure_reason: unknown account}
  - {route: /health, skip: liveness probes say nothing of anybody}
  - {route: /change-nothing, skip: it says so}
"""


@pytest.fixture
def ruled(app: flask.Flask, audit: Audit, tmp_path: Path) -> flask.Flask:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    audit.set(SPANSEAL_RULES=str(path))

    @app.post("/patients")
    def create() -> Any:
        kind = flask.request.args.get("kind", "json")
        body = json.dumps({"data": {"id": 41, "ward": "w-2", "diagnosis": "a secret"}})
        if kind == "stream":

            def parts() -> Iterator[str]:
                yield body[:9]
                yield body[9:]

            return flask.Response(parts(), 201, mimetype="application/json")
        if kind == "invalid":
            return flask.Response(body[:-3], 201, mimetype="application/json")
        if kind == "html":
            return flask.Response(body, 201)
        if kind == "refused":
            return flask.Response(body, 409, mimetype="application/json")
        return flask.Response(body, 201, mimetype="application/json")

    app.add_url_rule("/patients/<int:pid>", view_func=lambda pid: f"{pid}", endpoint="patient")
    app.add_url_rule("/health", view_func=lambda: "well", endpoint="health")
    app.add_url_rule("/change-nothing", view_func=lambda: "done", endpoint="change", methods=["POST"])
    app.add_url_rule(
        "/login",
        view_func=lambda: ("again", int(flask.request.args["status"])),
        endpoint="login",
        methods=["POST"],
    )
    return app


def test_an_id_is_taken_from_the_answer(ruled: flask.Flask, audit: Audit) -> None:
    client = ruled.test_client()
    kinds = ("json", "stream", "invalid", "html", "refused")
    answers = [client.post("/patients", query_string={"kind": kind}) for kind in kinds]
    whole = answers[0].data
    assert [answer.data for answer in answers] == [whole, whole, whole[:-3], whole, whole]
    records = audit.records()
    assert [record.action for record in records] == ["patient.created"] * 5
    assert [record.attributes.get("audit.target.id") for record in records] == ["41", "41", None, None, None]
    assert [record.attributes.get("audit.subject.id") for record in records] == [
        "w-2",
        "w-2",
        None,
        None,
        None,
    ]
    assert records[0].attributes["audit.subject.type"] == "ward"
    assert records[0].attributes["audit.data_classes"] == "phi"
    assert b"a secret" not in audit.bytes()


def test_what_rules_say_is_on_record(ruled: flask.Flask, audit: Audit) -> None:
    client = ruled.test_client()
    client.get("/patients/7")
    client.head("/patients/7")
    for status in (200, 401, 500):
        client.post("/login", query_string={"status": status})
    viewed, head, *sign_ins = audit.records()
    for record in (viewed, head):
        assert record.action == "patient_record.viewed"
        assert record.attributes["audit.target.id"] == "7"
        assert record.attributes["audit.severity"] == "high"
        assert record.attributes["audit.retention_class"] == "hipaa"
    assert [
        (record.attributes["audit.outcome"], record.attributes.get("audit.failure.reason"))
        for record in sign_ins
    ] == [
        ("failure", "wrong password"),
        ("failure", "unknown account"),
        ("failure", "Internal Server Error"),
    ]


def test_what_is_skipped_leaves_nothing(ruled: flask.Flask, audit: Audit) -> None:
    client = ruled.test_client()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert client.post("/change-nothing").data == b"done"
    client.get("/elsewhere")
    assert [row.action for row in audit.own_rows()] == ["request.unmatched"]
    assert [record.action for record in audit.records()] == ["request.unmatched"]


def test_a_wrong_rules_file_in_open_mode_leaves_the_defaults(
    ruled: flask.Flask, audit: Audit, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES + "  - {rout: /a, severity: low}\n")
    client = ruled.test_client()
    assert [client.get(path).status_code for path in ("/patients/7", "/health")] == [200, 200]
    assert [record.action for record in audit.records()] == ["patient.viewed", "health.viewed"]
    told = [record.message for record in log.records if "rules.yaml:18:6" in record.message]
    assert len(told) == 1  # not at every request
    assert "did you mean `route`?" in told[0]
    assert "requests are recorded by the default rules" in told[0]


def test_a_wrong_rules_file_in_closed_mode_closes(
    ruled: flask.Flask, audit: Audit, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    (tmp_path / "rules.yaml").unlink()
    client = ruled.test_client()
    answers = [client.get("/patients/7"), client.post("/change-nothing"), client.get("/elsewhere")]
    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert [answer.data for answer in answers if b"7" in answer.data or b"done" in answer.data] == []
    assert f"{tmp_path / 'rules.yaml'} cannot be read: No such file or directory" in log.text


@pytest.mark.parametrize("policy", ["open", "closed"])
def test_a_wrong_rules_file_is_named_at_the_start(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\nrules:\n- {rout: /a, severity: low}")
    program = "import logging; logging.basicConfig(); from spanseal import hook; hook.pre_instrument()"
    environ = {
        "SPANSEAL_RULES": str(path),
        "SPANSEAL_ON_ERROR": policy,
        "SPANSEAL_SPOOL_DIR": str(tmp_path / "spool"),
        "PATH": "",
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert result.stderr.count(f"{path}:3:4: a rule has no key `rout`") == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "spool").exists()
