"""From a request to what it meant: method and route become `<resource>.<verb>`. A pure function.

These are the defaults; `rules` asks the application's own before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .words import NOUNS_TOO, READING_VERBS, VERBS, is_plural, plain, singular

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
_GRANTED_TO = frozenset(
    {"", "account", "admin", "grant", "group", "member", "membership", "permission", "role", "team", "user"}
)
_PREFIXES = re.compile(r"api|rest|v\d*(_\d+)?")

# A value of the path that is a credential must not be recorded: `/reset-password/<token>`.
_SECRET_NAME = re.compile(
    r"token|secret(?!ar)|passw|passphrase|passcode|signature|jwt|nonce|hmac|credential|api_?key|auth_?code"
    r"|(^|_)(otp|totp|auth|pwd|pw|bearer|cookie)(_|$)"
    r"|(access|activation|confirm|confirmation|invitation|invite|login|magic|private|reset|session|verification|verify)_?(code|hash|key|link)"
    r"|^(key|code|sig|hash|pin)$"
)

# As werkzeug reads a rule: what is fixed, and `<converter(arguments):variable>`.
_TOKEN = re.compile(
    r"(?P<slash>/)|<(?:[a-zA-Z_]\w*(?:\(.*?\))?:)?(?P<variable>[a-zA-Z_]\w*)>|(?P<fixed>[^/<]+|<)", re.ASCII
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
    outcome: str = ""
    """Of a rule, which knows better than the status; empty for what the status says."""
    failure_reason: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """What else a rule says: `audit.data_classes`, `audit.severity`, `audit.retention_class`."""


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
    plan = plan_of(method, route)
    values = view_args or {}
    subject_id = value_text(values.get(plan.subject_variable))
    return Meaning(
        plan.action,
        plan.resource_type,
        value_text(values.get(plan.variable)),
        plan.subject_type if subject_id else "",
        subject_id,
    )


def plan_of(method: str, route: str | None) -> Plan:
    """Say what a method on a route means by the defaults, before there is a request. Arguments as of `map_request`."""
    return _UNMATCHED if route is None else _plan(method if method in KNOWN_METHODS else "", route)


@lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Say whether a variable of a route is a credential by its name: its value must not be recorded."""
    return _SECRET_NAME.search(plain(name)) is not None


def is_state_changing(method: str) -> bool:
    """Say whether a method asks for a change of state."""
    return method not in SAFE_METHODS


@dataclass(frozen=True, slots=True)
class Plan:
    """What a method on a route means, with the names of the variables whose values complete it."""

    action: str
    resource_type: str = ""
    variable: str = ""
    subject_type: str = ""
    subject_variable: str = ""
    source: str = "well-known"
    """By which of the defaults: `well-known`, `verb in the path`, `method` or `no route`."""


_UNMATCHED = Plan(UNMATCHED, source="no route")


@dataclass(frozen=True, slots=True)
class _Segment:
    """Of a route: either a fixed word or a variable."""

    word: str = ""
    variable: str = ""
    """Its name; empty for a credential's, which stands here without one."""

    @property
    def fixed(self) -> bool:
        return bool(self.word)


@lru_cache(maxsize=4096)
def _plan(method: str, route: str) -> Plan:
    segments = _segments(route)
    if not segments:
        return Plan(f"index.{_verb(method)}", "index", source="method")
    return _well_known(method, segments) or _sub_action(method, segments) or _default(method, segments)


def _segments(route: str) -> list[_Segment]:
    result: list[_Segment] = []
    for match in _TOKEN.finditer(route):
        if variable := match["variable"]:
            result.append(_Segment(variable="" if is_credential(variable) else variable))
        elif match["fixed"] and (word := plain(match["fixed"])):
            # `<id>.pdf`: the part's fixed end says nothing of its own.
            follows_variable = match.start() > 0 and route[match.start() - 1] == ">"
            prefix = not any(segment.fixed for segment in result) and _PREFIXES.fullmatch(word)
            if not follows_variable and not prefix:
                result.append(_Segment(word))
    return result


def _well_known(method: str, segments: list[_Segment]) -> Plan | None:  # noqa: PLR0911 - one for each name
    """The names that nearly every application has."""
    words = [segment.word for segment in segments if segment.fixed]
    if not words:
        return None
    last = words[-1]
    if last in _SIGN_OUT and method not in ("HEAD", "OPTIONS", "TRACE"):
        return Plan(SIGNED_OUT, "user")
    if not is_state_changing(method):
        return None
    if last in _SIGN_IN and method == "POST":
        return Plan(SIGNED_IN, "user")
    if last in _SIGN_UP and method == "POST":
        return Plan("user.registered", "user")
    if last in _FORGOTTEN or words[-2:] == ["password", "forgot"]:
        return Plan("user.password_reset_requested", "user")
    owner, variable = _nearest(segments, skip=last)
    if last in _PASSWORD or words[-2:] in (["password", "change"], ["password", "reset"]):
        return Plan(PASSWORD_CHANGED, "user", variable if owner == "user" else "")
    if (last in ("grant", "revoke") and owner in _GRANTED_TO) or (last in _GRANTS and variable):
        verb = "revoked" if last == "revoke" or method == "DELETE" else "granted"
        return Plan(f"admin.permission_{verb}", owner, variable)
    return None


def _sub_action(method: str, segments: list[_Segment]) -> Plan | None:
    """A route that says what is done: `/invoices/<id>/approve`, `/delete/<id>`."""
    if method == "OPTIONS":
        return None
    last = max((at for at, segment in enumerate(segments) if segment.fixed), default=-1)
    word = segments[last].word if last >= 0 else ""
    if word not in VERBS:
        return None
    before, after = segments[:last], segments[last + 1 :]
    alone = not before and word not in READING_VERBS and word != "import"
    if word in NOUNS_TOO and (after or alone):
        return None  # `/books/<id>` is a book, but `/rooms/<id>/book` books a room
    resource, variable = _nearest(before)
    variable = next((segment.variable for segment in after if segment.variable), variable)
    past = VERBS[word] if is_state_changing(method) or word in READING_VERBS else "viewed"
    return Plan(f"{resource or 'record'}.{past}", resource or "record", variable, source="verb in the path")


def _default(method: str, segments: list[_Segment]) -> Plan:
    verb = _verb(method)
    last = max((at for at, segment in enumerate(segments) if segment.fixed), default=-1)
    after = segments[last + 1 :]
    word = segments[last].word if last >= 0 else ""
    subject_type, subject_variable = _nearest(segments[: max(last, 0)])
    if not subject_type:
        subject_variable = ""
    if after:  # one thing of a collection
        named = next((segment.variable for segment in after if segment.variable), "")
        resource = singular(word or plain(named) or "record")
        if method == "POST":
            verb = "updated"
        return Plan(f"{resource}.{verb}", resource, named, subject_type, subject_variable, "method")
    resource = singular(word)
    if method in ("GET", "HEAD") and is_plural(word):
        verb = "listed"
    return Plan(f"{resource}.{verb}", resource, "", subject_type, subject_variable, "method")


def _verb(method: str) -> str:
    return _VERB_OF_METHOD.get(method, "requested")


def _nearest(segments: list[_Segment], skip: str = "") -> tuple[str, str]:
    """The last thing that a route names before its end: its type and the variable that follows it, if any."""
    variable = ""
    for segment in reversed(segments):
        if not segment.fixed:
            variable = segment.variable or variable
        elif segment.word != skip:
            return singular(segment.word), variable
        else:
            variable = ""
    return "", variable


def value_text(value: object) -> str:
    """Return the text of a route's value; empty where it has none."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an application's converter may give anything
        return ""
