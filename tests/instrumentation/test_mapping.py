"""From a method and a route to an action."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.meaning.mapping import (
    Meaning,
    is_credential,
    is_state_changing,
    map_request,
    plan_of,
    verb_of,
    wrong_action,
)
from spanseal.meaning.words import VERBS

# What the collector asks of an action.
ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")

# method, route, values, action, resource type, resource id
TABLE: list[tuple[str, str, dict[str, Any], str, str, str]] = [
    # collections and things
    ("GET", "/", {}, "index.viewed", "index", ""),
    ("GET", "/patients", {}, "patient.listed", "patient", ""),
    ("HEAD", "/patients", {}, "patient.listed", "patient", ""),
    ("POST", "/patients", {}, "patient.created", "patient", ""),
    ("GET", "/patients/<int:pid>", {"pid": 17}, "patient.viewed", "patient", "17"),
    ("PUT", "/patients/<int:pid>", {"pid": 17}, "patient.updated", "patient", "17"),
    ("PATCH", "/patients/<int:pid>", {"pid": 17}, "patient.updated", "patient", "17"),
    ("DELETE", "/patients/<int:pid>", {"pid": 17}, "patient.deleted", "patient", "17"),
    ("OPTIONS", "/patients/<int:pid>", {"pid": 17}, "patient.inspected", "patient", "17"),
    ("POST", "/patients/<int:pid>", {"pid": 17}, "patient.updated", "patient", "17"),
    ("GET", "/settings", {}, "settings.viewed", "settings", ""),
    ("PROPFIND", "/files/<name>", {"name": "a"}, "file.requested", "file", "a"),
    # prefixes say nothing
    ("GET", "/api/v1/patients", {}, "patient.listed", "patient", ""),
    ("GET", "/api/v2_1/rest/patients/<pid>", {"pid": "x"}, "patient.viewed", "patient", "x"),
    ("GET", "/v<int:version>/users", {"version": 2}, "user.listed", "user", ""),
    ("GET", "/api", {}, "index.viewed", "index", ""),
    ("GET", "/-/health", {}, "health.viewed", "health", ""),
    # forms
    ("GET", "/patients/new", {}, "patient.viewed", "patient", ""),
    ("POST", "/patients/new", {}, "patient.created", "patient", ""),
    ("GET", "/patients/<pid>/edit", {"pid": 3}, "patient.viewed", "patient", "3"),
    ("POST", "/patients/<pid>/edit", {"pid": 3}, "patient.updated", "patient", "3"),
    ("POST", "/patients/<pid>/delete", {"pid": 3}, "patient.deleted", "patient", "3"),
    ("POST", "/delete/<int:pid>", {"pid": 3}, "record.deleted", "record", "3"),
    ("POST", "/user/delete/<int:uid>", {"uid": 3}, "user.deleted", "user", "3"),
    ("POST", "/<int:id>/update", {"id": 3}, "record.updated", "record", "3"),
    ("POST", "/create", {}, "record.created", "record", ""),
    # nested, actions of their own, exports
    ("POST", "/invoices/<iid>/refund", {"iid": 8}, "invoice.refunded", "invoice", "8"),
    ("POST", "/refunds", {}, "refund.created", "refund", ""),
    ("POST", "/invoices/<iid>/approve", {"iid": 8}, "invoice.approved", "invoice", "8"),
    ("GET", "/patients/<pid>/export", {"pid": 8}, "patient.exported", "patient", "8"),
    ("GET", "/patients/export", {}, "patient.exported", "patient", ""),
    ("GET", "/export", {}, "record.exported", "record", ""),
    ("GET", "/search", {}, "record.searched", "record", ""),
    ("GET", "/invoices/<iid>.pdf", {"iid": 8}, "invoice.viewed", "invoice", "8"),
    ("GET", "/report-<int:rid>.pdf", {"rid": 8}, "report.viewed", "report", "8"),
    ("POST", "/book/<isbn>", {"isbn": "9"}, "book.updated", "book", "9"),
    ("POST", "/rooms/<rid>/book", {"rid": "9"}, "room.booked", "room", "9"),
    ("GET", "/patients/<pid>/<section>", {"pid": 5, "section": "labs"}, "patient.viewed", "patient", "5"),
    ("GET", "/static/<path:filename>", {"filename": "a/b.css"}, "static.viewed", "static", "a/b.css"),
    # accounts
    ("POST", "/login", {}, "user.signed_in", "user", ""),
    ("POST", "/auth/sign-in", {}, "user.signed_in", "user", ""),
    ("POST", "/login/<provider>", {"provider": "x"}, "user.signed_in", "user", ""),
    ("GET", "/login", {}, "login.viewed", "login", ""),
    ("GET", "/logout", {}, "user.signed_out", "user", ""),
    ("POST", "/logout", {}, "user.signed_out", "user", ""),
    ("POST", "/register", {}, "user.registered", "user", ""),
    ("POST", "/account/password", {}, "user.password_changed", "user", ""),
    ("PUT", "/users/<uid>/password", {"uid": 4}, "user.password_changed", "user", "4"),
    ("POST", "/password/change", {}, "user.password_changed", "user", ""),
    ("POST", "/forgot-password", {}, "user.password_reset_requested", "user", ""),
    ("POST", "/users/<uid>/roles", {"uid": 4}, "admin.permission_granted", "user", "4"),
    ("PUT", "/users/<uid>/roles/<role>", {"uid": 4, "role": "r"}, "admin.permission_granted", "user", "4"),
    ("DELETE", "/users/<uid>/roles/<role>", {"uid": 4, "role": "r"}, "admin.permission_revoked", "user", "4"),
    ("POST", "/users/<uid>/revoke", {"uid": 4}, "admin.permission_revoked", "user", "4"),
    ("GET", "/users/<uid>/roles", {"uid": 4}, "role.listed", "role", ""),
    ("DELETE", "/roles/<rid>", {"rid": 4}, "role.deleted", "role", "4"),
    ("POST", "/certificates/<cid>/revoke", {"cid": 4}, "certificate.revoked", "certificate", "4"),
    # names that are no words
    ("GET", "/2fa", {}, "two_factor.viewed", "two_factor", ""),
    ("POST", "/enable-2fa", {}, "user.mfa_enabled", "user", ""),
    ("GET", "/404", {}, "n_404.viewed", "n_404", ""),
    ("GET", "/日本", {}, "resource.viewed", "resource", ""),
    ("GET", "/日本/<int:id>", {"id": 1}, "resource.viewed", "resource", "1"),
    ("GET", "/café", {}, "cafe.viewed", "cafe", ""),
    ("GET", "/<int:id>", {"id": 1}, "record.viewed", "record", "1"),
    ("GET", "/<_>", {"_": 1}, "record.viewed", "record", "1"),
    ("GET", '/<regex("[^/]>:x"):code_name>', {"code_name": "q"}, "code_name.viewed", "code_name", "q"),
    ("GET", "/<any(a,'b,c'):kind>/things", {"kind": "a"}, "thing.listed", "thing", ""),
]


@pytest.mark.parametrize(("method", "route", "values", "action", "kind", "identifier"), TABLE)
def test_routes_get_their_action(
    method: str, route: str, values: dict[str, Any], action: str, kind: str, identifier: str
) -> None:
    meaning = map_request(method, route, values)
    assert (meaning.action, meaning.resource_type, meaning.resource_id) == (action, kind, identifier)
    assert ACTION.fullmatch(meaning.action)


NAMES = [
    line
    for line in Path(__file__).with_name("default_names.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("line", NAMES)
def test_common_routes_have_their_names(line: str) -> None:
    request, action, resource, *rest = line.split(" | ")
    method, route = request.split(" ", 1)
    kind, _, variable = resource.partition("=")
    subject_kind, _, subject_variable = rest[0].partition("=") if rest else ("", "", "")
    plan = plan_of(method, route)
    assert (plan.action, plan.resource_type, plan.variable) == (action, kind, variable)
    assert (plan.subject_type, plan.subject_variable) == (subject_kind, subject_variable)
    assert ACTION.fullmatch(plan.action)
    named = [name for name in (variable, subject_variable) if name]
    assert all(f"{name}>" in route and not is_credential(name) for name in named)


def test_a_default_says_where_it_comes_from() -> None:
    routes = ("/login", "/invoices/<iid>/approve", "/invoices/<iid>", None)
    assert [plan_of("POST", route).source for route in routes] == [
        "well-known",
        "verb in the path",
        "method",
        "no route",
    ]


def test_a_verb_in_the_path_is_known_whatever_the_method() -> None:
    routes = (
        "/delete/<id>",
        "/users/<id>/suspend",
        "/deleteUser/<id>",
        "/users/<id>",
        "/users/export",
        "/books/<id>",
        "/<reset_id>",
        "/<project_id>/edit/<bill_id>",
    )
    assert [verb_of(route) for route in routes] == ["delete", "suspend", "delete", "", "", "", "", "edit"]


def test_what_a_nested_thing_belongs_to_is_its_subject() -> None:
    one = map_request("PUT", "/patients/<int:pid>/notes/<nid>", {"pid": 1, "nid": 2})
    assert one == Meaning("note.updated", "note", "2", "patient", "1")
    assert map_request("POST", "/patients/<pid>/notes", {"pid": 1}) == Meaning(
        "note.created", "note", "", "patient", "1"
    )
    # A variable without a word before it is of no known type.
    assert map_request("GET", "/<lang>/notes", {"lang": "en"}) == Meaning("note.listed", "note")


def test_a_request_without_a_route_is_unmatched() -> None:
    assert map_request("GET", None) == Meaning("request.unmatched")


CREDENTIALS = [
    "token",
    "reset_token",
    "resetToken",
    "secret",
    "password",
    "passphrase",
    "signature",
    "otp",
    "code",
    "key",
    "api_key",
    "apiKey",
    "invite_code",
    "activation_key",
    "magic_link",
    "jwt",
    "nonce",
    "auth",
]
IDENTIFIERS = ["id", "pid", "author", "author_id", "secretary_id", "footprint_id", "slug", "keyword", "isbn"]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_credential_in_the_path_is_no_id(name: str) -> None:
    assert is_credential(name)
    for method in ("GET", "POST", "DELETE"):
        for route in (
            "/reset-password/<{}>",
            "/shares/<{}>",
            "/<{}>",
            "/users/<{}>/roles",
            "/a/<{}>/b",
            "/users/<{}>/verify",
            "/verify/<{}>",
        ):
            assert "s3cret" not in repr(map_request(method, route.format(name), {name: "s3cret"}))


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_an_id_is_no_credential(name: str) -> None:
    assert not is_credential(name)
    assert map_request("GET", f"/things/<{name}>", {name: "7"}).resource_id == "7"


def test_the_id_beside_a_credential_is_still_known() -> None:
    meaning = map_request("POST", "/users/<uid>/verify/<token>", {"uid": 4, "token": "s3cret"})
    assert meaning == Meaning("user.verified", "user", "4")


def test_a_value_without_text_is_left_out() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("not now")

    assert map_request("GET", "/users/<user>", {"user": Mute()}) == Meaning("user.viewed", "user")
    assert map_request("GET", "/users/<user>", {}) == Meaning("user.viewed", "user")


def test_what_changes_state() -> None:
    assert [m for m in ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PURGE", "") if is_state_changing(m)] == [
        "POST",
        "PURGE",
        "",
    ]


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]) | st.text(max_size=8)
ALL_ROUTES = [route for _, route, *_ in TABLE] + [
    line.partition(" ")[2].partition(" | ")[0] for line in NAMES
]
PHRASES = st.lists(
    st.sampled_from([*sorted(VERBS), "2fa", "users", "all", "as", "mark"]), min_size=1, max_size=3
)
VARIABLES = [
    "<bill_id>",
    "<project>",
    "<path:path>",
    "<audit_log_id>",
    "<lang>",
    "<q>",
    "<slug>",
    "<_name>",
    "<me_id>",
]
PARTS = st.sampled_from(
    [entry for route in ALL_ROUTES for entry in route.split("/")]
    + ["<", ">", "<>", "<:x>", "audit-log", "p", *VARIABLES]
) | PHRASES.map("-".join)
ROUTES = st.lists(PARTS | st.text(max_size=6), max_size=6).map("/".join) | st.text(max_size=40)


@given(
    METHODS, ROUTES, st.dictionaries(st.sampled_from(["id", "pid", "uid", "_"]), st.text() | st.integers())
)
def test_whatever_comes_has_an_action_that_the_collector_takes(
    method: str, route: str, values: dict[str, object]
) -> None:
    meaning = map_request(method, route, values)
    assert ACTION.fullmatch(meaning.action), (method, route, meaning)
    assert not wrong_action(meaning.action)
    assert bool(meaning.subject_type) == bool(meaning.subject_id)
