"""What a view says that it does: read before the rules, without a record of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from spanseal.api.checks import check_action, check_attributes
from spanseal.errors import InvalidRecord
from spanseal.wire import clean

from .mapping import Meaning

__all__ = ["Mark", "action", "of"]

_ATTRIBUTE = "__spanseal_action__"
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_IN_BRACES = re.compile(r"\{([A-Za-z_]\w*)\}")
_FORWARD = {"HEAD": "GET"}
"""Methods that a view answers as another one."""
_MOST_WRAPPERS = 100

_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Mark:
    """What `@action` says of a view."""

    action: str
    resource_type: str = ""
    resource_id: str = ""
    """A template over the route's variables: `{invoice_id}`."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    methods: frozenset[str] | None = None
    """The methods of HTTP that it is about; None for all but OPTIONS."""

    def fits(self, method: str) -> bool:
        """Say whether it is about this method of HTTP, upper case."""
        method = _FORWARD.get(method, method)
        return method != "OPTIONS" if self.methods is None else method in self.methods

    def resource_id_in(self, values: Mapping[str, str]) -> str:
        """Return the id with the route's values; empty where one of them is missing."""
        names = _IN_BRACES.findall(self.resource_id)
        if not all(values.get(name) for name in names):
            return ""
        return _IN_BRACES.sub(lambda found: values[found[1]], self.resource_id)

    def over(self, meaning: Meaning, values: Mapping[str, str]) -> Meaning:
        """Return what a request meant, with what this says in the place of what was found otherwise."""
        return replace(
            meaning,
            action=self.action,
            resource_type=self.resource_type,
            resource_id=self.resource_id_in(values) if self.resource_id else meaning.resource_id,
            attributes={**meaning.attributes, **self.attributes},
        )


def action(
    action: str,
    *,
    resource_type: str = "",
    resource_id: str = "",
    attributes: Mapping[str, object] | None = None,
    methods: Iterable[str] | None = None,
) -> Callable[[_View], _View]:
    """Mark a view with what its requests do. Their records take it, before what rules say and after `annotate()`.

    It makes no record by itself, and returns the view as it is. It can stand anywhere among other decorators, as long
    as these use `functools.wraps`; on view classes, and on their methods, which go first.

    Args:
        action: `<resource>.<verb>`, as of `record()`.
        resource_type: To what kind of thing; that of the action where empty.
        resource_id: The name of a variable of the route, or several in a template: `{order}/{line}`.
        attributes: More for the record, as of `record()`.
        methods: The methods of HTTP that it is about; all but OPTIONS, where not given. Use it several times on a view
            that does several things.

    Raises:
        InvalidRecord: An argument is none that a record can hold.
    """
    check_action(action)
    check_attributes(attributes or {})
    if isinstance(methods, str):
        raise InvalidRecord("methods is a list of names, such as ['POST']")
    template = clean(resource_id, "resource_id")
    if template and "{" not in template:
        if not _VARIABLE.fullmatch(template):
            raise InvalidRecord(
                f"resource_id {template[:64]!r} is neither the name of a variable nor a template"
            )
        template = f"{{{template}}}"
    if template and (not _IN_BRACES.search(template) or set("{}") & set(_IN_BRACES.sub("", template))):
        raise InvalidRecord(
            f"resource_id {template[:64]!r} is no template: write variables in braces, and nothing else"
        )
    mark = Mark(
        action,
        clean(resource_type, "resource_type") or action.partition(".")[0],
        template,
        dict(attributes or {}),
        frozenset(name.upper() for name in methods) if methods is not None else None,
    )

    def decorate(view: _View) -> _View:
        try:
            setattr(view, _ATTRIBUTE, (mark, *getattr(view, _ATTRIBUTE, ())))
        except AttributeError:
            raise InvalidRecord(
                f"{type(view).__name__} objects cannot be marked: mark the function itself"
            ) from None
        return view

    return decorate


def of(view: object, method: str = "GET") -> Mark | None:
    """Return the mark of a view for one method of HTTP.

    Args:
        view: What is registered for a route: a function, also one that was made of a view class by `as_view`.
        method: Upper case.
    """
    cls = _view_class(view)
    places: list[object] = []
    if cls is not None:
        name = _FORWARD.get(method, method).lower()
        handler = getattr(cls, method.lower(), None) or getattr(cls, name, None)
        places += [handler, getattr(cls, "dispatch_request", None)]
    places.append(view)
    if cls is not None:
        places.append(cls)
    for place in places:
        if (mark := _on(place, method)) is not None:
            return mark
    return None


def _on(place: object, method: str) -> Mark | None:
    # functools.wraps copies attributes outwards; a wrapper without it may still say what it wraps.
    for _ in range(_MOST_WRAPPERS):
        if place is None:
            return None
        for mark in getattr(place, _ATTRIBUTE, ()):
            if isinstance(mark, Mark) and mark.fits(method):
                return mark
        place = _inner(place)
    return None


def _view_class(view: object) -> object | None:
    for _ in range(_MOST_WRAPPERS):
        found = getattr(view, "view_class", None)
        if found is not None or view is None:
            return found
        view = _inner(view)
    return None


def _inner(function: object) -> object:
    if isinstance(function, functools.partial):
        return function.func
    return getattr(function, "__wrapped__", None)
