"""From a request to what it meant: method and route become `<resource>.<verb>`. A pure function.

This is the one place where a request gets its name. Rules of the application's own will be asked
here, before the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .words import READING_VERBS, VERBS, is_plural, plain, singular

UNMATCHED = "request.unmatched"
"""The action of a request for which no route was found: its path is not recorded, it may be anything."""

SIGNED_IN = "user.signed_in"
SIGNED_OUT = "user.signed_out"
PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - an action's name
OWN = frozenset({SIGNED_IN, SIGNED_OUT, PASSWORD_CHANGED})
"""What people do to their own account, unless the route names another one."""

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 section 9.2.1: these ask for no change of state."""

_SIGN_IN = frozenset({"login", "log_in", "signin", "sign_in"})
_SIGN_OUT = frozenset({"logout", "log_out", "signout", "sign_out"})
_SIGN_UP = frozenset({"register", "signup", "sign_up", "registration"})
_PASSWORD = frozenset(
    {"password", "change_password", "password_change", "set_password", "reset_password", "password_reset"}
)
_FORGOTTEN = frozenset({"forgot_password", "forgotten_password", "password_forgotten", "lost_password"})
_GRANTS = frozenset({"role", "roles", "permission", "permissions", "grants"})
_PREFIXES = re.compile(r"api|rest|v\d+(_\d+)?")

# A value of the path that is a credential must not be recorded: `/reset-password/<token>`.
_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|signature|otp|nonce|jwt|credential|api_?key|auth|^(key|code|sig|hash|pin)$",
    re.IGNORECASE,
)

_VERB_OF_METHOD = {
    "GET": "viewed",
    "HEAD": "viewed",
    "POST": "created",
    "PUT": "updated",
    "PATCH": "updated",
    "DELETE": "deleted",
    "OPTIONS": "inspected",
    "TRACE": "inspected",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a request meant."""

    action: str
    resource_type: str = ""
    resource_id: str = ""
    subject_type: str = ""
    """What the resource belongs to, where the route says it: the patient of a note."""
    subject_id: str = ""


def map_request(method: str, route: str | None, view_args: Mapping[str, object] | None = None) -> Meaning:
    """Give a request its meaning.

    Args:
        method: The HTTP method, upper case.
        route: The route's template (`/patients/<int:pid>`), or None where none was found.
        view_args: The values of the template's variables. Those whose name is a credential's
            (`token`, `secret`, `password`, `signature`, `otp`, `code`, `key`, …) are not used.

    Returns:
        The action with the resource it was done to. `resource_id` is empty for a collection.
    """
    if route is None:
        return Meaning(UNMATCHED)
    segments = _segments(route)
    words = [word for word, _ in segments if word]
    values = {name: str(value) for name, value in (view_args or {}).items() if not _SECRET_NAME.search(name)}
    return _well_known(method, segments, values) or _default(method, segments, words, values)


def is_state_changing(method: str) -> bool:
    """Say whether a method asks for a change of state."""
    return method not in SAFE_METHODS


def _segments(route: str) -> list[tuple[str, str]]:
    """Split a template into (word, "") for what is fixed and ("", name) for a variable."""
    result: list[tuple[str, str]] = []
    for part in re.findall(r"(?:<[^>]*>|[^/<])+", route):
        if variable := re.search(r"<(?:[^>:]*(?:\([^)]*\))?:)?([^>]+)>", part):
            result.append(("", variable.group(1)))
        elif (word := plain(part)) and (any(fixed for fixed, _ in result) or not _PREFIXES.fullmatch(word)):
            result.append((word, ""))
    return result


def _well_known(  # noqa: PLR0911 - one for each name
    method: str, segments: list[tuple[str, str]], values: Mapping[str, str]
) -> Meaning | None:
    """The names that nearly every application has."""
    words = [word for word, _ in segments if word]
    if not words:
        return None
    last = words[-1]
    changing = is_state_changing(method)
    if last in _SIGN_OUT and method not in ("HEAD", "OPTIONS", "TRACE"):
        return Meaning(SIGNED_OUT, "user")
    if not changing:
        return None
    resource_type, resource_id = _nearest(segments, values, skip=last)
    if last in _SIGN_IN and method == "POST":
        return Meaning(SIGNED_IN, "user")
    if last in _SIGN_UP and method == "POST":
        return Meaning("user.registered", "user")
    if last in _FORGOTTEN or words[-2:] == ["password", "forgot"]:
        return Meaning("user.password_reset_requested", "user")
    if last in _PASSWORD or words[-2:] in (["password", "change"], ["password", "reset"]):
        return Meaning(PASSWORD_CHANGED, "user", resource_id if resource_type == "user" else "")
    if last in ("grant", "revoke") or (last in _GRANTS and resource_id):
        verb = "revoked" if last == "revoke" or method == "DELETE" else "granted"
        return Meaning(f"admin.permission_{verb}", resource_type, resource_id)
    return None


def _default(
    method: str, segments: list[tuple[str, str]], words: list[str], values: Mapping[str, str]
) -> Meaning:
    verb = _VERB_OF_METHOD.get(method, "requested")
    if not segments:
        return Meaning(f"index.{verb}", "index")
    word, variable = segments[-1]
    if variable:  # one thing of a collection
        resource = singular(words[-1]) if words else plain(variable)
        subject_type, subject_id = _nearest(segments[:-1], values, skip=words[-1] if words else "")
        return Meaning(
            f"{resource}.{'updated' if method == 'POST' else verb}",
            resource,
            values.get(variable, ""),
            subject_type if subject_id else "",
            subject_id,
        )
    if (
        word in VERBS
        and method != "OPTIONS"
        and (len(segments) > 1 or word in READING_VERBS or word == "import")
    ):
        resource, resource_id = _nearest(segments[:-1], values)
        past = VERBS[word] if is_state_changing(method) or word in READING_VERBS else "viewed"
        return Meaning(f"{resource or 'record'}.{past}", resource or "record", resource_id)
    resource = singular(word)
    if method in ("GET", "HEAD") and is_plural(word):
        verb = "listed"
    subject_type, subject_id = _nearest(segments[:-1], values)
    return Meaning(f"{resource}.{verb}", resource, "", subject_type if subject_id else "", subject_id)


def _nearest(segments: list[tuple[str, str]], values: Mapping[str, str], skip: str = "") -> tuple[str, str]:
    """The last thing that a route names before its end: its type and, if a variable follows, its id."""
    identifier = ""
    for word, variable in reversed(segments):
        if variable:
            identifier = identifier or values.get(variable, "")
        elif word != skip:
            return singular(word), identifier
        else:
            identifier = ""
    return "", identifier
