"""The gate where a decorator puts it: beneath what finds the user, on classes, on coroutines, and once all the same."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.views import MethodView
from flask_httpauth import HTTPBasicAuth

import spanseal
from spanseal import ConfigurationError, InvalidRecord
from spanseal.gate.approval import State
from tests.instrumentation.conftest import Audit
from tests.instrumentation.privileged_clinic import REQUIRED, RULES, SEED, Clinic, error, make_clinic


@pytest.fixture
def clinic(audit: Audit, app: flask.Flask, tmp_path: Path) -> Clinic:
    return make_clinic(audit, app, tmp_path)


def basic(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:secret".encode()).decode()}


@pytest.mark.parametrize("policy", ["", RULES, SEED])
def test_beneath_a_decorator_that_finds_the_user(clinic: Clinic, policy: str, functions: Any) -> None:
    if policy:
        clinic.policy(policy)
    auth = HTTPBasicAuth()
    auth.verify_password(lambda name, password: name if password == "secret" else None)

    @clinic.app.delete("/accounts/<aid>")
    @auth.login_required  # type: ignore[untyped-decorator]  # it has no types
    @spanseal.privileged("user.deleted", approval="1h", resource_id="aid")
    def account(aid: str) -> str:
        clinic.done.add(aid)
        return aid

    client: Any = clinic.app.test_client()
    assert client.delete("/accounts/5").status_code == 401
    assert error(client.delete("/accounts/5", headers=basic("ann"))) == (403, "confirmation_required")
    with client.session_transaction() as session:
        session["mfa_at"] = functions()
    asked = client.delete("/accounts/5", headers=basic("ann"))
    assert error(asked) == REQUIRED
    assert clinic.approve(asked).status_code == 200
    assert error(client.delete("/accounts/6", headers=basic("ann"))) == REQUIRED
    assert error(client.delete("/accounts/5", headers=basic("ben"))) == REQUIRED
    assert client.delete("/accounts/5", headers=basic("ann")).text == "5"
    assert clinic.done.said == ["5"]
    done = [record for record in clinic.records() if record.attributes.get("audit.target.id") == "5"]
    assert {record.action for record in done} == {"user.deleted"}
    assert {record.attributes["audit.target.type"] for record in done} == {"user"}
    last = max(done, key=lambda record: record.time).attributes
    assert (last["audit.outcome"], last["approval_id"]) == ("success", asked.json["approval"]["id"])


@pytest.fixture
def functions() -> Any:
    import time

    return time.time


def test_on_view_classes_and_their_methods_an_approval_is_used_once(clinic: Clinic) -> None:
    clinic.policy(f"{RULES}  - {{route: /things/<tid>, action: user.deleted}}\nprivileged:\n  seed: true\n")

    class Thing(MethodView):
        @spanseal.privileged("user.deleted", resource_id="tid")
        def delete(self, tid: str) -> str:
            clinic.done.add(f"thing {tid}")
            return tid

    class Other(MethodView):
        decorators = [spanseal.privileged("user.deleted", resource_id="tid")]  # noqa: RUF012 - as Flask has it

        def delete(self, tid: str) -> str:
            clinic.done.add(f"other {tid}")
            return tid

    clinic.app.add_url_rule("/things/<tid>", view_func=Thing.as_view("things"))
    clinic.app.add_url_rule("/others/<tid>", view_func=Other.as_view("others"))
    ann = clinic.client("ann")
    for kind in ("things", "others"):
        asked = ann.delete(f"/{kind}/1")
        assert error(asked) == REQUIRED
        assert clinic.approve(asked).status_code == 200
        assert ann.delete(f"/{kind}/1").text == "1"
        assert error(ann.delete(f"/{kind}/1")) == REQUIRED
    assert clinic.done.said == ["thing 1", "other 1"]


def test_on_a_coroutine(clinic: Clinic) -> None:
    @clinic.app.post("/rotate")
    @spanseal.privileged("api_key.created")
    async def rotate() -> str:
        clinic.done.add("rotated")
        return "rotated"

    assert error(clinic.client("").post("/rotate")) == (403, "actor_unknown")
    assert error(clinic.client("ann", mfa=False).post("/rotate")) == (403, "confirmation_required")
    assert clinic.client("ann").post("/rotate").text == "rotated"
    assert clinic.done.said == ["rotated"]


def test_a_view_that_takes_options_itself_is_gated_by_its_decorator(clinic: Clinic) -> None:
    @clinic.app.route("/accounts/<aid>", methods=["DELETE", "OPTIONS"])
    @clinic.app.route("/members/<aid>", methods=["DELETE"])
    @spanseal.privileged("user.deleted", resource_id="aid")
    def account(aid: str) -> str:
        clinic.done.add(aid)
        return aid

    client = clinic.client("ann", mfa=False)
    assert error(client.options("/accounts/5")) == (403, "confirmation_required")
    assert client.options("/members/5").status_code == 200
    assert clinic.done.said == []


def test_a_decorator_does_not_take_the_place_of_the_policy(clinic: Clinic) -> None:
    """A view that does more than its decorator says still takes what the rules say."""
    clinic.policy(f"{RULES}  - {{route: /wipe, action: user.deleted}}\nprivileged:\n  seed: true\n")

    @clinic.app.post("/wipe")
    @spanseal.privileged("config.changed")
    def wipe() -> str:
        clinic.done.add("wiped")
        return "wiped"

    ann = clinic.client("ann")
    asked = ann.post("/wipe")
    assert error(asked) == REQUIRED
    assert asked.json["approval"]["action"] == "user.deleted"
    assert clinic.approve(asked).status_code == 200
    assert ann.post("/wipe").text == "wiped"
    assert clinic.done.said == ["wiped"]


def test_a_mark_corrects_what_is_only_guessed(clinic: Clinic) -> None:
    clinic.policy()

    @clinic.app.delete("/guests/users/<uid>")
    @spanseal.action("user.signed_out")
    def sign_out(uid: str) -> str:
        return uid

    assert clinic.client("ann").delete("/guests/users/7").status_code == 200


def test_what_a_view_is_marked_with_is_gated(clinic: Clinic) -> None:
    clinic.policy()

    @clinic.app.post("/purge/<uid>")
    @spanseal.action("user.deleted", resource_id="uid")
    def purge(uid: str) -> str:
        clinic.done.add(uid)
        return uid

    asked = clinic.client("ann").post("/purge/9")
    assert error(asked) == REQUIRED
    assert clinic.store.find(asked.json["approval"]["id"]).resource.id == "9"
    assert clinic.done.said == []


def test_what_the_application_says_of_its_request_before_the_view_is_gated(clinic: Clinic) -> None:
    clinic.policy()

    @clinic.app.before_request
    def say() -> None:
        if flask.request.args.get("impersonate"):
            spanseal.annotate(action="user.impersonated")

    assert error(clinic.client("ann", mfa=False).get("/healthz?impersonate=1")) == (
        403,
        "confirmation_required",
    )


def test_an_application_that_is_not_audited_denies(clinic: Clinic) -> None:
    other = flask.Flask("other")

    @other.post("/wipe")
    @spanseal.privileged("config.changed")
    def wipe() -> str:
        clinic.done.add("wiped")
        return "wiped"

    assert other.test_client().post("/wipe").status_code == 503
    assert clinic.done.said == []


def test_wrong_arguments_are_told_when_the_view_is_defined() -> None:
    with pytest.raises(InvalidRecord, match="deleteUser"):
        spanseal.privileged("deleteUser")
    for name in ("confirm", "approval", "use_within"):
        said: dict[str, Any] = {name: "15"}
        with pytest.raises(ConfigurationError, match=f"{name} is '15'"):
            spanseal.privileged("user.deleted", **said)


def test_requests_of_one_person_are_bounded(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic.policy()
    monkeypatch.setattr("spanseal.gate.sqlite_store.MOST_WAITING", 3)
    ann = clinic.client("ann")
    assert [ann.delete(f"/users/{number}").json["error"] for number in range(5)] == [
        *(["approval_required"] * 3),
        *(["too_many_requests_for_approval"] * 2),
    ]
    assert len(clinic.store.list("", tuple(State), 10)) == 3
    assert error(clinic.client("ben").delete("/users/1")) == REQUIRED
