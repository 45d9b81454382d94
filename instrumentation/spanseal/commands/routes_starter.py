"""A rules file to begin with: every route with what the defaults make of it, and what there is to decide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from spanseal.errors import ConfigurationError
from spanseal.meaning.rules_pattern import RoutePattern, without_converters

from .routes_report import NO_RESOURCE_ID, Report, RouteLine

__all__ = ["starter"]

_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
_PLAIN = re.compile(r"/[A-Za-z0-9_/<>:.~-]*(?<!:)")
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
    parts = [part for lines in _together(report.routes) for part in _rule(lines)]
    if all(part.lstrip().startswith("#") for part in parts if part):
        return "\n".join([_HEAD.rstrip("\n") + " []", *parts]) + "\n"
    return _HEAD + "\n".join(parts) + "\n"


def _together(lines: Iterable[RouteLine]) -> list[list[RouteLine]]:
    """Put the methods of a route that mean the same together, in an order in which no rule hides another."""
    together: dict[tuple[object, ...], list[RouteLine]] = {}
    # `<pid>` in a rule stands for `<int:pid>` too, so that one has to come before it.
    for line in sorted(lines, key=lambda line: (without_converters(line.route), ":" not in line.route)):
        able = _METHOD.fullmatch(line.method) is not None
        said = (line.resolved.action, line.resolved.resource, line.resolved.subject, line.source == "@action")
        together.setdefault((line.route, able, *said), []).append(line)
    return list(together.values())


def _rule(lines: list[RouteLine]) -> Iterator[str]:
    line = lines[0]
    resource, subject, kind = line.resolved.resource, line.resolved.subject, line.resolved.resource_type
    yield ""
    yield f"  # {_comment(', '.join(dict.fromkeys(one.endpoint for one in lines)))}"
    for gap in dict.fromkeys(gap for one in lines for gap in one.gaps):
        yield f"  # {gap.kind}: {_comment(gap.text)}"
    route = _route(line.route)
    methods = [one.method for one in lines]
    if not route or _METHOD.fullmatch(line.method) is None:
        yield f"  # a rule cannot name this route: {_comment(' '.join([*methods, line.route]))}"
        return
    method = f"[{', '.join(methods)}]" if len(methods) > 1 else methods[0]
    if line.source == "@action":
        yield f"  # @action says what it is: {line.resolved.action}"
        yield f"  # - route: {route}"
        yield f"  #   method: {method}"
        return
    yield f"  - route: {route}"
    yield f"    method: {method}"
    yield f"    action: {line.resolved.action}"
    if resource.variable and kind:
        yield f"    resource: {{type: {kind}, id: {resource.variable}}}"
    elif any(gap.kind == NO_RESOURCE_ID for one in lines for gap in one.gaps):
        yield f"    # resource: {{type: {kind or '…'}, id: {{response: /id}}}}"
    if subject.variable and line.resolved.subject_type:
        yield f"    subject: {{type: {line.resolved.subject_type}, id: {subject.variable}}}"


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
