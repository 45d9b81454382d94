"""The gate before privileged actions: the view runs only for who has confirmed and is approved, and all is on record."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import spanseal
from spanseal.delivery import spool
from spanseal.errors import SpoolUnavailable
from spanseal.gate.approval import State
from spanseal.gate.sqlite_store import SqliteStore
from tests.instrumentation.calling import replace_wsgi_app
from tests.instrumentation.conftest import Audit
from tests.instrumentation.privileged_app import add_views
from tests.instrumentation.privileged_clinic import REQUIRED, RULES, SEED, Clinic, error, make_clinic


@pytest.fixture
def clinic(audit: Audit, app: flask.Flask, tmp_path: Path) -> Clinic:
    return make_clinic(audit, app, tmp_path)


def test_without_a_policy_nothing_is_gated(clinic: Clinic) -> None:
    clinic.policy(RULES)
    assert clinic.client("eve", mfa=False).delete("/users/7").status_code == 200
    assert clinic.client("").get("/exports/all").status_code == 200
    assert clinic.done.said == ["DELETE 7", "GET all"]
    assert not (clinic.audit.directory / "approvals").exists()


def test_the_whole_way_is_on_record(clinic: Clinic) -> None:
    clinic.policy()
    nobody = clinic.client("").delete("/users/7")
    assert error(nobody) == (403, "actor_unknown")
    assert error(clinic.client("ann", mfa=False).delete("/users/7")) == (403, "confirmation_required")
    ann = clinic.client("ann")
    asked = ann.delete("/users/7")
    again = ann.delete("/users/7")
    assert error(asked) == error(again) == REQUIRED
    assert asked.json["approval"]["id"] == again.json["approval"]["id"]
    assert asked.headers["Location"].endswith(asked.json["approval"]["id"])
    assert clinic.done.said == []
    assert clinic.approve(asked).json["approval"]["state"] == "granted"
    used = ann.delete("/users/7")
    assert (used.status_code, used.text) == (200, "7")
    after = ann.delete("/users/7")
    assert error(after) == REQUIRED
    assert after.json["approval"]["id"] != asked.json["approval"]["id"]
    assert clinic.done.said == ["DELETE 7"]

    found = sorted(clinic.records(), key=lambda record: record.time)  # a request's is that of its beginning
    kinds = [(record.action, record.attributes.get("audit.failure.reason", "")) for record in found]
    assert kinds == [
        ("user.deleted", "actor unknown"),
        ("user.deleted", "confirmation required"),
        ("user.deleted", "approval required"),
        ("approval.requested", ""),
        ("user.deleted", "approval required"),
        ("approval.granted", ""),
        ("user.deleted", ""),
        ("approval.used", ""),
        ("user.deleted", "approval required"),
        ("approval.requested", ""),
    ]
    requested, granted, deleted, use = found[3], found[5], found[6], found[7]
    identifier = asked.json["approval"]["id"]
    for record in (requested, granted, use):
        assert record.attributes["audit.target.type"] == "approval"
        assert record.attributes["audit.target.id"] == identifier
        assert (
            record.attributes.items()
            >= {
                "approval.action": "user.deleted",
                "approval.resource.type": "user",
                "approval.resource.id": "7",
                "approval.method": "DELETE",
                "approval.route": "/users/<uid>",
                "approval.requester": "ann",
                "approval.requested_by": asked.headers["X-Request-Id"],
                "audit.outcome": "success",
            }.items()
        )
    assert requested.attributes["audit.request.id"] == asked.headers["X-Request-Id"]
    assert requested.attributes["audit.actor.id"] == "ann"
    assert requested.attributes["user.email"] == "ann@example.org"
    assert granted.attributes["audit.actor.id"] == granted.attributes["approval.approver"] == "ben"
    assert granted.attributes["audit.personal.approval.reason"] == "agreed"
    assert granted.attributes["audit.request.id"] not in ("", asked.headers["X-Request-Id"])
    assert granted.attributes["mfa_verified_at"]
    assert use.attributes["audit.actor.id"] == "ann"
    assert (
        use.attributes["audit.request.id"]
        == used.headers["X-Request-Id"]
        == use.attributes["approval.used_by"]
    )
    assert deleted.attributes["audit.request.id"] == used.headers["X-Request-Id"]
    assert deleted.attributes["audit.outcome"] == "success"
    assert deleted.attributes["approval_id"] == identifier
    # What compliance queries compare: confirmed and approved before it was done.
    confirmed = datetime.fromisoformat(deleted.attributes["mfa_verified_at"])
    assert 0 <= deleted.time / 1e9 - confirmed.timestamp() < 900
    assert granted.time < deleted.time
    for record in found:
        if record.action == "user.deleted" and record is not deleted:
            assert record.attributes["audit.outcome"] == "failure"
            assert record.attributes["http.response.status_code"] == 403


def elsewhere(client: Any) -> Any:
    """Let a client be signed in at another name of the same service."""
    client.set_cookie("session", client.get_cookie("session").value, domain="other.example.org")
    return client


def test_an_approval_is_for_exactly_one_thing_of_one_person(clinic: Clinic) -> None:
    clinic.policy()
    ann, ben = clinic.client("ann"), clinic.client("ben")
    assert clinic.approve(ann.delete("/users/7")).status_code == 200
    for answer in (
        ann.delete("/users/8"),
        ann.put("/users/7"),  # the same action by the rules
        ann.delete("/users/7?force=1"),
        elsewhere(ann).delete("/users/7", base_url="http://other.example.org"),
        ben.delete("/users/7"),
        clinic.client("eve").delete("/users/7"),
    ):
        assert error(answer) == REQUIRED
    assert clinic.done.said == []
    assert ann.delete("/users/7").status_code == 200
    assert error(ann.delete("/users/7")) == REQUIRED
    assert clinic.done.said == ["DELETE 7"]


def test_values_that_a_record_cuts_short_are_still_told_apart(clinic: Clinic) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    long = "x" * 3000
    assert clinic.approve(ann.delete(f"/users/{long}1")).status_code == 200
    assert error(ann.delete(f"/users/{long}2")) == REQUIRED
    assert ann.delete(f"/users/{long}1").status_code == 200


def test_nobody_approves_his_own(clinic: Clinic) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    asked = ann.delete("/users/7")
    for name in ("ann", "ann-2"):  # another account with her address, in capitals
        answer = clinic.approve(asked, name)
        assert error(answer) == (403, "own_approval")
    assert error(ann.delete("/users/7")) == REQUIRED
    assert clinic.store.find(asked.json["approval"]["id"]).state is State.PENDING
    failed = [
        record
        for record in clinic.audit.records()
        if record.attributes.get("audit.failure.reason") == "own approval"
    ]
    assert [record.attributes["audit.actor.id"] for record in failed] == ["ann", "ann-2"]
    assert failed[0].attributes["approval_id"] == asked.json["approval"]["id"]
    assert "approval.granted" not in [record.action for record in clinic.audit.receiver.taken]


def test_a_denied_request_stays_denied_for_its_time(clinic: Clinic) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    asked = ann.delete("/users/7")
    assert clinic.approve(asked, verb="deny").json["approval"]["state"] == "denied"
    assert error(ann.delete("/users/7")) == (403, "approval_denied")
    assert clinic.approve(asked).status_code == 403  # decided already
    clinic.later(61)
    assert error(clinic.client("ann").delete("/users/7")) == (403, "confirmation_expired")
    assert clinic.done.said == []


def confirm_at(client: Any, value: object) -> None:
    with client.session_transaction() as session:
        session["mfa_at"] = value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda now: now - 1, 200),
        (lambda now: now - 899, 200),
        (lambda now: int(now) - 1, 200),
        (lambda now: datetime.fromtimestamp(now - 5, UTC), 200),
        (lambda now: datetime.fromtimestamp(now - 5, UTC).isoformat(), 200),
        (lambda now: {"at": now - 1, "actor": "ann"}, 200),
        (lambda now: now - 901, "confirmation_expired"),
        (lambda _: datetime.now(UTC) - timedelta(days=1), "confirmation_expired"),
        (lambda _: 0, "confirmation_expired"),
        (lambda _: -(10**30), "confirmation_expired"),
        (lambda now: now + 30, "confirmation_invalid"),
        (lambda now: now * 1000, "confirmation_invalid"),  # milliseconds
        (lambda _: 10**400, "confirmation_invalid"),
        (lambda now: {"at": now - 1, "actor": "ben"}, "confirmation_invalid"),
        (lambda _: True, "confirmation_invalid"),
        (lambda _: float("nan"), "confirmation_invalid"),
        (lambda _: float("inf"), "confirmation_invalid"),
        (lambda _: "yes", "confirmation_invalid"),
        (lambda _: ["yes"], "confirmation_invalid"),
        (lambda _: None, "confirmation_required"),
        (lambda _: "", "confirmation_required"),
    ],
)
def test_a_confirmation_is_a_time_that_is_past_and_not_long(
    clinic: Clinic, value: Callable[[float], object], expected: int | str
) -> None:
    clinic.policy()
    ann = clinic.client("ann", mfa=False)
    confirm_at(ann, value(time.time()))
    answer = ann.post("/grants", data={"role": "admin"})
    if expected == 200:
        assert answer.status_code == 200
        assert clinic.done.said == ["grant admin"]
        record = clinic.records()[-1]
        assert record.attributes["mfa_verified_at"].endswith("Z")
    else:
        assert error(answer) == (403, expected)
        assert clinic.done.said == []
        assert clinic.records()[-1].attributes["audit.failure.reason"] == str(expected).replace("_", " ")


def test_a_forged_session_is_nobodys(clinic: Clinic) -> None:
    clinic.policy()
    other = flask.Flask("other")
    other.secret_key = "another key"
    signer = SecureCookieSessionInterface().get_signing_serializer(other)
    assert signer is not None
    client = clinic.client("")
    client.set_cookie("session", signer.dumps({"_user_id": "ann", "_fresh": True, "mfa_at": time.time()}))
    assert error(client.post("/grants")) == (403, "actor_unknown")
    assert clinic.done.said == []


def test_a_user_whom_flask_login_does_not_know_any_more_is_nobody(clinic: Clinic) -> None:
    clinic.policy()
    assert error(clinic.client("gone").post("/grants")) == (403, "actor_unknown")
    assert clinic.done.said == []


# --- when their time is over ---------------------------------------------------------------------------------


def test_what_waits_and_what_is_granted_expires_and_that_is_on_record(clinic: Clinic) -> None:
    clinic.policy(f"{RULES}privileged:\n  actions:\n    user.deleted: {{approval: 1h, use_within: 10m}}\n")
    ann = clinic.client("ann")
    first = ann.delete("/users/7")
    clinic.later(61)
    second = ann.delete("/users/7")
    assert error(second) == (403, "approval_expired")
    assert second.json["approval"]["id"] != first.json["approval"]["id"]
    assert clinic.approve(first).status_code == 403
    assert clinic.approve(second).status_code == 200
    clinic.later(11)
    third = ann.delete("/users/7")
    assert error(third) == (403, "approval_expired")
    clinic.later(61)
    assert clinic.client("ben").get("/approvals/").json["approvals"] == []
    assert clinic.done.said == []
    expired = [record for record in clinic.audit.records() if record.action == "approval.expired"]
    asked = [answer.json["approval"]["id"] for answer in (first, second, third)]
    assert [record.attributes["audit.target.id"] for record in expired] == asked
    assert {record.attributes["audit.actor.type"] for record in expired} == {"system"}
    assert expired[0].attributes["audit.request.id"] == second.headers["X-Request-Id"]
    assert expired[1].attributes["approval.approver"] == "ben"


def test_an_approval_from_the_future_is_not_used(clinic: Clinic) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    clinic.later(5)
    asked = ann.delete("/users/7")
    assert clinic.approve(asked).status_code == 200
    clinic.later(-4.9)
    assert error(ann.delete("/users/7")) == (403, "approval_invalid")
    clinic.later(4.9)
    assert ann.delete("/users/7").status_code == 200


# --- methods, rules, places ----------------------------------------------------------------------------------


def test_head_runs_no_view_without_an_approval_and_uses_none_up(clinic: Clinic) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    assert ann.head("/exports/all").status_code == 403
    assert clinic.store.list("", tuple(State), 10) == []
    assert clinic.approve(ann.get("/exports/all")).status_code == 200
    assert ann.head("/exports/all").status_code == 403
    assert ann.get("/exports/all").text == "all"
    assert clinic.done.said == ["GET all"]


def test_options_are_not_gated(clinic: Clinic) -> None:
    clinic.policy()
    assert clinic.client("").options("/exports/all").status_code == 200
    assert clinic.client("ann", mfa=False).options("/users/7").status_code == 200


def test_the_method_is_that_by_which_the_view_is_found(clinic: Clinic) -> None:
    clinic.policy()
    inner = clinic.app.wsgi_app

    def override(environ: dict[str, Any], start_response: Any) -> Any:
        environ["REQUEST_METHOD"] = environ.get("HTTP_X_METHOD", environ["REQUEST_METHOD"])
        return inner(environ, start_response)

    clinic.app.wsgi_app = override  # type: ignore[method-assign]
    ann = clinic.client("ann", mfa=False)
    for method in ("POST", "GET", "OPTIONS", "HEAD"):
        answer = ann.open("/users/7", method=method, headers={"X-Method": "DELETE"})
        assert answer.status_code == 403
    assert clinic.done.said == []


@pytest.mark.parametrize(
    ("rule", "method", "path"),
    [
        ("{route: /users/<uid>, skip: not worth it}", "DELETE", "/users/7"),
        ("{route: /users/<uid>, status: 403, action: user.refused}", "DELETE", "/users/7"),
        ("{route: /grants, status: 2xx, action: user.deleted}", "POST", "/grants"),
        ("{route: /exports/<name>, status: [200, 206], action: data.bulk_exported}", "GET", "/exports/all"),
    ],
)
def test_no_rule_hides_what_is_privileged(clinic: Clinic, rule: str, method: str, path: str) -> None:
    clinic.policy(f"version: 1\nrules:\n  - {rule}\nprivileged:\n  seed: true\n")
    answer = clinic.client("ann", mfa=False).open(path, method=method)
    assert error(answer) == (403, "confirmation_required")
    assert clinic.done.said == []
    record = clinic.records()[-1]
    assert record.attributes["audit.failure.reason"] == "confirmation required"
    assert record.attributes["audit.request.id"] == answer.headers["X-Request-Id"]


def test_the_applications_error_handlers_do_not_change_a_denial(clinic: Clinic) -> None:
    clinic.policy()
    clinic.app.register_error_handler(403, lambda _: ("all is well", 200))
    clinic.app.register_error_handler(Exception, lambda _: ("all is well", 200))
    assert clinic.client("").delete("/users/7").status_code == 403


def test_a_page_whose_address_is_not_known_is_not_named(
    audit: Audit, app: flask.Flask, tmp_path: Path
) -> None:
    clinic = Clinic(audit, app, add_views(app), tmp_path / "rules.yaml")
    app.register_blueprint(spanseal.approvals_blueprint("/<ward>/approvals"))
    clinic.policy()
    answer = clinic.client("ann").delete("/users/7")
    assert error(answer) == REQUIRED
    assert "Location" not in answer.headers
    assert "url" not in answer.json["approval"]


def test_people_get_a_page(clinic: Clinic) -> None:
    clinic.policy()
    answer = clinic.client("ann").delete("/users/<b>", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.mimetype) == (403, "text/html")
    assert "approval required" in answer.text
    assert answer.headers["Location"] in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_approval_can_be_for_one_body(clinic: Clinic) -> None:
    clinic.policy(
        f"{RULES}privileged:\n  actions:\n    admin.permission_granted: {{approval: 1h, bind_body: true}}\n"
    )
    ann = clinic.client("ann")
    assert clinic.approve(ann.post("/grants", data={"role": "clerk"})).status_code == 200
    assert error(ann.post("/grants", data={"role": "admin"})) == REQUIRED
    assert error(ann.post("/grants", data={"role": "x" * (1 << 20)})) == (403, "body_too_large")
    assert ann.post("/grants", data={"role": "clerk"}).status_code == 200
    assert clinic.done.said == ["grant clerk"]


def test_what_was_read_of_a_body_before_is_no_body(clinic: Clinic, log: pytest.LogCaptureFixture) -> None:
    clinic.policy(
        f"{RULES}privileged:\n  actions:\n    admin.permission_granted: {{approval: 1h, bind_body: true}}\n"
    )
    # As Flask-WTF's protection against forged requests does.
    clinic.app.before_request(lambda: flask.request.form.get("csrf_token") and None)
    ann = clinic.client("ann")
    assert error(ann.post("/grants", data={"role": "clerk"})) == (503, "gate_unavailable")
    assert "has read that" in log.text
    assert clinic.done.said == []


def test_an_application_inside_of_an_audited_one_has_a_gate(clinic: Clinic) -> None:
    clinic.policy()
    inner = flask.Flask("inner")
    inner.secret_key = clinic.app.secret_key
    inner.add_url_rule("/users/<uid>", view_func=lambda uid: uid, methods=["DELETE"])
    replace_wsgi_app(clinic.app, DispatcherMiddleware(clinic.app.wsgi_app, {"/inner": inner}))
    assert error(clinic.client("ann").delete("/inner/users/7")) == REQUIRED


# --- what cannot be found out is denied ------------------------------------------------------------------------


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module whose functions a policy names."""
    made = ModuleType("clinic_functions")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    from spanseal.gate.gate import _loaded

    _loaded.cache_clear()
    yield made
    _loaded.cache_clear()


