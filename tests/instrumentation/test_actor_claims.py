"""What verified claims say: a user, a program, or one who acts for another."""

from __future__ import annotations

from typing import Any

import pytest

from spanseal.actors.actor import MAX_TEXT, Actor
from spanseal.actors.claims import from_claims

KEYCLOAK = {
    "iss": "https://id.example.org/realms/clinic",
    "sub": "0f1e2d3c-0000-4000-8000-000000000001",
    "typ": "Bearer",
    "azp": "web",
    "realm_access": {"roles": ["nurse", "offline_access"]},
    "resource_access": {"account": {"roles": ["manage-account"]}},
    "scope": "openid email profile",
    "email_verified": True,
    "name": "Uma Example",
    "preferred_username": "uma",
    "email": "uma@example.org",
}
AUTH0 = {
    "iss": "https://clinic.example.org/",
    "sub": "auth0|5f7c",
    "aud": "https://api.example.org",
    "azp": "w3bClient",
    "scope": "openid read:patients",
    "https://clinic.example.org/roles": ["nurse"],
}
OKTA = {"ver": 1, "cid": "0oa1", "uid": "00u1", "sub": "uma@example.org", "scp": ["openid"]}
ENTRA = {
    "tid": "t-1",
    "oid": "o-1",
    "sub": "pairwise-1",
    "azp": "app-1",
    "scp": "Patients.Read",
    "roles": ["Nurse"],
    "preferred_username": "uma@example.org",
}


@pytest.mark.parametrize(
    ("claims", "actor"),
    [
        (
            KEYCLOAK,
            Actor(KEYCLOAK["sub"], role="nurse,offline_access", email="uma@example.org", name="uma"),  # type: ignore[arg-type]
        ),
        (AUTH0, Actor("auth0|5f7c", role="nurse")),
        (OKTA, Actor("uma@example.org")),
        (ENTRA, Actor("pairwise-1", role="Nurse", name="uma@example.org")),
        ({"sub": "u-7", "role": "nurse", "groups": ["staff"], "scope": "admin"}, Actor("u-7", role="nurse")),
        ({"sub": "u-7", "azp": "web", "client_id": "web"}, Actor("u-7")),
        ({"sub": 7, "username": "uma"}, Actor("7", name="uma")),
        ({"username": "uma", "client_id": "web", "active": True}, Actor("uma", name="uma")),
        ({"user_id": 7}, Actor("7")),
        ({"sub": "u-7", "email": "u@example.org", "email_verified": False}, Actor("u-7")),
        ({"sub": "u-7", "email": "u@example.org", "email_verified": "false"}, Actor("u-7")),
        ({"sub": {"id": 7, "role": "nurse"}}, Actor("7", role="nurse")),
        ({"scope": "read", "jti": "s3cret", "id": 91}, None),
        ({"sub": ""}, None),
        ({"sub": None, "act": {}}, None),
        ({"sub": True}, None),
        ({"sub": ["u-7"]}, None),
        ({}, None),
    ],
)
def test_a_user(claims: dict[str, Any], actor: Actor | None) -> None:
    assert from_claims(claims) == actor


