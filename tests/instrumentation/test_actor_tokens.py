"""Actors of tokens and passwords that a library has verified; never of those that it has not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import flask
import flask_jwt_extended
import jwt
import pytest
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from cryptography.hazmat.primitives.asymmetric import rsa
from flask_httpauth import HTTPBasicAuth, HTTPDigestAuth, HTTPTokenAuth, MultiAuth
from werkzeug.test import TestResponse

from tests.instrumentation.conftest import Audit

KEY = "a made-up key of 32 bytes or more"
OTHER_KEY = "another made-up key, of somebody else's"
FORGED = "f0rged"


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def forgeries(claims: dict[str, Any]) -> dict[str, str]:
    """Tokens that say `claims`, none of which may be believed."""
    genuine = jwt.encode(claims | {"sub": "uma"}, KEY, "HS256")
    header, _, signature = genuine.split(".")
    expired = claims | {"exp": int(time.time()) - 3600}
    return {
        "another key's": jwt.encode(claims, OTHER_KEY, "HS256"),
        "of no algorithm": jwt.encode(claims, "", "none"),
        "of no algorithm, signed": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}.{signature}",
        "changed": f"{header}.{encoded(claims)}.{signature}",
        "expired": jwt.encode(expired, KEY, "HS256"),
        "not yet valid": jwt.encode(claims | {"nbf": int(time.time()) + 3600}, KEY, "HS256"),
        "cut": jwt.encode(claims, KEY, "HS256")[:-8],
        "no token": FORGED,
    }


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def actors(audit: Audit) -> list[dict[str, str]]:
    """Who every record names, without empty values."""
    keys = {
        "audit.actor.id": "id",
        "audit.actor.type": "type",
        "audit.actor.role": "role",
        "user.email": "email",
        "audit.personal.user.name": "name",
        "audit.on_behalf_of": "on_behalf_of",
    }
    return [
        {short: record.attributes[key] for key, short in keys.items() if key in record.attributes}
        for record in audit.records()
    ]


ANONYMOUS = {"type": "anonymous"}


# --- Flask-JWT-Extended -------------------------------------------------------------------------------------


@pytest.fixture
def extended(app: flask.Flask) -> flask_jwt_extended.JWTManager:
    app.config["JWT_SECRET_KEY"] = KEY

    @app.get("/patients")
    @flask_jwt_extended.jwt_required()  # type: ignore[untyped-decorator]
    def patients() -> str:
        return "none"

    @app.get("/hints")
    @flask_jwt_extended.jwt_required(optional=True)  # type: ignore[untyped-decorator]
    def hints() -> str:
        return "none"

    @app.get("/decoded")
    def decoded() -> dict[str, Any]:
        token = flask.request.headers["Authorization"].removeprefix("Bearer ")
        found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return found

    return flask_jwt_extended.JWTManager(app)


def access_token(app: flask.Flask, identity: str, **claims: Any) -> str:
    with app.app_context():
        return str(flask_jwt_extended.create_access_token(identity, additional_claims=claims))


@pytest.mark.usefixtures("extended")
def test_flask_jwt_extended_gives_the_verified_claims(audit: Audit, app: flask.Flask) -> None:
    client = app.test_client()
    token = access_token(
        app, "u-7", roles=["nurse", "admin"], email="u@example.org", preferred_username="uma"
    )
    acted = access_token(app, "u-7", act={"sub": "support-3"}, roles=["nurse"], email="u@example.org")
    service = access_token(app, "job-1", client_id="job-1", scope="read")
    for one in (token, acted, service):
        assert client.get("/patients", headers=bearer(one)).status_code == 200
    assert client.get("/hints").status_code == 200
    assert client.get("/hints", headers=bearer(token)).status_code == 200
    uma = {"id": "u-7", "type": "user", "role": "admin,nurse", "email": "u@example.org", "name": "uma"}
    assert actors(audit) == [
        uma,
        {"id": "support-3", "type": "user", "on_behalf_of": "u-7"},
        {"id": "job-1", "type": "service"},
        ANONYMOUS,
        uma,
    ]
    assert token.encode() not in audit.bytes()


def test_flask_jwt_extended_gives_the_user_that_was_loaded(
    audit: Audit, app: flask.Flask, extended: flask_jwt_extended.JWTManager
) -> None:
    app.config["JWT_IDENTITY_CLAIM"] = "account"
    roles = ["doctor"]

    @extended.user_lookup_loader
    def load(_header: dict[str, Any], claims: dict[str, Any]) -> object:
        return SimpleNamespace(id=7, roles=roles) if claims["account"] == "7" else None

    client = app.test_client()
    token = access_token(app, "7", roles=["nurse"], email="u@example.org")
    assert client.get("/patients", headers=bearer(token)).status_code == 200
    roles[:] = []
    assert client.get("/patients", headers=bearer(token)).status_code == 200
    assert client.get("/patients", headers=bearer(access_token(app, FORGED))).status_code == 401
    assert actors(audit) == [
        {"id": "7", "type": "user", "role": "doctor", "email": "u@example.org"},
        {"id": "7", "type": "user", "role": "nurse", "email": "u@example.org"},
        ANONYMOUS,
    ]


def test_flask_jwt_extended_has_revoked_it(
    audit: Audit, app: flask.Flask, extended: flask_jwt_extended.JWTManager
) -> None:
    extended.token_in_blocklist_loader(lambda _header, _claims: True)
    assert app.test_client().get("/patients", headers=bearer(access_token(app, FORGED))).status_code == 401
    assert actors(audit) == [ANONYMOUS]


@pytest.mark.usefixtures("extended")
def test_what_flask_jwt_extended_refuses_names_nobody(audit: Audit, app: flask.Flask) -> None:
    client = app.test_client()
    claims = {"sub": FORGED, "roles": [FORGED], "jti": "1", "type": "access", "fresh": False}
    for token in forgeries(claims).values():
        for path in ("/patients", "/hints"):
            assert client.get(path, headers=bearer(token)).status_code in (401, 422)
    # A token that somebody only decodes has been read, not verified.
    assert client.get("/decoded", headers=bearer(jwt.encode(claims, OTHER_KEY, "HS256"))).json == claims
    # A refresh token is none to come in with.
    with app.app_context():
        refresh = flask_jwt_extended.create_refresh_token(FORGED)
    assert client.get("/patients", headers=bearer(refresh)).status_code == 422
    found = actors(audit)
    assert found == [ANONYMOUS] * len(found)
    assert len(found) == 2 * len(forgeries(claims)) + 2
    assert FORGED.encode() not in audit.bytes()


# --- Authlib ------------------------------------------------------------------------------------------------


class Row(SimpleNamespace):
    """A row of the application's table of tokens."""

    def is_expired(self) -> bool:
        return bool(self.expired)

    def is_revoked(self) -> bool:
        return False

    def get_scope(self) -> str:
        return "patients"

    def get_user(self) -> object:
        raise AssertionError("this asks the database")


