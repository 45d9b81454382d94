"""An actor of a token's claims: of one that was verified. Nothing here verifies, and nothing here decodes.

Who holds the token is told from the shapes that authorisation servers give it. `sub` is the user, unless

- `act` (RFC 8693) says that somebody else acts: then `act.sub` is the actor, and `sub` is on whose behalf;
- it was issued to a program for itself, by the client credentials grant: then that program is a service. This is seen
  from `gty` or `grant_type` (Auth0, Authlib), from a `sub` that is missing or equals the client's id (RFC 9068, Okta,
  Cognito, Google), from `idtyp` or a `sub` that equals `oid` (Entra ID), from the user name `service-account-<client>`
  of the client's own (Keycloak), and from the prefix of Kubernetes' service accounts.

Roles are `role`, `roles`, `realm_access.roles` (Keycloak), and claims whose name is a URL that ends in `/role` or
`/roles` (Auth0 takes no other names). Scopes are no roles: they say what the program was allowed to ask for, not what
its user is. `groups` are no roles either.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from .actor import MAX_TEXT, Actor
from .reading import first, fit, joined_roles, roles, text
from .users import from_value, kind_of

__all__ = ["SUBJECT", "from_claims"]

SUBJECT = "sub"
CLIENT_KEYS = ("client_id", "azp", "cid", "appid", "clientId")
"""Where the id of the program stands that the token was issued to."""
NAME_KEYS = ("preferred_username", "username", "user_name", "nickname", "name", "upn")

_CLIENT_CREDENTIALS = frozenset({"client-credentials", "client_credentials"})
_MOST_CLAIMS = 1000


def from_claims(claims: Mapping[str, Any], subject_key: str = SUBJECT) -> Actor | None:
    """Make an actor of verified claims.

    Args:
        claims: A token's claims, or what an introspection endpoint (RFC 7662) answered.
        subject_key: The claim that holds the user's id.

    Returns:
        The actor, or None where the claims name nobody.
    """
    if isinstance(whole := claims.get(subject_key), Mapping):
        return from_value(whole)
    subject, client = text(whole), first(claims, CLIENT_KEYS)
    if subject_key == SUBJECT and not subject and not _is_program(claims, "", client):
        subject = first(claims, ("user_id", "username"))
    act = claims.get("act")
    if isinstance(act, Mapping) and (acting := _acting(act, subject)) is not None:
        return acting
    service = _is_program(claims, subject, client)
    identifier = subject or (client if service else "")
    if not identifier:
        return None
    return Actor(
        fit(identifier),
        type="service" if service else kind_of(claims) or "user",
        role=_roles(claims),
        email=_email(claims),
        name=_short(claims, NAME_KEYS),
    )


def _acting(act: Mapping[str, Any], subject: str) -> Actor | None:
    """RFC 8693 section 4.1: the outermost `act` is who acts now; those inside it acted before."""
    identifier = text(act.get(SUBJECT))
    client = first(act, CLIENT_KEYS)
    if not (identifier or client):
        return None
    # The token's other claims tell of the one on whose behalf, so none of them is the actor's.
    return Actor(
        fit(identifier or client),
        type="service" if identifier in ("", client) else kind_of(act) or "user",
        role=_roles(act),
        email=_email(act),
        name=_short(act, NAME_KEYS),
        on_behalf_of=fit(subject),
    )


def _is_program(claims: Mapping[str, Any], subject: str, client: str) -> bool:
    """Say whether a token was issued to a program for itself."""
    for key in ("gty", "grant_type"):
        given = claims.get(key)
        granted = given if isinstance(given, list) else [given]
        if any(isinstance(one, str) and one in _CLIENT_CREDENTIALS for one in granted):
            return True
    if claims.get("idtyp") == "app" or subject.startswith("system:serviceaccount:"):
        return True
    if not client:
        return False
    if subject in ("", client, f"{client}@clients"):
        # Without a `sub` an opaque token's user has another name.
        return bool(subject) or not first(claims, ("user_id", "username"))
    if "tid" in claims and "scp" not in claims and claims.get("oid") == subject:
        return True
    # Anybody may have chosen such a name; these two claims are given to the client's own account only.
    own = client in (claims.get("client_id"), claims.get("clientId"))
    return own and claims.get("preferred_username") == f"service-account-{client}".lower()


def _roles(claims: Mapping[str, Any]) -> str:
    if found := roles(claims):
        return found
    realm = claims.get("realm_access")
    if isinstance(realm, Mapping) and (found := joined_roles(realm.get("roles"))):
        return found
    for key in islice(claims, _MOST_CLAIMS):
        name = text(key)
        named = name.startswith(("https://", "http://")) and name.endswith(("/roles", "/role"))
        if named and (found := joined_roles(claims[key])):
            return found
    return ""


def _email(claims: Mapping[str, Any]) -> str:
    # One that nobody has verified may be another person's.
    return "" if claims.get("email_verified") in (False, "false") else _short(claims, ("email",))


def _short(claims: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = first(claims, names)
    return found if len(found) <= MAX_TEXT else ""