@pytest.mark.parametrize(
    ("claims", "identifier"),
    [
        ({**AUTH0, "sub": "w3bClient@clients", "gty": "client-credentials"}, "w3bClient@clients"),
        ({"sub": "w3bClient@clients", "azp": "w3bClient"}, "w3bClient@clients"),
        ({"sub": "x", "gty": ["refresh_token", "client-credentials"]}, "x"),
        ({"client_id": "job-1", "grant_type": "client_credentials"}, "job-1"),
        ({"client_id": "job-1", "active": True, "scope": "read"}, "job-1"),
        ({"client_id": "job-1", "sub": "job-1"}, "job-1"),  # RFC 9068 section 2.2, Cognito
        ({"cid": "0oa1", "sub": "0oa1", "scp": ["read"]}, "0oa1"),
        (
            {"sub": "108", "azp": "108", "email": "job@p.iam.gserviceaccount.com", "email_verified": True},
            "108",
        ),
        ({"tid": "t", "oid": "o-9", "sub": "o-9", "appid": "app-1", "roles": ["Read.All"]}, "o-9"),
        ({"tid": "t", "oid": "o-9", "sub": "s-9", "azp": "app-1", "idtyp": "app"}, "s-9"),
        (
            {"sub": "uuid", "azp": "job", "client_id": "job", "preferred_username": "service-account-job"},
            "uuid",
        ),
        (
            {"sub": "uuid", "azp": "Job", "clientId": "Job", "preferred_username": "service-account-job"},
            "uuid",
        ),
        ({"sub": "system:serviceaccount:clinic:job"}, "system:serviceaccount:clinic:job"),
        ({"sub": "job-1", "is_service": True}, "job-1"),
        ({"sub": "job-1", "type": "service"}, "job-1"),
    ],
)
def test_a_program(claims: dict[str, Any], identifier: str) -> None:
    actor = from_claims(claims)
    assert actor is not None
    assert (actor.id, actor.type) == (identifier, "service")


@pytest.mark.parametrize(
    "claims",
    [
        {**KEYCLOAK, "preferred_username": "service-account-web"},  # a name that anybody may choose
        {**KEYCLOAK, "preferred_username": "service-account-other", "client_id": "web"},
        {**ENTRA, "oid": "pairwise-1"},  # with a scope: a user has consented
        {"sub": "u-7", "azp": "web", "gty": "password"},
        {"sub": "u-7", "azp": "u-70"},
        {"sub": "u-7", "type": "access"},
        {"sub": "u-7", "is_service": "yes"},
    ],
)
def test_no_program(claims: dict[str, Any]) -> None:
    actor = from_claims(claims)
    assert actor is not None
    assert actor.type == "user"


def test_who_acts_for_another() -> None:
    user = {"sub": "u-7", "roles": ["patient"], "email": "u@example.org", "name": "Uma", "azp": "web"}
    assert from_claims({**user, "act": {"sub": "support-3"}}) == Actor("support-3", on_behalf_of="u-7")
    # Of a chain of delegations the outermost is the one who acts.
    chain = {"sub": "support-3", "role": "support", "act": {"sub": "admin-1"}}
    assert from_claims({**user, "act": chain}) == Actor("support-3", role="support", on_behalf_of="u-7")
    for act in ({"client_id": "job-1"}, {"sub": "job-1", "client_id": "job-1"}):
        assert from_claims({**user, "act": act}) == Actor("job-1", type="service", on_behalf_of="u-7")
    # Who may act has not acted.
    assert from_claims({**user, "may_act": {"sub": "support-3"}}) == from_claims(user)
    for nobody in ({}, {"iss": "x"}, "support-3", None, ["support-3"]):
        assert from_claims({**user, "act": nobody}) == from_claims(user)


def test_the_claim_that_holds_the_users_id_is_configurable() -> None:
    claims = {"sub": "pairwise", "account": "7"}
    assert from_claims(claims, "account") == Actor("7")
    assert from_claims({"sub": "pairwise"}, "account") is None


def test_what_does_not_fit() -> None:
    many = [f"role-{number:04}" for number in range(2000)]
    actor = from_claims({"sub": "s" * (1 << 20), "roles": many, "name": "n" * (MAX_TEXT + 1)})
    other = from_claims({"sub": "s" * (1 << 20) + "x"})
    assert actor is not None
    assert other is not None
    assert actor.id.startswith("sha256:")
    assert actor.id != other.id
    assert actor.name == ""
    assert actor.role.startswith("role-0000,role-0001,")
    assert actor.role.endswith(",…")
    assert set(actor.role.split(",")) - {"…"} <= set(many)
    assert len(actor.role) <= MAX_TEXT