ROWS = {
    "of a user": Row(id=91, user_id=7, client_id="web", expired=False),
    "with its user": Row(
        id=92, user_id=7, user=SimpleNamespace(id=7, role="doctor"), client_id="web", expired=False
    ),
    "of a program": Row(id=93, user_id=None, client_id="job-1", expired=False),
    "expired": Row(id=94, user_id=FORGED, client_id=FORGED, expired=True),
}


class InTable(BearerTokenValidator):  # type: ignore[misc]  # untyped
    def authenticate_token(self, token_string: str) -> Row | None:
        return ROWS.get(token_string)


class Introspected(IntrospectTokenValidator):  # type: ignore[misc]  # untyped
    def introspect_token(self, token_string: str) -> dict[str, Any]:
        return {
            "uma": {"active": True, "username": "uma", "client_id": "web", "scope": "patients"},
            "job": {"active": True, "client_id": "job-1", "scope": "patients"},
        }.get(token_string, {"active": False, "username": FORGED})


PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class AccessTokens(JWTBearerTokenValidator):  # type: ignore[misc]  # untyped
    def get_jwks(self) -> dict[str, Any]:
        public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(PRIVATE.public_key(), as_dict=True)
        return {"keys": [public | {"kid": "1"}]}


def protected(app: flask.Flask, validator: object) -> None:
    protector = ResourceProtector()
    protector.register_token_validator(validator)

    @app.get("/patients")
    @protector("patients")  # type: ignore[untyped-decorator]
    def patients() -> str:
        return str(bool(current_token))

    @app.get("/hints")
    @protector("patients", optional=True)  # type: ignore[untyped-decorator]
    def hints() -> str:
        return "none"