def fail(*_: object) -> Any:
    raise ZeroDivisionError("a secret")


def test_functions_of_the_application(clinic: Clinic, functions: Any, log: pytest.LogCaptureFixture) -> None:
    clinic.policy(
        f"""{RULES}privileged:
  confirmation: {{callable: clinic_functions:confirmed}}
  approvers: {{callable: clinic_functions:may}}
  actions:
    user.deleted: {{confirm: 15m, approval: 1h}}
"""
    )
    ann = clinic.client("ann", mfa=False)
    assert error(ann.delete("/users/7")) == (503, "gate_unavailable")  # no such function
    functions.confirmed = fail
    assert error(ann.delete("/users/7")) == (503, "gate_unavailable")
    assert "clinic_functions:confirmed" in log.text
    assert "a secret" not in log.text
    functions.confirmed = lambda: time.time() - 5
    from spanseal.gate.gate import _loaded

    _loaded.cache_clear()
    asked = ann.delete("/users/7")
    assert error(asked) == REQUIRED
    functions.may = fail
    assert clinic.client("ben").get(asked.headers["Location"]).status_code == 503
    calls: list[tuple[Any, ...]] = []

    def may(*arguments: Any) -> Any:
        calls.append(arguments)
        return "yes"

    functions.may = may
    _loaded.cache_clear()
    assert clinic.client("ben").get(asked.headers["Location"]).status_code == 404  # True, and nothing like it
    actor, action, resource = calls[0]
    assert (actor.id, action, resource.type, resource.id) == ("ben", "user.deleted", "user", "7")
    functions.may = lambda actor, *_: actor.id == "ben"
    _loaded.cache_clear()
    assert clinic.client("eve").get(asked.headers["Location"]).status_code == 404
    assert clinic.approve(asked).status_code == 200
    assert ann.delete("/users/7").status_code == 200


