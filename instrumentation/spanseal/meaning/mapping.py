"""From a request to what it meant: method and route become `<resource>.<verb>`. A pure function.

These are the defaults; `rules` asks the application's own before them. A name that many applications have comes first
(`well_known`), then a verb that stands in the path, then the method.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from .route_words import Plan, Words, is_credential, nearest, noun
from .variable_names import is_id, is_locale, is_parameter, is_query, kind_of, noun_of
from .well_known import IMPERSONATED, OWN, PASSWORD_CHANGED, SIGNED_IN, SIGNED_OUT, recognise
from .words import (
    ENDING_VERBS,
    MANY,
    ME,
    NOUN_ENDS,
    NOUNS_TOO,
    READING_VERBS,
    THINGS_VERBS,
    VERBS,
    WITH_THINGS,
    is_plural,
    is_singleton,
    is_thing,
    plain,
)

__all__ = [
    "IMPERSONATED",
    "KNOWN_METHODS",
    "OWN",
    "PASSWORD_CHANGED",
    "SAFE_METHODS",
    "SIGNED_IN",
    "SIGNED_OUT",
    "UNMATCHED",
    "Meaning",
    "Plan",
    "is_credential",
    "is_state_changing",
    "map_request",
    "plan_of",
    "value_text",
    "verb_of",
]

UNMATCHED = "request.unmatched"
"""The action of a request for which no route was found: its path is not recorded, it may be anything."""

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 section 9.2.1: these ask for no change of state."""

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


_SUBMITTED = "submitted"
"""What is posted to something of which nobody knows whether there are many: a form, most often."""

_FORMATS = ("csv", "html", "json", "pdf", "xlsx", "xml")

_ADDED = {"add": "added", "remove": "removed"}

_ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_RESERVED = ("audit_log.", "producer.")
_UNMATCHED = Plan(UNMATCHED, source="no route")


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


def wrong_action(action: str) -> str:
    """Say what is wrong with an action that somebody gave, such as "is not of the form ..."; empty where nothing is."""
    if not _ACTION.fullmatch(action):
        return "is not of the form <resource>.<verb> in lower case: write something like invoice.approved"
    if action.startswith(_RESERVED):
        return f"is one of Spanseal's own, as all of {action.partition('.')[0]}.*: use another"
    return ""


def is_state_changing(method: str) -> bool:
    """Say whether a method asks for a change of state."""
    return method not in SAFE_METHODS


def verb_of(route: str) -> str:
    """Return the verb that a route's last word is or holds, if it is one that changes something; else empty."""
    words = Words(route)
    last = "" if words.last_implied else words.last
    verb = last if last in VERBS else _compound(last)[0]
    return "" if verb in READING_VERBS or verb in NOUNS_TOO else verb


@lru_cache(maxsize=4096)
def _plan(method: str, route: str) -> Plan:
    words = Words(route)
    if not words.last and all(is_locale(segment.variable) for segment in words.segments):
        return Plan(f"index.{_SUBMITTED if method == 'POST' else _verb(method)}", "index", source="method")
    known = recognise(method, words) if words.fixed and not words.last_implied else None
    plan = known or _sub_action(method, words) or _phrase(method, words) or _default(method, words)
    # An application's own page `/audit-log`: the collector takes no such action from outside.
    return replace(plan, action=f"app_{plan.action}") if plan.action.startswith(_RESERVED) else plan


def _sub_action(method: str, route: Words) -> Plan | None:
    """A route that says what is done: `/invoices/<id>/approve`, `/delete/<id>`."""
    word = route.last
    if method == "OPTIONS" or word not in VERBS or route.last_implied:
        return None
    if word == "search" and is_query(route.variable):
        # What was looked for is no id.
        resource = route.owner[0] or "record"
        return Plan(f"{resource}.searched", resource, route.owner[1], source="verb in the path")
    alone = not route.before and word not in READING_VERBS and word != "import"
    if word in NOUNS_TOO and ((route.after and not _only_parameters(route)) or alone):
        return None  # `/books/<id>` is a book, but `/rooms/<id>/book` books a room
    past = VERBS[word] if is_state_changing(method) or word in READING_VERBS else "viewed"
    return _done_to_typed(word, past, route) or _done(past, route)


def _only_parameters(route: Words) -> bool:
    """Whether what follows the verb says how it is done, to the thing before it: `/patients/<pid>/export/<format>`."""
    names = [segment.variable for segment in route.after]
    parameters = (
        is_parameter(name) or (route.last == "export" and noun_of(name) == "file") for name in names if name
    )
    return all(names) and bool(route.owner[1]) and all(parameters)


def _done_to_typed(word: str, past: str, route: Words) -> Plan | None:
    """What is done to the thing that a variable after the verb names: `/<project_id>/edit/<bill_id>`."""
    typed = [segment.variable for segment in route.after if kind_of(segment.variable)]
    if not typed:
        return None
    variable = typed[-1]
    kind, (owner, which) = kind_of(variable), route.owner
    holder = (kind_of(typed[0]), typed[0]) if len(typed) > 1 else route.subject
    holder = holder if holder[1] else route.holder
    if not owner or kind == owner or owner.endswith(f"_{kind}"):
        holder = holder if holder[1] != which or kind != owner else ("", "")
        resource = owner or kind
        return Plan(f"{resource}.{past}", resource, variable, *holder, source="verb in the path")
    if past == "viewed" or (holder[1] and word not in _ADDED):
        action = f"{kind}.{past}"
    else:
        # Whether `/cart/delete/<product_id>` ends the product or its place in the cart, nobody can tell.
        action = f"{owner}.{kind}_{_ADDED.get(word, past)}"
    return Plan(action, kind, variable, *holder, source="verb in the path")