def test_authlib_gives_the_tokens_user_never_the_tokens_own_id(audit: Audit, app: flask.Flask) -> None:
    protected(app, InTable())
    client = app.test_client()
    assert [client.get("/patients", headers=bearer(name)).status_code for name in ROWS] == [
        200,
        200,
        200,
        401,
    ]
    assert client.get("/patients", headers=bearer(FORGED)).status_code == 401
    assert client.get("/hints").status_code == 200
    assert actors(audit) == [
        {"id": "7", "type": "user"},
        {"id": "7", "type": "user", "role": "doctor"},
        {"id": "job-1", "type": "service"},
        ANONYMOUS,
        ANONYMOUS,
        ANONYMOUS,
    ]
    assert FORGED.encode() not in audit.bytes()


def test_authlib_gives_what_was_introspected(audit: Audit, app: flask.Flask) -> None:
    protected(app, Introspected())
    client = app.test_client()
    codes = [client.get("/patients", headers=bearer(name)).status_code for name in ("uma", "job", FORGED)]
    assert codes == [200, 200, 401]
    assert actors(audit) == [{"id": "uma", "type": "user"}, {"id": "job-1", "type": "service"}, ANONYMOUS]


def test_authlib_gives_the_claims_of_an_access_token(audit: Audit, app: flask.Flask) -> None:
    protected(app, AccessTokens("https://id.example.org", "https://api.example.org"))
    client = app.test_client()
    now = int(time.time())
    claims = {
        "iss": "https://id.example.org",
        "aud": "https://api.example.org",
        "sub": "u-7",
        "client_id": "web",
        "exp": now + 60,
        "iat": now,
        "jti": "1",
        "scope": "patients",
        "roles": ["nurse"],
    }

    def get(key: Any, algorithm: str = "RS256", **changed: Any) -> int:
        token = jwt.encode(claims | changed, key, algorithm, headers={"typ": "at+jwt", "kid": "1"})
        return client.get("/patients", headers=bearer(token)).status_code

    assert [get(PRIVATE), get(PRIVATE, sub="web")] == [200, 200]
    assert get(PRIVATE, sub=FORGED, exp=now - 60) == 401
    assert get(PRIVATE, sub=FORGED, aud="https://other.example.org") == 401
    assert get(PRIVATE, sub=FORGED, scope="other") == 403
    assert get(OTHER_PRIVATE, sub=FORGED) == 401
    assert get(None, "none", sub=FORGED) == 401
    assert actors(audit) == [
        {"id": "u-7", "type": "user", "role": "nurse"},
        {"id": "web", "type": "service", "role": "nurse"},
        *[ANONYMOUS] * 5,
    ]
    assert FORGED.encode() not in audit.bytes()


# --- Flask-HTTPAuth -----------------------------------------------------------------------------------------


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_flask_httpauth_gives_the_user_of_a_right_password_or_token(audit: Audit, app: flask.Flask) -> None:
    passwords, tokens = HTTPBasicAuth(), HTTPTokenAuth("Bearer")
    either = MultiAuth(passwords, tokens)

    @passwords.verify_password  # type: ignore[untyped-decorator]
    def verify(name: str, password: str) -> object:
        if password != "right":
            return None
        return SimpleNamespace(id=7, roles=["doctor"]) if name == "doctor" else name == "uma"

    @passwords.get_user_roles  # type: ignore[untyped-decorator]
    def roles(_user: object) -> list[str]:
        return []

    @tokens.verify_token  # type: ignore[untyped-decorator]
    def verified(token: str) -> object:
        try:
            return jwt.decode(token, KEY, ["HS256"])
        except jwt.InvalidTokenError:
            return False

    app.add_url_rule("/patients", view_func=either.login_required(lambda: "none"))
    app.add_url_rule("/hints", "hints", passwords.login_required(optional=True)(lambda: "none"))
    app.add_url_rule("/admin", "admin", passwords.login_required(role="admin")(lambda: "none"))
    client = app.test_client()
    good = jwt.encode({"sub": "u-7", "role": "nurse"}, KEY, "HS256")
    assert client.get("/patients", headers=basic("uma", "right")).status_code == 200
    assert client.get("/patients", headers=basic("doctor", "right")).status_code == 200
    assert client.get("/patients", headers=bearer(good)).status_code == 200
    assert client.get("/hints", headers=basic("uma", "right")).status_code == 200
    assert client.get("/patients", headers=basic(FORGED, "wrong")).status_code == 401
    assert client.get("/hints", headers=basic(FORGED, "wrong")).status_code == 200
    assert client.get("/hints").status_code == 200
    assert client.get("/admin", headers=basic("uma", "right")).status_code == 403
    bad = forgeries({"sub": FORGED})
    assert {client.get("/patients", headers=bearer(token)).status_code for token in bad.values()} == {401}
    uma = {"id": "uma", "type": "user"}
    assert actors(audit) == [
        uma,
        {"id": "7", "type": "user", "role": "doctor"},
        {"id": "u-7", "type": "user", "role": "nurse"},
        uma,
        *[ANONYMOUS] * (4 + len(bad)),
    ]
    assert FORGED.encode() not in audit.bytes()


