"""What requests mean to one application: its own rules, and where they are silent, the defaults.

Rules are asked in their order, and each key is taken from the first that matches and has it. Only the route's template,
the method and the status count, of which there are few: what they come to is worked out once and then remembered.

A request is skipped if the first rule that matches it says so, whatever status it has. So a rule that skips everything
may stand at the end: it takes nothing from the rules before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from spanseal.errors import ConfigurationError

from .mapping import KNOWN_METHODS, Meaning, map_request, plan_of, value_text
from .rules_file import Reference, Rule, read

__all__ = ["DEFAULTS", "Resolved", "Rules", "load_rules"]

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a method on a route with a status means, with the names of the values that complete it."""

    action: str
    resource_type: str = ""
    resource: Reference = field(default_factory=Reference)
    subject_type: str = ""
    subject: Reference = field(default_factory=Reference)
    outcome: str = ""
    failure_reason: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    """By which rule (`file:line`) or default each key is said."""

    @property
    def pointers(self) -> tuple[str, ...]:
        """What is looked for in the answer."""
        found = (self.resource.pointer, self.subject.pointer)
        return tuple(sorted({pointer for pointer in found if pointer}))


class Rules:
    """The rules of one application."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        """Take rules in the order in which they are to be asked."""
        self.rules = tuple(rules)
        # What clients send as a method is without bounds.
        self._methods = KNOWN_METHODS.union(*(rule.methods for rule in self.rules))
        self._status_counts = any(rule.statuses for rule in self.rules)
        self._in_answers = any(
            reference is not None and reference.pointer
            for rule in self.rules
            for reference in (rule.resource, rule.subject)
        )
        self._resolve = lru_cache(maxsize=1 << 14)(self._resolve_new)
        self._skipping = lru_cache(maxsize=1 << 14)(self._skipping_new)

    def meaning(
        self,
        method: str,
        route: str | None,
        view_args: Mapping[str, object] | None = None,
        status: int = 0,
        answer: Mapping[str, str] = _NOTHING,
    ) -> Meaning:
        """Say what a request meant.

        Args:
            method: Of HTTP, upper case.
            route: The route's template, None where no route was found.
            view_args: The values of its variables.
            status: Of the answer, 0 where there is none yet.
            answer: What was found in the answer, by the pointers that `pointers` gave.
        """
        if not self.rules:
            return map_request(method, route, view_args)
        found = self.resolved(method, route, status)
        values = view_args or {}
        subject_id = _id(found.subject, values, answer)
        return Meaning(
            found.action,
            found.resource_type,
            _id(found.resource, values, answer),
            found.subject_type if subject_id else "",
            subject_id,
            # Nothing has come out yet where there is no status.
            found.outcome if status else "",
            found.failure_reason if status else "",
            found.attributes,
        )

    def skips(self, method: str, route: str | None) -> str:
        """Say why a request is not to be recorded; empty where it is."""
        rule = self.skipped_by(method, route)
        return rule.skip if rule is not None else ""

    def skipped_by(self, method: str, route: str | None) -> Rule | None:
        """Return the rule that says that a request is not to be recorded, if there is one."""
        return self._skipping(self._known(method), route) if self.rules else None

    def pointers(self, method: str, route: str | None, status: int) -> tuple[str, ...]:
        """Say which values of a JSON answer are wanted, as JSON pointers."""
        return self.resolved(method, route, status).pointers if self._in_answers else ()

    def resolved(self, method: str, route: str | None, status: int = 0) -> Resolved:
        """Say what all requests of a method on a route with a status have in common. Arguments as of `meaning`."""
        return self._resolve(self._known(method), route, status if self._status_counts else 0)

    def matching(self, method: str, route: str | None) -> list[Rule]:
        """Return the rules that hold for a method on a route, those included that ask for a status."""
        return [rule for rule in self.rules if rule.holds_for(method, route)]

    def _known(self, method: str) -> str:
        return method if method in self._methods else ""

    def _skipping_new(self, method: str, route: str | None) -> Rule | None:
        first = next(iter(self.matching(method, route)), None)
        return first if first is not None and first.skip else None

    def _resolve_new(self, method: str, route: str | None, status: int) -> Resolved:
        chosen: dict[str, Rule] = {}
        for rule in self.matching(method, route):
            if not rule.statuses or status in rule.statuses:
                for key in rule.said:
                    chosen.setdefault(key, rule)
        plan = plan_of(method, route)

        def text(key: str, otherwise: str = "") -> str:
            return str(getattr(chosen[key], key)) if key in chosen else otherwise

        resource = chosen["resource"].resource if "resource" in chosen else None
        subject = chosen["subject"].subject if "subject" in chosen else None
        attributes: dict[str, object] = {}
        if "data_classes" in chosen:
            attributes["audit.data_classes"] = ",".join(chosen["data_classes"].data_classes)
        for key in ("severity", "retention_class"):
            if key in chosen:
                attributes[f"audit.{key}"] = text(key)
        return Resolved(
            action=text("action", plan.action),
            resource_type=(resource.type if resource is not None else "") or plan.resource_type,
            resource=_or_default(resource, plan.variable),
            subject_type=(subject.type if subject is not None else "") or plan.subject_type,
            subject=_or_default(subject, plan.subject_variable),
            outcome=text("outcome"),
            failure_reason=text("failure_reason"),
            attributes=attributes,
            sources={
                **dict.fromkeys(("action", "resource"), f"default: {plan.source}"),
                **{key: rule.place for key, rule in chosen.items()},
            },
        )


def _or_default(said: Reference | None, variable: str) -> Reference:
    """Return where an id comes from: a rule that gives a type alone leaves it to the default."""
    if said is None or not (said.variable or said.pointer or said.no_id):
        return Reference(variable=variable)
    return said


def _id(reference: Reference, values: Mapping[str, object], answer: Mapping[str, str]) -> str:
    if reference.pointer:
        return answer.get(reference.pointer, "")
    return value_text(values.get(reference.variable)) if reference.variable else ""


DEFAULTS = Rules()


def load_rules(path: Path | None) -> Rules:
    """Read a rules file; None for the defaults alone.

    Raises:
        ConfigurationError: It cannot be read, or something in it is wrong; the line is named.
    """
    if path is None:
        return DEFAULTS
    try:
        return Rules(read(path).rules)
    except ConfigurationError as error:
        raise ConfigurationError(f"the rules file (SPANSEAL_RULES) cannot be used:\n{error}") from None
