"""What the name of a route's variable says of the thing that its value stands for: `bill_id` is of a bill.

Where a word stands before the variable, that word is the type, and this is not asked.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .words import plain, singular

__all__ = ["is_id", "is_locale", "is_parameter", "is_query", "is_spoken", "kind_of", "noun_of"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ID = re.compile(r"(?P<thing>.+)_(?:guid|id|name|no|nr|number|pk|slug|uid|uuid)")
_UNTYPED = _set(
    """anyname data dummy guid handle id ident identifier key label name no nr num number obj object object_id obj_id
    payload pk record_id ref resource_id slug title uuid value"""
)
_SPOKEN = _set("label name slug title")
_SHORT = re.compile(r"_|[a-z]|[a-z]{1,2}id")
"""`pid` may be of a patient, a post or a project: it is of no type by itself."""

_KINDS = {
    **dict.fromkeys(
        _set(
            """any_path catch_all catchall page_name page_path page_slug page_url pagename pagepath path permalink route
            sub_path subpath url url_path"""
        ),
        "page",
    ),
    **dict.fromkeys(_set("file_name file_path filename filepath fname"), "file"),
    **dict.fromkeys(_set("account_name account_no account_number accountid"), "account"),
    **dict.fromkeys(_set("login_name user_name userid username"), "user"),
}

_LOCALES = _set("lang lang_code language language_code lc lng locale")
_QUERIES = _set("keyword keywords phrase q query search search_term term text")
_PARAMETERS = (
    _LOCALES
    | _QUERIES
    | _set(
        """action algorithm amount any begin col column count date day direction end endpoint enabled ext extension
        field fmt force format height hour index interval kind level limit lat lng lon method mode month n of
        offset on op option order page_no page_num page_number param params period position quality range rev revision
        section size sort sort_by sort_order source start state status step style tab target time timestamp to type
        until value variant ver version view week width year"""
    )
)
"""What says how or when something is done, not to which thing."""
_NOT_A_THING = _set("any code display family first full given last middle new nick old own pen short")
"""With `_name` these are no thing's name: `first_name`."""


@lru_cache(maxsize=1024)
def kind_of(variable: str) -> str:
    """Return the type that a variable says by its form (`bill_id`, `project_slug`, `filename`); else empty."""
    name = plain(variable)
    if name in _KINDS:
        return _KINDS[name]
    found = _ID.fullmatch(name)
    if not found or name in _UNTYPED or is_parameter(name):
        return ""
    thing = found["thing"].strip("_")
    if not thing or thing in _NOT_A_THING or _SHORT.fullmatch(thing):
        return ""
    return singular(thing)


def noun_of(variable: str) -> str:
    """Return the type that a variable says by its form or by being a noun (`<project>`); else empty."""
    if kind := kind_of(variable):
        return kind
    name = plain(variable)
    return "" if is_id(name) or is_parameter(name) else singular(name)


def is_id(variable: str) -> bool:
    """Say whether a variable is an id that does not say of what: `id`, `slug`, `pid`."""
    name = plain(variable)
    return not name or name in _UNTYPED or (_SHORT.fullmatch(name) is not None and name not in _PARAMETERS)


def is_spoken(variable: str) -> bool:
    """Say whether a variable after an id may only repeat it in words: `/<post_id>/<slug>`."""
    return plain(variable) in _SPOKEN


def is_parameter(variable: str) -> bool:
    """Say whether a variable says how something is done, or in which part: `format`, `revision`, `lang`."""
    name = plain(variable)
    first, _, last = name.rpartition("_")
    return name in _PARAMETERS or last in _PARAMETERS - _QUERIES or (last == "name" and first in _PARAMETERS)


def is_locale(variable: str) -> bool:
    """Say whether a variable is a language."""
    return plain(variable) in _LOCALES


def is_query(variable: str) -> bool:
    """Say whether a variable is what somebody searches for."""
    return plain(variable) in _QUERIES