def test_flask_httpauth_gives_the_user_of_a_right_digest(audit: Audit, app: flask.Flask) -> None:
    digest = HTTPDigestAuth(realm="clinic")
    digest.get_password(lambda name: "right" if name in ("uma", FORGED) else None)
    app.add_url_rule("/patients", view_func=digest.login_required(lambda: "none"))
    client = app.test_client()

    def answer(name: str, password: str) -> TestResponse:
        asked = client.get("/patients").headers["WWW-Authenticate"]
        given = dict(re.findall(r'(\w+)="?([^",]+)', asked))

        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - what RFC 2617 asks for

        first, second = md5(f"{name}:clinic:{password}"), md5("GET:/patients")
        proof = md5(f"{first}:{given['nonce']}:1:c:auth:{second}")
        values = {
            "username": name,
            "realm": "clinic",
            "nonce": given["nonce"],
            "uri": "/patients",
            "opaque": given["opaque"],
            "cnonce": "c",
            "nc": "1",
            "qop": "auth",
            "response": proof,
        }
        told = ", ".join(f'{key}="{value}"' for key, value in values.items())
        return client.get("/patients", headers={"Authorization": f"Digest {told}"})

    assert answer("uma", "right").status_code == 200
    assert answer(FORGED, "wrong").status_code == 401
    assert actors(audit) == [ANONYMOUS, {"id": "uma", "type": "user"}, ANONYMOUS, ANONYMOUS]
    assert FORGED.encode() not in audit.bytes()


# --- claims that the application has verified itself ---------------------------------------------------------


def verify_into(name: str) -> Callable[[], Any]:
    def verify() -> Any:
        token = flask.request.headers["Authorization"].removeprefix("Bearer ")
        try:
            setattr(flask.g, name, jwt.decode(token, KEY, ["HS256"]))
        except jwt.InvalidTokenError:
            return flask.Response("no", 401)
        return None

    return verify


@pytest.mark.parametrize(("name", "sources"), [("claims", "g.claims"), ("user", ""), ("current_user", "")])
def test_claims_that_the_application_has_verified(
    audit: Audit, app: flask.Flask, name: str, sources: str
) -> None:
    audit.set(SPANSEAL_ACTOR_SOURCES=sources)
    app.before_request(verify_into(name))
    app.add_url_rule("/patients", view_func=lambda: "none")
    client = app.test_client()
    claims = {"sub": "u-7", "realm_access": {"roles": ["nurse"]}, "name": "Uma"}
    assert client.get("/patients", headers=bearer(jwt.encode(claims, KEY, "HS256"))).status_code == 200
    bad = forgeries({"sub": FORGED, "id": FORGED})
    assert {client.get("/patients", headers=bearer(token)).status_code for token in bad.values()} == {401}
    assert actors(audit) == [
        {"id": "u-7", "type": "user", "role": "nurse", "name": "Uma"},
        *[ANONYMOUS] * len(bad),
    ]
    assert FORGED.encode() not in audit.bytes()


def test_an_attribute_that_is_not_named_is_not_read(audit: Audit, app: flask.Flask) -> None:
    app.before_request(verify_into("claims"))
    app.add_url_rule("/patients", view_func=lambda: "none")
    app.test_client().get("/patients", headers=bearer(jwt.encode({"sub": "u-7"}, KEY, "HS256")))
    assert actors(audit) == [ANONYMOUS]
