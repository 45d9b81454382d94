"""Reading what an application keeps of its users, without making it load or compute anything.

A user object of SQLAlchemy's is a door to the database: an attribute that is not loaded, or no more valid since the
last commit, is fetched when it is looked at. Of such objects only what they hold already is read, which is known from
their `__dict__`. A proxy of werkzeug's (`flask_login.current_user`) finds its object when it is touched, and may load
it: it is never touched. Of all other objects attributes are read; nothing is called but Flask-Login's `get_id()`.
"""

from __future__ import annotations

import enum
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from .actor import MAX_TEXT

__all__ = ["first", "fit", "identity", "is_expired", "is_proxy", "loaded", "read", "roles", "text", "word"]

ROLE_KEYS = ("role", "roles")
_MOST_ROLES = 1000
_STATE = "_sa_instance_state"


def is_proxy(value: object) -> bool:
    """Say whether a value is a proxy that may load what it stands for. `isinstance` would ask that."""
    return _kind(type(value)) == "proxy"


def _new_kind(of: type) -> str:
    local = sys.modules.get("werkzeug.local")  # not every application has it
    if local is not None and issubclass(of, local.LocalProxy):
        return "proxy"
    return "mapping" if issubclass(of, Mapping) else "object"


_kind: Callable[[type], str] = lru_cache(maxsize=512)(_new_kind)


def loaded(source: object) -> dict[str, Any] | None:
    """Return what an object of SQLAlchemy's holds, or None where it is no such object."""
    try:
        held = object.__getattribute__(source, "__dict__")
    except AttributeError:  # it has slots, or is a builtin
        return None
    return held if isinstance(held, dict) and _STATE in held else None


def is_expired(source: object) -> bool:
    """Say whether an object of SQLAlchemy's would be fetched again if it were looked at."""
    held = loaded(source)
    return held is not None and bool(getattr(held[_STATE], "expired_attributes", ()))


def identity(source: object) -> str:
    """Return the primary key of an object of SQLAlchemy's, which is known also when it is expired; or empty."""
    held = loaded(source)
    key = getattr(held[_STATE], "key", None) if held is not None else None
    values: tuple[object, ...] = key[1] if key else ()
    return ",".join(text(value) for value in values)


def read(source: object, name: str) -> Any:
    """Return an attribute of an object or a value of a mapping; None where there is none, or not without loading."""
    kind = _kind(type(source))
    if kind == "mapping":
        return source.get(name)  # type: ignore[attr-defined]  # as its class has it
    if kind == "proxy":
        return None
    held = loaded(source)
    if held is None:
        return getattr(source, name, None)
    if name in held:
        # What the application has changed and not yet stored is not what it acted upon.
        before = getattr(held[_STATE], "committed_state", {}).get(name, held[name])
        unknown = isinstance(before, enum.Enum) and type(before).__module__.startswith("sqlalchemy.")
        return held[name] if unknown else before
    for base in type(source).__mro__:
        if name in vars(base):
            found = vars(base)[name]
            # A property of a database object may look at what is not loaded.
            return None if hasattr(type(found), "__get__") else found
    return None


def text(value: object) -> str:
    """Return an id or a name as text; empty for what is none."""
    if isinstance(value, bool) or value is None:
        return ""
    # What a subclass makes of itself is not asked: an enumeration's member would name its class.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return (
            int.__repr__(value) if int.bit_length(value) <= 1024 else ""
        )  # Python refuses to write very long ones
    # uuid.UUID and database ids: their text is the id. Any other object's text could be anything.
    return str(value) if type(value).__name__ in ("UUID", "ObjectId") else ""


def first(source: object, names: Iterable[str]) -> str:
    """Return the first of some attributes or keys that holds a text; empty where none does."""
    return next((found for name in names if (found := text(read(source, name)))), "")


def fit(identifier: str) -> str:
    """Return an id that a record can hold: one that is too long becomes its digest, or its user could not be found."""
    if len(identifier) <= MAX_TEXT:
        return identifier
    return "sha256:" + hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()


def word(value: object) -> str:
    """Return a text or the name of an enumeration's member in lower case, for comparison."""
    name = text(value) if isinstance(value, str) else text(value.name) if isinstance(value, enum.Enum) else ""
    return name[:64].lower()


def roles(source: object, keys: Iterable[str] = ROLE_KEYS) -> str:
    """Return the roles of a user or a session, joined with commas; empty where none is said.

    Args:
        source: A user object or a mapping.
        keys: Where roles are looked for: texts, members of an enumeration, objects or mappings with a `name`, and
            lists or sets of these. What can be called is not called.
    """
    for key in keys:
        if joined := joined_roles(read(source, key)):
            return joined
    return _principal(source)


def joined_roles(value: object) -> str:
    """Join what one attribute or claim says of roles; empty where that is nothing."""
    if isinstance(value, str):
        names = [text(value)]
    elif isinstance(value, list | tuple | set | frozenset):
        # A name of several that holds a comma must not pass for two: `reader,admin` is no admin.
        listed = (_role(item).replace(",", "%2C") for item in islice(value, _MOST_ROLES))
        names = sorted({name for name in listed if name})
    else:
        names = [_role(value)]
    joined = ",".join(name for name in names if name)
    if len(joined) <= MAX_TEXT:
        return joined
    # Whole names, with a sign that there are more: a name cut short could be another role's.
    return joined[: joined.rfind(",", 0, MAX_TEXT - 2) + 1] + "…"


def _role(item: object) -> str:
    if is_proxy(item) or callable(item):
        return ""
    return text(item) or first(item, ("name",))


def _principal(source: object) -> str:
    """The roles that Flask-Principal's identity provides: needs with the method `role`."""
    provides = read(source, "provides") if _kind(type(source)) == "object" else None
    if not isinstance(provides, set | frozenset):
        return ""
    return joined_roles(
        [need[1] for need in provides if isinstance(need, tuple) and len(need) == 2 and need[0] == "role"]
    )
