"""What every route of an application means, by which rule, and where that leaves a gap."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spanseal.meaning import marks
from spanseal.meaning.mapping import OWN, is_state_changing, plan_of, verb_of
from spanseal.meaning.route_words import Words
from spanseal.meaning.rules import Resolved, Rules
from spanseal.meaning.rules_file import Reference, Rule
from spanseal.meaning.rules_pattern import RoutePattern
from spanseal.meaning.words import is_singleton
from spanseal.settings import Settings
from spanseal.variables import variables_of

if TYPE_CHECKING:
    import flask

__all__ = ["GAPS", "Finding", "Gap", "Report", "RouteLine", "Variant", "actor_sources", "report"]

UNMAPPED = "unmapped"
NO_RESOURCE_ID = "no-resource-id"
NO_ACTOR = "no-actor"
VERB_UNDER_GET = "verb-under-get"
UNUSED_RULE = "unused-rule"
GAPS = (UNMAPPED, NO_RESOURCE_ID, NO_ACTOR, VERB_UNDER_GET, UNUSED_RULE)

_BARE = frozenset({"index", "record", "resource"})
"""Types of which the route says nothing."""
_FORMS = frozenset({"add", "create", "edit", "new"})
"""Verbs whose GET shows the form."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the audit trail will not tell."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is about nothing."""

    kind: str
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a method on a route means where its status makes a difference."""

    status: str
    """As the rule says it: `404`, `2xx`."""
    resolved: Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLine:
    """A method on a route."""

    method: str
    route: str
    endpoint: str
    resolved: Resolved
    """Of an answer that is a success."""
    skip: str = ""
    """Why it is not recorded; empty where it is."""
    skip_place: str = ""
    """Of the rule that says so."""
    variants: tuple[Variant, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def source(self) -> str:
        """By what its action is said."""
        return self.resolved.sources["action"]

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "method": self.method,
            "route": self.route,
            "endpoint": self.endpoint,
            **_meaning_data(self.resolved),
            "skip": self.skip or None,
            "sources": {**self.resolved.sources, **({"skip": self.skip_place} if self.skip else {})},
            "by_status": [
                {
                    "status": variant.status,
                    **_meaning_data(variant.resolved),
                    "sources": dict(variant.resolved.sources),
                }
                for variant in self.variants
            ],
            "gaps": [asdict(gap) for gap in self.gaps],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All routes of an application."""

    routes: tuple[RouteLine, ...]
    unmatched: Resolved
    """Of requests without a route."""
    unmatched_skip: str
    findings: tuple[Finding, ...] = ()
    actors: tuple[str, ...] = field(default_factory=tuple)
    """Where an actor may come from."""

    def kinds(self) -> set[str]:
        """Name the kinds of everything that was found."""
        return {gap.kind for line in self.routes for gap in line.gaps} | {one.kind for one in self.findings}


def report(app: flask.Flask, rules: Rules, environ: Mapping[str, str] = os.environ) -> Report:
    """Work out what every route of an application means.

    Args:
        app: The application.
        rules: Its rules.
        environ: Where the settings are read from.

    Raises:
        ConfigurationError: A setting about the actor has a value that cannot be used.
    """
    actors = actor_sources(app, environ)
    pairs = list(_pairs(app))
    changing = {route for route, method, _ in pairs if is_state_changing(method)}
    lines = []
    for route, method, endpoint in pairs:
        line = _line(app, rules, route, method, endpoint)
        gaps = tuple(_gaps(line, with_actor=bool(actors), may_change=route in changing))
        lines.append(replace(line, gaps=gaps))
    return Report(
        routes=tuple(lines),
        unmatched=rules.resolved("GET", None, 404),
        unmatched_skip=rules.skips("GET", None),
        findings=tuple(_unused(rules.rules, app)),
        actors=actors,
    )


def actor_sources(app: flask.Flask, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Name where the actor of a request may be found, as far as that can be known without a request.

    Raises:
        ConfigurationError: A setting about it has a value that cannot be used.
    """
    variables = variables_of(Settings)
    asked = {source.name for source in variables["actor_sources"].read(environ)}
    found = [
        variables[name].name
        for name, source in (("actor_resolver", ""), ("actor_header", "header"))
        if environ.get(variables[name].name, "").strip() and (not source or source in asked)
    ]
    there = {
        "flask_login": ("Flask-Login", getattr(app, "login_manager", None) is not None),
        "flask_jwt_extended": ("Flask-JWT-Extended", "flask-jwt-extended" in app.extensions),
        "authlib": ("Authlib", "authlib.integrations.flask_client" in app.extensions),
        "http_auth": ("Flask-HTTPAuth", "flask_httpauth" in sys.modules),
        "session": ("session", bool(app.secret_key)),
    }
    found += [name for source, (name, is_there) in there.items() if is_there and source in asked]
    if any(app.before_request_funcs.values()) and any(source.startswith("g.") for source in asked):
        found.append("before_request functions, by flask.g")
    return tuple(found)


def _pairs(app: flask.Flask) -> Iterator[tuple[str, str, str]]:
    """All routes with the methods that the application has named, each once: route, method, endpoint."""
    endpoints: dict[tuple[str, str], str] = {}
    for rule in app.url_map.iter_rules():
        if rule.build_only or rule.websocket:
            continue
        methods = set(rule.methods or ())
        # Flask adds these by itself: HEAD is GET, and OPTIONS tells what there is.
        if "GET" in methods:
            methods.discard("HEAD")
        if getattr(rule, "provide_automatic_options", False):
            methods.discard("OPTIONS")
        for method in methods:
            endpoints.setdefault((rule.rule, method), rule.endpoint)
    for (route, method), endpoint in sorted(
        endpoints.items(), key=lambda item: (item[0][0], _order(item[0][1]))
    ):
        yield route, method, endpoint


def _order(method: str) -> tuple[int, str]:
    usual = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return (usual.index(method) if method in usual else len(usual)), method


def _line(app: flask.Flask, rules: Rules, route: str, method: str, endpoint: str) -> RouteLine:
    skipping = rules.skipped_by(method, route)
    mark = marks.of(app.view_functions.get(endpoint), method)

    def resolved(status: int) -> Resolved:
        found = rules.resolved(method, route, status)
        return found if mark is None else _marked(found, mark)

    status = _success(rules, method, route)
    main = resolved(status)
    variants: dict[str, Variant] = {}
    for rule in rules.matching(method, route) if skipping is None else []:
        if rule.statuses:
            other = resolved(min(rule.statuses))
            label = _statuses(rule.statuses)
            if _meaning_data(other) != _meaning_data(main):
                variants.setdefault(label, Variant(status=label, resolved=other))
    return RouteLine(
        method=method,
        route=route,
        endpoint=endpoint,
        resolved=main,
        skip=skipping.skip if skipping is not None else "",
        skip_place=skipping.place if skipping is not None else "",
        variants=tuple(variants.values()),
    )


def _success(rules: Rules, method: str, route: str) -> int:
    """Choose a status of success: one that a rule asks for, where there is one."""
    asked = [rule.statuses for rule in rules.matching(method, route) if rule.statuses]
    usual = (200, 201, 202, 204, 302, 303)
    others = sorted(status for status in frozenset().union(*asked) if status < 400)
    for status in (*usual, *others):
        named = any(status in statuses for statuses in asked)
        if named and rules.resolved(method, route, status).outcome != "failure":
            return status
    return next((one for one in usual if rules.resolved(method, route, one).outcome != "failure"), 200)


def _marked(found: Resolved, mark: marks.Mark) -> Resolved:
    # `{pid}` is what `@action` makes of a variable's name.
    template = mark.resource_id[1:-1] if mark.resource_id[1:-1].isidentifier() else mark.resource_id
    by_mark = Reference(variable=template) if template else found.resource
    places = {"action": "@action", **({"resource": "@action"} if mark.resource_id else {})}
    return Resolved(
        action=mark.action,
        resource_type=mark.resource_type,
        resource=by_mark,
        subject_type=found.subject_type,
        subject=found.subject,
        outcome=found.outcome,
        failure_reason=found.failure_reason,
        attributes={**found.attributes, **mark.attributes},
        sources={**found.sources, **places},
    )


def _statuses(statuses: frozenset[int]) -> str:
    parts = []
    for hundred in range(1, 6):
        of_it = sorted(status for status in statuses if status // 100 == hundred)
        parts += [f"{hundred}xx"] if len(of_it) == 100 else [str(status) for status in of_it]
    return ", ".join(parts)


# --- gaps ------------------------------------------------------------------------------------------------


def _gaps(line: RouteLine, *, with_actor: bool, may_change: bool) -> Iterator[Gap]:
    if line.skip:
        return
    found = line.resolved
    changes = is_state_changing(line.method)
    by_default = line.source.startswith("default")
    kind, _, verb = found.action.partition(".")
    vague = verb == "requested" or (verb == "submitted" and line.source == "default: method")
    if by_default and (kind in _BARE or vague or not Words(line.route).last):
        yield Gap(UNMAPPED, f"{found.action} says nothing of what was done")
    if changes and not _has_id(line):
        yield Gap(NO_RESOURCE_ID, "it changes something, and the record does not say which one")
    if not with_actor and (changes or "audit.data_classes" in found.attributes):
        yield Gap(NO_ACTOR, "nothing that Spanseal knows of tells who asks")
    if (
        line.method == "GET"
        and by_default
        and not may_change
        and plan_of("GET", line.route).source != "well-known"
    ):
        named = verb_of(line.route)
        if named and named not in _FORMS:
            yield Gap(VERB_UNDER_GET, f"if it does {named} under GET, {found.action} hides that")


def _has_id(line: RouteLine) -> bool:
    found = line.resolved
    reference = found.resource
    if reference.variable or reference.pointer or reference.no_id:
        return True
    # The actor's own account, or something of which there is only one.
    last = Words(line.route).last
    return found.action in OWN or found.resource_type == "config" or is_singleton(last)


def _unused(rules: Iterable[Rule], app: flask.Flask) -> Iterator[Finding]:
    all_methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        all_methods.setdefault(rule.rule, set()).update(rule.methods or ())
    for one in rules:
        for pattern in one.routes:
            if pattern.matches(None):
                continue
            routes = [route for route in all_methods if pattern.matches(route)]
            if not routes:
                yield Finding(
                    UNUSED_RULE, one.place, f"{pattern.text} matches no route{_hint(pattern, all_methods)}"
                )
            elif one.methods and not any(one.methods & all_methods[route] for route in routes):
                methods = ", ".join(sorted(one.methods - {"HEAD"} or one.methods))
                yield Finding(UNUSED_RULE, one.place, f"no route that {pattern.text} matches takes {methods}")


def _hint(pattern: RoutePattern, routes: Iterable[str]) -> str:
    """Say which route was probably meant: the same with other variables, or another slash at the end."""

    def shape(text: str) -> tuple[str, ...]:
        segments = RoutePattern.parse(text).segments if text.startswith("/") else (text,)
        return tuple("<>" if "<" in part else part for part in segments if part)

    try:
        near = next((route for route in routes if shape(route) == shape(pattern.text)), "")
    except ValueError:
        near = ""
    return f": did you mean {near}?" if near else ""


# --- data --------------------------------------------------------------------------------------------------


def _meaning_data(found: Resolved) -> dict[str, Any]:
    classes = str(found.attributes.get("audit.data_classes", ""))
    return {
        "action": found.action,
        "resource": _reference_data(found.resource_type, found.resource),
        "subject": _reference_data(found.subject_type, found.subject) if _named(found.subject) else None,
        "data_classes": classes.split(",") if classes else [],
        "severity": found.attributes.get("audit.severity"),
        "retention_class": found.attributes.get("audit.retention_class"),
        "outcome": found.outcome or None,
        "failure_reason": found.failure_reason or None,
    }


def _named(reference: Reference) -> bool:
    return bool(reference.variable or reference.pointer)


def _reference_data(kind: str, reference: Reference) -> dict[str, Any]:
    place = {"variable": reference.variable} if reference.variable else None
    return {"type": kind or None, "id": {"response": reference.pointer} if reference.pointer else place}