def _done(past: str, route: Words) -> Plan:
    """What is done to the thing before the verb, or to one whose type no variable says: `/invoices/<id>/approve`."""
    resource, which = route.owner
    variable = route.variable
    if not resource:
        resource = noun_of(variable or which) or "record"
    elif which and variable and is_id(variable):
        # `/patients/<pid>/delete/<nid>` deletes something of the patient.
        return Plan(f"record.{past}", "record", variable, resource, which, source="verb in the path")
    elif which and variable:
        variable = ""  # `/pages/<page>/edit/<revision>`
    elif which and past == "created":
        # `/projects/<pid>/add` adds something to the project.
        return Plan("record.created", "record", "", resource, which, source="verb in the path")
    variable = variable or which
    if is_locale(variable):
        variable = ""
    return Plan(f"{resource}.{past}", resource, variable, *route.holder, source="verb in the path")


def _phrase(method: str, route: Words) -> Plan | None:
    """A route that says it in several words: `/createUser`, `/users/bulk-delete`, `/invoices/<id>/send-reminder`."""
    verb, thing = _compound(route.last)
    if method == "OPTIONS" or not verb or route.last_implied:
        return None
    owner, variable = route.owner
    plural, thing = is_plural(thing), noun(thing) if thing else ""
    asks = not is_state_changing(method) and verb not in READING_VERBS
    if asks and plural:
        return None  # `/pay-slips`
    if verb == "mark":
        past, thing = f"marked_{thing}", ""
    elif not asks:
        past = VERBS[verb]
        if past == "viewed" and plural and not route.variable:
            past = "listed"
    else:
        past = "viewed"  # the form
    if not thing or thing == owner:
        resource = owner or "record"
        return Plan(f"{resource}.{past}", resource, route.variable or variable, source="verb in the path")
    if not (owner and variable) or verb in THINGS_VERBS or verb in READING_VERBS:
        return Plan(f"{thing}.{past}", thing, route.variable, *route.subject, source="verb in the path")
    past = past if past == "viewed" else f"{thing}_{past}"
    return Plan(f"{owner}.{past}", owner, variable, source="verb in the path")


@lru_cache(maxsize=1024)
def _compound(word: str) -> tuple[str, str]:
    """Find the verb in a word of several parts, and what it is done to; both empty where there is none."""
    parts = word.split("_")
    if len(parts) == 1:
        return "", ""
    if len(parts) > 2 and parts[-1] in _FORMATS:
        parts = parts[:-1]  # `/get_authors_json`
    if parts[0] == "mark":
        return "mark", "_".join(part for part in parts[1:] if part != "as")
    several = [part for part in parts if part not in MANY]
    if len(several) < len(parts) and several and several[0] in VERBS:
        return several[0], plain("_".join(several[1:]))
    verb = parts[0]
    if (
        verb in VERBS
        and verb != "open"
        and (verb not in NOUNS_TOO or (verb in WITH_THINGS and parts[-1] not in NOUN_ENDS))
    ):
        return verb, plain("_".join(parts[1:]))
    if parts[-1] in ENDING_VERBS:
        return parts[-1], "_".join(parts[:-1])
    return "", ""


def _default(method: str, route: Words) -> Plan:
    verb = _verb(method)
    word, subject = route.last, route.subject
    if word in MANY and not route.after and len(route.fixed) > 1:
        # `/users/bulk` is users.
        word = route.fixed[-2]
        before = [segment for segment in route.before if segment.word != word]
        subject = found if (found := nearest(before))[1] and found[0] else ("", "")
    if route.after:  # one thing of a collection
        resource = noun(word) if word else noun_of(route.variable) or _parameter(route.variable) or "record"
        if method == "POST":
            # Nobody knows what is behind `/<path:path>`.
            verb = (
                _SUBMITTED
                if resource == "page" and len(route.segments) == 2 and route.last_implied
                else "updated"
            )
        return Plan(f"{resource}.{verb}", resource, route.variable, *subject, source="method")
    resource = noun(word)
    if method in ("GET", "HEAD") and is_plural(word) and word not in ME:
        verb = "listed"
    elif method == "POST":
        one = is_singleton(word) or word in ME
        verb = "updated" if one else "created" if is_plural(word) or is_thing(word) else _SUBMITTED
    return Plan(f"{resource}.{verb}", resource, "", *subject, source="method")


def _parameter(variable: str) -> str:
    return plain(variable) if is_parameter(variable) and len(variable) > 1 else ""


def _verb(method: str) -> str:
    return _VERB_OF_METHOD.get(method, "requested")


def value_text(value: object) -> str:
    """Return the text of a route's value; empty where it has none."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an application's converter may give anything
        return ""