def test_a_store_of_the_application(clinic: Clinic, functions: Any, tmp_path: Path) -> None:
    clinic.policy(f"{SEED}  store: {{callable: clinic_functions:store}}\n")
    ann = clinic.client("ann")
    for wrong in (fail, lambda: None):
        functions.store = wrong
        assert error(ann.delete("/users/7")) == (503, "gate_unavailable")
    functions.store = lambda: SqliteStore(tmp_path / "own.db")
    asked = ann.delete("/users/7")
    assert error(asked) == REQUIRED
    assert clinic.store.path == tmp_path / "own.db"
    assert clinic.approve(asked).status_code == 200
    assert ann.delete("/users/7").text == "7"


def corrupt(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database, but something else" * 100)
    path.chmod(0o600)


def writable_by_others(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    path.chmod(0o666)


def other_format(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=7")
    path.chmod(0o600)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda path: path.mkdir(parents=True),
        lambda path: path.parent.write_text("a file where the directory should be"),
        corrupt,
        writable_by_others,
        other_format,
    ],
)
def test_a_broken_store_denies_and_says_so(
    clinic: Clinic, log: pytest.LogCaptureFixture, tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    path = tmp_path / "store" / "approvals.db"
    clinic.policy(f"{SEED}  store: store/approvals.db\n")
    break_it(path)
    answer = clinic.client("ann").delete("/users/7")
    assert error(answer) == (503, "gate_unavailable")
    assert clinic.done.said == []
    assert "is refused" in log.text
    assert str(path) in log.text
    record = clinic.records()[-1]
    assert (record.action, record.attributes["audit.failure.reason"]) == ("user.deleted", "gate unavailable")
    assert record.attributes["http.response.status_code"] == 503


def test_what_cannot_be_recorded_does_not_happen_even_where_requests_go_on(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    append = spool.Spool.append

    def full(*_: object, **__: object) -> Any:
        raise SpoolUnavailable("no space left")

    monkeypatch.setattr(spool.Spool, "append", full)
    assert error(ann.delete("/users/7")) == (503, "gate_unavailable")
    assert clinic.store.list("", tuple(State), 10) == []
    monkeypatch.setattr(spool.Spool, "append", append)
    asked = ann.delete("/users/7")
    assert error(asked) == REQUIRED
    monkeypatch.setattr(spool.Spool, "append", full)
    assert clinic.approve(asked).status_code == 503
    assert clinic.store.find(asked.json["approval"]["id"]).state is State.PENDING
    monkeypatch.setattr(spool.Spool, "append", append)
    assert clinic.approve(asked).status_code == 200
    monkeypatch.setattr(spool.Spool, "append", full)
    assert error(ann.delete("/users/7")) == (503, "gate_unavailable")
    assert clinic.store.find(asked.json["approval"]["id"]).state is State.GRANTED
    assert clinic.done.said == []
    monkeypatch.setattr(spool.Spool, "append", append)
    assert ann.delete("/users/7").status_code == 200


def test_what_is_recorded_and_then_not_stored_is_corrected(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.policy()
    ann = clinic.client("ann")
    assert clinic.approve(ann.delete("/users/7")).status_code == 200

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("spanseal.gate.sqlite_store._update", broken)
        assert error(ann.delete("/users/7")) == (503, "gate_unavailable")
    assert clinic.done.said == []
    assert ann.delete("/users/7").status_code == 200
    uses = [record for record in clinic.records() if record.action == "approval.used"]
    outcomes = [(one.attributes["audit.outcome"], one.attributes.get("audit.failure.reason")) for one in uses]
    assert outcomes == [("success", None), ("failure", "not stored"), ("success", None)]


def test_a_policy_that_cannot_be_read_denies_everything(
    clinic: Clinic, log: pytest.LogCaptureFixture
) -> None:
    clinic.policy(f"{RULES}privileged:\n  actions:\n    user.deleted: {{confirm: 15}}\n")
    assert error(clinic.client("").get("/healthz")) == (503, "gate_unavailable")
    assert f"{clinic.rules}:8:" in log.text
    assert clinic.done.said == []


def test_a_missing_rules_file_denies_what_the_seed_names(clinic: Clinic) -> None:
    clinic.audit.set(SPANSEAL_RULES=str(clinic.rules))
    assert clinic.client("").get("/healthz").text == "ok"
    assert error(clinic.client("ann").delete("/users/7")) == (503, "gate_unavailable")
    assert clinic.done.said == []


def test_wrong_rules_without_a_policy_gate_nothing(clinic: Clinic) -> None:
    clinic.policy("version: 1\nrules: nothing\n")
    assert clinic.client("").get("/healthz").text == "ok"


def test_what_is_not_audited_is_not_allowed(clinic: Clinic) -> None:
    clinic.policy()
    clinic.audit.set(SPANSEAL_SPOOL_MAX_BYTES="many")  # requests go on unaudited
    assert error(clinic.client("ann").delete("/users/7")) == (503, "gate_unavailable")
    assert clinic.client("").get("/healthz").text == "ok"
    assert clinic.done.said == []
