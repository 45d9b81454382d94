"""The rules file: what an application says its requests mean, read and checked before anything follows it.

Its form is described in docs/rules.md. Nothing here decides about a request: see `rules`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spanseal.errors import ConfigurationError

from .mapping import KNOWN_METHODS, is_credential, wrong_action
from .rules_pattern import RoutePattern, variables
from .yaml_schema import Document, Node

__all__ = ["Reference", "Rule", "RulesFile", "read"]

SEVERITIES = ("info", "low", "medium", "high", "critical")
OUTCOMES = ("success", "failure", "unknown")
MAX_RULES = 1000

_KEYS = (
    "route",
    "method",
    "status",
    "action",
    "resource",
    "subject",
    "outcome",
    "failure_reason",
    "data_classes",
    "severity",
    "retention_class",
    "skip",
)
_WHERE = ("route", "method", "status")
_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
_STATUS = re.compile(r"[1-5](xx|[0-9]{2})")
_CLASS = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Reference:
    """What a request was about: a resource, or the subject that it belongs to."""

    type: str = ""
    """Empty for what the default says."""
    variable: str = ""
    """The route's variable whose value is the id."""
    pointer: str = ""
    """Where the id stands in the JSON of the answer (RFC 6901)."""
    no_id: bool = False
    """Whether there is none, whatever the default says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. What is empty is not said: the next rule that matches is asked."""

    place: str
    """`file:line`."""
    routes: tuple[RoutePattern, ...] = ()
    """Empty for every request, also one without a route."""
    methods: frozenset[str] = frozenset()
    """Empty for all. HEAD is there where GET is: it is the same without a body."""
    statuses: frozenset[int] = frozenset()
    """Empty for all."""
    action: str = ""
    resource: Reference | None = None
    subject: Reference | None = None
    outcome: str = ""
    failure_reason: str = ""
    data_classes: tuple[str, ...] = ()
    severity: str = ""
    retention_class: str = ""
    skip: str = ""
    """Why such requests are not recorded; empty where they are."""

    def holds_for(self, method: str, route: str | None) -> bool:
        """Say whether this rule is about a method on a route; its statuses are not asked."""
        return (not self.methods or method in self.methods) and (
            not self.routes or any(pattern.matches(route) for pattern in self.routes)
        )

    @property
    def said(self) -> frozenset[str]:
        """The keys that it has, without those that say when it holds."""
        return frozenset(key for key in _KEYS if key not in _WHERE and getattr(self, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesFile:
    """A rules file that was read and found right."""

    document: Document
    rules: tuple[Rule, ...] = ()
    privileged: Node | None = None
    """The section `privileged` as it stands there; None where there is none."""


Section = Callable[[Document, Node], object]
"""Looks at a section of its own; what is wrong there it tells the document."""


def read(path: Path, privileged: Section | None = None) -> RulesFile:
    """Read a rules file.

    Args:
        path: Where it is.
        privileged: Looks at the section `privileged`, so that what is wrong there is named with all the rest. Without
            it that section is handed on unseen.

    Raises:
        ConfigurationError: It cannot be read, or something in it is wrong: all of it is named, each as
            `file:line:column`.
    """
    document = Document(path)
    if document.root is None:
        raise ConfigurationError(
            f"{path} is empty: write `version: 1` and `rules:`, or set no SPANSEAL_RULES"
        )
    top = document.mapping(document.root, "the rules file", ("version", "rules", "privileged"), ("version",))
    if "version" in top:
        document.whole(top["version"], "the version", 1, 1)
    nodes = document.items(top["rules"], "`rules`") if "rules" in top else []
    if len(nodes) > MAX_RULES:
        document.wrong(nodes[MAX_RULES], f"more than {MAX_RULES} rules: say more with * and **")
        nodes = nodes[:MAX_RULES]
    rules: list[Rule] = []
    understood: list[tuple[Node, Rule]] = []
    for node in nodes:
        before = len(document.problems)
        rules.append(_RuleReader(document, node).rule())
        if len(document.problems) == before:
            understood.append((node, rules[-1]))
    _name_unreachable(document, understood)
    section = top.get("privileged")
    if section is not None and privileged is not None:
        privileged(document, section)
    document.check()
    return RulesFile(document=document, rules=tuple(rules), privileged=section)


@dataclass(slots=True)
class _RuleReader:
    """Reads one rule; what is wrong goes to the document."""

    document: Document
    node: Node
    keys: Mapping[str, Node] = field(default_factory=dict)

    def rule(self) -> Rule:
        self.keys = self.document.mapping(self.node, "a rule", _KEYS)
        routes = self._routes()
        said = [key for key in self.keys if key not in _WHERE]
        if self.keys and not said:
            self.document.wrong(self.node, "this rule says nothing: write what such requests mean, or skip")
        if "skip" in self.keys:
            for key in self.keys:
                if key not in ("route", "method", "skip"):
                    self.document.wrong(
                        self.keys[key], f"`skip` stands alone with route and method: leave out `{key}`"
                    )
        outcome = self._choice("outcome", OUTCOMES)
        if "failure_reason" in self.keys and outcome in ("success", "unknown"):
            self.document.wrong(
                self.keys["failure_reason"], f"a failure_reason goes with outcome: failure, not {outcome}"
            )
        return Rule(
            place=self.document.line(self.node),
            routes=routes,
            methods=self._methods(),
            statuses=self._statuses(),
            action=self._action(),
            resource=self._reference("resource", routes),
            subject=self._reference("subject", routes),
            outcome=outcome,
            failure_reason=self._text("failure_reason"),
            data_classes=self._data_classes(),
            severity=self._choice("severity", SEVERITIES),
            retention_class=self._class("retention_class"),
            skip=self._text("skip", "the reason to skip"),
        )

    # --- when it holds -----------------------------------------------------------------------------

    def _routes(self) -> tuple[RoutePattern, ...]:
        found: list[RoutePattern] = []
        for node, text in self._each("route"):
            try:
                pattern = RoutePattern.parse(text)
            except ValueError as error:
                self.document.wrong(node, f"`{text}` is no route: {error}")
                continue
            found.append(pattern)
        return tuple(found)

    def _methods(self) -> frozenset[str]:
        found = []
        for node, text in self._each("method"):
            near = [] if text in KNOWN_METHODS else difflib.get_close_matches(text.upper(), KNOWN_METHODS, 1)
            if near:
                self.document.wrong(node, f"`{text}` is no method: did you mean {near[0]}?")
            elif not _METHOD.fullmatch(text):
                self.document.wrong(node, f"`{text}` is no method: write it in capitals, such as GET")
            found.append(text)
        return frozenset([*found, "HEAD"] if "GET" in found else found)

    def _statuses(self) -> frozenset[int]:
        if "status" not in self.keys:
            return frozenset()
        found: set[int] = set()
        for node in self.document.one_or_more(self.keys["status"], "the status"):
            text = str(node.value) if not isinstance(node.value, list) else ""
            if not _STATUS.fullmatch(text):
                self.document.wrong(
                    node, f"the status is {self.document.shown(node)}: write 404, 2xx, or a list of such"
                )
                continue
            least, count = (int(text[0]) * 100, 100) if text.endswith("xx") else (int(text), 1)
            new = set(range(least, least + count))
            if new <= found:
                self.document.wrong(node, f"the status {text} is there twice: write it once")
            found |= new
        return frozenset(found)

    def _each(self, key: str) -> list[tuple[Node, str]]:
        """The texts of a key that may hold one or a list of them, each once."""
        found: dict[str, Node] = {}
        for node in self.document.one_or_more(self.keys[key], f"the {key}") if key in self.keys else []:
            text = self.document.text(node, f"the {key}")
            if text is None:
                continue
            if text in found:
                self.document.wrong(node, f"`{text}` is there twice: write it once")
            else:
                found[text] = node
        return [(node, text) for text, node in found.items()]

    # --- what it says ------------------------------------------------------------------------------

    def _text(self, key: str, what: str = "") -> str:
        if key not in self.keys:
            return ""
        text = self.document.text(self.keys[key], what or f"the {key}") or ""
        if len(text) > _MAX_TEXT:
            self.document.wrong(self.keys[key], f"the {key} is longer than {_MAX_TEXT} characters")
        return text

    def _choice(self, key: str, allowed: tuple[str, ...]) -> str:
        if key not in self.keys:
            return ""
        return self.document.choice(self.keys[key], f"the {key}", allowed) or ""

    def _action(self) -> str:
        action = self._text("action")
        if action and (wrong := wrong_action(action)):
            self.document.wrong(self.keys["action"], f"the action `{action}` {wrong}")
        return action

    def _data_classes(self) -> tuple[str, ...]:
        for node, text in (found := self._each("data_classes")):
            self._check_class(node, "data class", text)
        return tuple(sorted(text for _, text in found))

    def _class(self, key: str) -> str:
        if text := self._text(key):
            self._check_class(self.keys[key], key, text)
        return text

    def _check_class(self, node: Node, what: str, text: str) -> None:
        if not _CLASS.fullmatch(text):
            self.document.wrong(
                node,
                f"the {what} `{text}` is no name in lower case (a-z, 0-9, _ . -): write something like phi",
            )

    def _reference(self, key: str, routes: tuple[RoutePattern, ...]) -> Reference | None:
        if key not in self.keys:
            return None
        required = ("type", "id") if key == "subject" else ()
        parts = self.document.mapping(self.keys[key], f"the {key}", ("type", "id"), required)
        if not parts:
            if not self.keys[key].value and not required:
                self.document.wrong(self.keys[key], f"the {key} says nothing: write {{type: …, id: …}}")
            return None
        kind = (self.document.text(parts["type"], f"the {key}'s type") or "") if "type" in parts else ""
        if len(kind) > _MAX_TEXT:
            self.document.wrong(parts["type"], f"the {key}'s type is longer than {_MAX_TEXT} characters")
        if "id" not in parts:
            return Reference(kind)
        return self._id(parts["id"], key, kind, routes)

    def _id(self, node: Node, key: str, kind: str, routes: tuple[RoutePattern, ...]) -> Reference:
        what = f"the {key}'s id"
        if not isinstance(node.value, list):
            variable = self.document.text(node, what, empty=True)
            if variable:
                self._check_variable(node, variable, routes, secret=True)
            return Reference(kind, variable=variable or "", no_id=variable == "")
        parts = self.document.mapping(node, what, ("variable", "response", "secret"))
        sources = [name for name in ("variable", "response") if name in parts]
        if len(sources) != 1:
            self.document.wrong(
                node, f"{what} comes from one place: write a variable's name, or {{response: /id}}"
            )
            return Reference(kind)
        secret = self.document.flag(parts["secret"], "secret") if "secret" in parts else True
        value = self.document.text(parts[sources[0]], what) or ""
        if value and sources[0] == "variable":
            self._check_variable(parts["variable"], value, routes, secret=secret is not False)
            return Reference(kind, variable=value)
        if value:
            self._check_pointer(parts["response"], value, secret=secret is not False)
        return Reference(kind, pointer=value)

    def _check_variable(
        self, node: Node, name: str, routes: tuple[RoutePattern, ...], *, secret: bool
    ) -> None:
        for route in routes:
            if route.fixed and name not in (known := variables(route.text)):
                there = f"it has {', '.join(known)}" if known else "it has none"
                near = difflib.get_close_matches(name, known, 1)
                hint = f": did you mean `{near[0]}`?" if near else f": {there}"
                self.document.wrong(node, f"the route {route.text} has no variable `{name}`{hint}")
        if secret and is_credential(name):
            self.document.wrong(
                node,
                f"`{name}` is named like a credential, and those are not recorded: "
                f"if its values are none, write {{variable: {name}, secret: false}}",
            )

    def _check_pointer(self, node: Node, pointer: str, *, secret: bool) -> None:
        if not _POINTER.fullmatch(pointer):
            self.document.wrong(
                node,
                f"`{pointer}` is no JSON pointer (RFC 6901): write the way to the value, such as /data/id",
            )
        elif secret and is_credential(name := pointer.rpartition("/")[2]):
            self.document.wrong(
                node,
                f"`{name}` is named like a credential, and those are not recorded: "
                f"if its values are none, write {{response: {pointer}, secret: false}}",
            )


def _name_unreachable(document: Document, rules: list[tuple[Node, Rule]]) -> None:
    """Name the rules that are never asked, or have nothing left to say when they are."""
    for at, (node, rule) in enumerate(rules):
        in_the_way = _in_the_way(rule, [other for _, other in rules[:at]])
        if in_the_way is not None:
            document.wrong(
                node,
                f"this rule is never reached: the one in line {in_the_way.place.rpartition(':')[2]} "
                "holds for all of its requests and says the same keys; put this one before it, or leave it out",
            )


def _in_the_way(rule: Rule, earlier: list[Rule]) -> Rule | None:
    """Return a rule that leaves nothing of this one, if there are such for each of its routes and keys."""
    found = None
    for route in rule.routes or (None,):
        for key in rule.said:
            found = next((other for other in earlier if _hides(other, rule, route, key)), None)
            if found is None:
                return None
    return found


def _hides(other: Rule, rule: Rule, route: RoutePattern | None, key: str) -> bool:
    if other.routes and (route is None or not any(one.covers(route) for one in other.routes)):
        return False
    if other.methods and not (rule.methods and rule.methods <= other.methods):
        return False
    if other.skip:
        return True
    if key == "skip":
        # A request is skipped by the first rule that matches, or not at all; its status comes too late.
        return True
    return key in other.said and (
        not other.statuses or bool(rule.statuses and rule.statuses <= other.statuses)
    )
