"""What becomes of a request that cannot be audited: SPANSEAL_ON_ERROR=open lets it pass, =closed refuses it."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import flask
import pytest

from spanseal import flask_app, request, settings, wire, wsgi
from spanseal.delivery import spool
from spanseal.errors import SpoolUnavailable
from spanseal.meaning import mapping, rules
from tests.instrumentation.calling import call, environ
from tests.instrumentation.conftest import Audit
from tests.instrumentation.serving import werkzeug_server

SECRET = "what only an audited request may see"
Break = Callable[[Audit], None]


class Clinic:
    """An application that counts what it does."""

    def __init__(self, app: flask.Flask) -> None:
        self.app = app
        self.changed = 0
        self.read = 0
        app.add_url_rule("/patients", view_func=self.view, methods=["GET"])
        app.add_url_rule("/patients", view_func=self.change, methods=["POST"])
        app.add_url_rule("/export", view_func=self.export)

    def view(self) -> tuple[str, dict[str, str]]:
        self.read += 1
        return SECRET, {"X-Secret": SECRET, "Set-Cookie": f"a={len(SECRET)}"}

    def change(self) -> str:
        self.changed += 1
        return SECRET

    def export(self) -> flask.Response:
        def rows() -> Iterator[str]:
            self.read += 1
            yield SECRET

        return flask.Response(rows())


@pytest.fixture
def clinic(app: flask.Flask) -> Clinic:
    return Clinic(app)


# --- ways to break it --------------------------------------------------------------------------------------------


def no_directory(audit: Audit) -> None:
    audit.directory.write_text("a file stands where the directory should be")


def wrong_setting(audit: Audit) -> None:
    audit.set(SPANSEAL_SPOOL_MAX_BYTES="many")


def internal(owner: Any, name: str) -> Break:
    """Make one of our own functions fail as only a bug would."""

    def break_it(audit: Audit) -> None:
        def fail(*_arguments: object, **_named: object) -> Any:
            raise ZeroDivisionError(f"a bug in {name}")

        audit.monkeypatch.setattr(owner, name, fail)

    return break_it


def refuse_writing(name: str) -> Break:
    """Let the spool refuse one kind of statement, as a full disk does."""

    def break_it(audit: Audit) -> None:
        def fail(*_arguments: object) -> Any:
            raise SpoolUnavailable("no space left")

        audit.monkeypatch.setattr(spool.Spool, name, fail)

    return break_it


BEFORE_THE_VIEW = {
    "no directory": no_directory,
    "wrong setting": wrong_setting,
    "of_environ": internal(request.AuditedRequest, "of_environ"),
    "route": internal(flask_app, "_texts"),
    "look": internal(flask_app, "_look"),
    "encode": internal(wire.AuditRecord, "encode"),
    "mapping": internal(rules, "map_request"),
    "full at begin": refuse_writing("begin"),
    "bug at begin": internal(spool.Spool, "begin"),
}


def look_afterwards(audit: Audit) -> None:
    """Fail to look for the actor once the view has run."""
    look = flask_app._look
    looked: set[str] = set()

    def fail(one: request.AuditedRequest, context: Any) -> None:
        if one.request_id in looked:
            raise ZeroDivisionError("a bug in _look")
        looked.add(one.request_id)
        look(one, context)

    audit.monkeypatch.setattr(flask_app, "_look", fail)


AFTER_THE_VIEW = {
    "look afterwards": look_afterwards,
    "full at answer": refuse_writing("answer"),
    "bug at answer": internal(spool.Spool, "answer"),
    "client address": internal(request, "client_address"),
}


@pytest.mark.parametrize("name", [*BEFORE_THE_VIEW, *AFTER_THE_VIEW])
def test_open_leaves_every_answer_as_it_is_and_says_so(
    audit: Audit, clinic: Clinic, log: pytest.LogCaptureFixture, name: str
) -> None:
    (BEFORE_THE_VIEW | AFTER_THE_VIEW)[name](audit)
    client = clinic.app.test_client()
    for _ in range(3):
        assert client.get("/patients").text == SECRET
        assert client.get("/patients").headers["X-Secret"] == SECRET
        assert client.post("/patients").text == SECRET
        assert client.get("/export").text == SECRET
        assert client.head("/patients").status_code == 200
        assert client.get("/nowhere").status_code == 404
    assert clinic.changed == 3
    said = [record for record in log.records if record.levelname == "CRITICAL"]
    # Once, not at every request.
    assert 1 <= len(said) <= 2, [record.getMessage() for record in said]
    assert "requests go on unaudited" in said[0].getMessage()


@pytest.mark.parametrize("name", BEFORE_THE_VIEW)
def test_closed_refuses_a_change_before_it_is_made(
    audit: Audit, clinic: Clinic, log: pytest.LogCaptureFixture, name: str
) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")

    @clinic.app.errorhandler(Exception)
    def smooth(_error: Exception) -> str:
        return "an application that answers everything with 200"

    BEFORE_THE_VIEW[name](audit)
    answer = clinic.app.test_client().post("/patients")
    assert answer.status_code == 503
    assert clinic.changed == 0
    assert "cannot be audited" in answer.text
    assert answer.headers["Retry-After"] == "5"
    assert answer.content_length == len(answer.data)
    assert "requests are refused" in log.text


@pytest.mark.parametrize(
    "name", [name for name in BEFORE_THE_VIEW if "begin" not in name] + list(AFTER_THE_VIEW)
)
@pytest.mark.parametrize("path", ["/patients", "/export"])
def test_closed_withholds_an_answer_whole(audit: Audit, clinic: Clinic, name: str, path: str) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    (BEFORE_THE_VIEW | AFTER_THE_VIEW)[name](audit)
    body, begun = call(clinic.app, environ(clinic.app, path))
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    status, headers, _ = begun[0]
    assert status == "503 Service Unavailable"
    assert SECRET not in content.decode() + repr(headers)
    assert "Set-Cookie" not in headers
    assert int(headers["Content-Length"]) == len(content)


def test_a_wrong_setting_is_not_read_anew_at_every_request(
    audit: Audit, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_setting(audit)
    loaded: list[int] = []
    load = settings.load

    def counting() -> settings.Settings:
        loaded.append(1)
        return load()

    monkeypatch.setattr(settings, "load", counting)
    for _ in range(5):
        assert clinic.app.test_client().get("/patients").text == SECRET
    assert len(loaded) == 1


def test_closed_lets_pass_what_can_be_audited(audit: Audit, clinic: Clinic) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    client = clinic.app.test_client()
    for path in ("/patients", "/export"):
        assert client.get(path).text == SECRET
    assert client.post("/patients").text == SECRET
    assert len(audit.records()) == 3


def test_a_change_that_was_made_but_cannot_be_answered_is_on_record(audit: Audit, clinic: Clinic) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    refuse_writing("answer")(audit)
    assert clinic.app.test_client().post("/patients").status_code == 503
    assert clinic.changed == 1
    record = audit.record()
    assert record.action == "patient.created"
    assert record.attributes["audit.outcome"] == "success"
    assert record.attributes["spanseal.response.withheld"] is True


def test_written_data_is_withheld_as_well(audit: Audit, app: flask.Flask) -> None:
    """By `write()` (PEP 3333), and by an application that begins its answer when it is iterated over."""
    audit.set(SPANSEAL_ON_ERROR="closed")
    refuse_writing("answer")(audit)

    def writing(_environ: object, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(SECRET.encode())
        return [SECRET.encode()]

    def late(_environ: object, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield SECRET.encode()

    def latest(_environ: object, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from ()

    for application in (writing, late, latest):
        app.wsgi_app = application  # type: ignore[method-assign,assignment]
        body, begun = call(app, environ(app))
        content = b"".join(body)
        body.close()
        assert [entry[0] for entry in begun] == ["503 Service Unavailable"]
        assert content == wsgi._REFUSAL


def test_a_refused_head_has_no_body(audit: Audit, clinic: Clinic) -> None:
    audit.set(SPANSEAL_ON_ERROR="closed")
    no_directory(audit)
    with werkzeug_server(clinic.app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for method, path, length in (("HEAD", "/patients", 0), ("GET", "/patients", len(wsgi._REFUSAL))):
            # On one connection: a byte too many would be taken for the next answer's.
            connection.request(method, path)
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (503, length)
        connection.close()
    body, _ = call(clinic.app, environ(clinic.app, "/patients", method="HEAD"))
    assert b"".join(body) == b""
    body.close()
    wrong_setting(audit)
    audit.restart()
    body, _ = call(clinic.app, environ(clinic.app, "/patients", method="HEAD"))
    assert b"".join(body) == b""


def test_a_wrong_value_of_the_policy_counts_as_closed(audit: Audit, clinic: Clinic) -> None:
    audit.set(SPANSEAL_ON_ERROR="clsoed")
    assert clinic.app.test_client().post("/patients").status_code == 503
    assert clinic.changed == 0


def test_every_request_that_is_lost_is_counted_once_and_named_when_space_returns(
    audit: Audit, clinic: Clinic
) -> None:
    clinic.app.add_url_rule("/error", view_func=_full)
    client = clinic.app.test_client()
    client.get("/patients")
    with pytest.MonkeyPatch.context() as full:
        for name in ("begin", "answer"):
            full.setattr(spool.Spool, name, _full)
        client.get("/patients")
        client.post("/patients")
        client.get("/export")
        client.get("/nowhere")
        clinic.app.testing = True
        with pytest.raises(SpoolUnavailable):
            client.get("/error")
    client.get("/patients")
    everything = audit.everything()
    gaps = [record for record in everything if record.action == "producer.gap"]
    missing: set[int] = set()
    for gap in gaps:  # one or more, as the background thread came by
        assert gap.attributes["audit.producer.gap.reason"] == "spool_unavailable"
        assert gap.attributes["audit.producer.gap.stream_id"] == gap.stream
        first, last = gap.attributes["audit.producer.gap.first"], gap.attributes["audit.producer.gap.last"]
        assert gap.attributes["audit.producer.gap.count"] == last - first + 1
        missing |= set(range(first, last + 1))
    assert len(missing) == 5
    assert {record.number for record in everything} | missing == set(range(len(everything) + 5))


def _full(*_arguments: object) -> Any:
    raise SpoolUnavailable("no space left")


def test_what_is_lost_before_the_spool_can_be_made_is_named_too(audit: Audit, clinic: Clinic) -> None:
    no_directory(audit)
    client = clinic.app.test_client()
    for _ in range(3):
        client.get("/patients")
    audit.directory.unlink()
    audit.runtime.keeper._next_try = 0.0  # the time of the next attempt has come
    client.get("/patients")
    everything = audit.everything()
    (gap,) = [record for record in everything if record.action == "producer.gap"]
    assert gap.attributes["audit.producer.gap.count"] == 3


def test_a_thread_that_cannot_be_started_leaves_no_file(audit: Audit, clinic: Clinic) -> None:
    def fail(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as full:
        full.setattr("spanseal.delivery.shipper.Shipper.start", fail)
        assert clinic.app.test_client().get("/patients").text == SECRET
    assert not list(audit.directory.glob("*.db*"))
    assert not list(audit.directory.glob("*.lock"))
    audit.runtime.keeper._next_try = 0.0
    clinic.app.test_client().get("/patients")
    assert {record.action for record in audit.everything()} >= {"producer.gap", "patient.listed"}


@pytest.mark.parametrize("policy", ["open", "closed"])
def test_a_resolver_that_raises_is_passed_over(audit: Audit, clinic: Clinic, policy: str) -> None:
    def who() -> str:
        raise LookupError("the database is away")

    module = ModuleType("made_up_resolvers")
    module.__dict__["who"] = who
    audit.monkeypatch.setitem(sys.modules, "made_up_resolvers", module)
    audit.set(SPANSEAL_ON_ERROR=policy, SPANSEAL_ACTOR_RESOLVER="made_up_resolvers:who")
    assert clinic.app.test_client().post("/patients").text == SECRET
    assert audit.record().attributes["audit.actor.type"] == "anonymous"


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503)])
def test_a_resolver_that_cannot_be_imported(
    audit: Audit, clinic: Clinic, log: pytest.LogCaptureFixture, policy: str, status: int
) -> None:
    audit.set(SPANSEAL_ON_ERROR=policy, SPANSEAL_ACTOR_RESOLVER="no_such_module:who")
    client = clinic.app.test_client()
    with client.session_transaction() as session:
        session["user_id"] = 5
    for _ in range(3):
        assert client.post("/patients").status_code == status
    assert clinic.changed == (3 if policy == "open" else 0)
    (said,) = [entry.getMessage() for entry in log.records if entry.levelname == "CRITICAL"]
    assert "SPANSEAL_ACTOR_RESOLVER is 'no_such_module:who'" in said
    for record in audit.records():
        # The other sources still know.
        assert record.attributes["audit.actor.id"] == "5"
        assert record.attributes["http.response.status_code"] == status


def test_nothing_of_ours_is_seen_by_an_application_that_is_not_audited(audit: Audit) -> None:
    internal(mapping, "_plan")(audit)
    foreign = Clinic(flask.Flask("foreign"))
    assert foreign.app.test_client().post("/patients").text == SECRET
    assert audit.runtime.keeper.spool is None
