"""A rules file to begin with: every route with what the defaults make of it, and what there is to decide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from .errors import ConfigurationError
from .routes_report import NO_RESOURCE_ID, Report, RouteLine
from .rules_pattern import RoutePattern

__all__ = ["starter"]

_PLAIN = re.compile(r"/[A-Za-z0-9_/<>.~-]*")
_HEAD = """\
# What the requests of this application mean: see docs/rules.md. This file changes nothing as it stands: each rule says
# what the default says. Change what is not right, add what only you know, and leave out the rules that say nothing new.
#
#   data_classes: [phi]          phi, chd, pii, and others of your own, for routes that show or change such data
#   severity: high               info, low, medium, high, critical
#   retention_class: hipaa       a name that whoever keeps the log knows
#   skip: the reason             instead of everything else: such requests are not recorded
#
# Set SPANSEAL_RULES to the path of this file. `spanseal routes APP --rules FILE` shows what comes out.
version: 1
rules:
"""


def starter(report: Report) -> str:
    """Write a rules file that says what a report without rules says.

    Raises:
        ConfigurationError: There is no route to write a rule for.
    """
    if not report.routes:
        raise ConfigurationError("the application has no routes: there is nothing to write")
    parts = [part for line in sorted(report.routes, key=_exact_first) for part in _rule(line)]
    if all(part.lstrip().startswith("#") for part in parts if part):
        return "\n".join([_HEAD.rstrip("\n") + " []", *parts]) + "\n"
    return _HEAD + "\n".join(parts) + "\n"


def _exact_first(line: RouteLine) -> tuple[bool, str]:
    # `<pid>` in a rule stands for `<int:pid>` too, so that one has to come before it.
    return ":" not in line.route, line.route


def _rule(line: RouteLine) -> Iterator[str]:
    yield ""
    yield f"  # {_comment(line.endpoint)}"
    for gap in line.gaps:
        yield f"  # {gap.kind}: {_comment(gap.text)}"
    route = _route(line.route)
    method = line.method if re.fullmatch(r"[A-Z]+(-[A-Z]+)*", line.method) else ""
    if not (route and method):
        yield f"  # a rule cannot name this route: {_comment(line.method)} {_comment(line.route)}"
        return
    marked = line.source == "@action"
    begin = "  # - " if marked else "  - "
    indent = "  #   " if marked else "    "
    if marked:
        yield f"  # @action says it: {line.resolved.action}"
    yield f"{begin}route: {route}"
    yield f"{indent}method: {method}"
    if not marked:
        yield f"{indent}action: {line.resolved.action}"
        resource, subject = line.resolved.resource, line.resolved.subject
        kind = line.resolved.resource_type
        if resource.variable and kind:
            yield f"{indent}resource: {{type: {kind}, id: {resource.variable}}}"
        elif any(gap.kind == NO_RESOURCE_ID for gap in line.gaps):
            yield f"    # resource: {{type: {kind or '…'}, id: {{response: /id}}}}"
        if subject.variable and line.resolved.subject_type:
            yield f"{indent}subject: {{type: {line.resolved.subject_type}, id: {subject.variable}}}"


def _route(route: str) -> str:
    """Return a route as YAML; empty where a rule cannot name it."""
    try:
        exact = RoutePattern.parse(route).fixed
    except ValueError:
        exact = False
    if not exact or not route.isprintable():
        return ""
    return route if _PLAIN.fullmatch(route) else json.dumps(route, ensure_ascii=False)


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
