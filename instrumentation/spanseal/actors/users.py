"""An actor of what applications keep: an id, a mapping, a user object, a session."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from spanseal.throttle import Throttle

from .actor import MAX_TEXT, Actor
from .reading import first, fit, identity, is_expired, is_proxy, loaded, read, roles, text, word

__all__ = ["from_session", "from_value", "session_digest"]

logger = logging.getLogger("spanseal")

SESSION_ID_KEYS = (
    "_user_id",
    "user_id",
    "userid",
    "uid",
    "username",
    "user_name",
    "user",
    "account_id",
    "email",
)
"""Where a session's user is looked for, in this order. `_user_id` is Flask-Login's."""
OBJECT_ID_KEYS = ("id", "user_id", "sub", "username", "user_name", "name", "email")
"""Where the id of a user object or mapping is looked for, in this order."""
EMAIL_KEYS = ("email", "user_email")
NAME_KEYS = ("username", "user_name", "login", "name")

_SERVICE_FLAGS = ("is_service_account", "is_service")
_KINDS = {"service": "service", "service_account": "service", "system": "system"}

_SHORT = 256

_throttle = Throttle()


def from_value(value: object) -> Actor | None:
    """Make an actor of what a resolver or `flask.g` gave: an Actor, an id, a mapping or an object.

    Raises:
        Exception: Whatever the application's object raises where its id is asked for.
    """
    if value is None or is_proxy(value):
        return None
    if isinstance(value, Actor):
        return value
    if isinstance(value, str | int):
        found = text(value)
        # The same few hundred people come again and again; long texts would fill the memory.
        return None if not found else _named(found) if len(found) <= _SHORT else Actor(fit(found))
    identifier = _id(value)
    if not identifier:
        # An OpenID Connect client's token as it is often kept: who it is about stands one level deeper.
        inner = value.get("userinfo") if isinstance(value, Mapping) else None
        return from_value(inner) if isinstance(inner, Mapping) and "userinfo" not in inner else None
    return Actor(
        fit(identifier),
        type=_optional(kind_of, value) or "user",
        role=_optional(roles, value),
        email=_optional(_short, value, EMAIL_KEYS),
        name=_optional(_short, value, NAME_KEYS),
    )


@lru_cache(maxsize=512)
def _named(identifier: str) -> Actor:
    return Actor(fit(identifier))


def kind_of(source: object) -> str:
    """Return `service` or `system` where a user object or mapping says that it is one; else empty."""
    if any(read(source, flag) is True for flag in _SERVICE_FLAGS):
        return "service"
    return next((_KINDS[said] for key in ("type", "kind") if (said := word(read(source, key))) in _KINDS), "")


def from_session(session: object) -> Actor | None:
    """Read the well-known keys of a session, and no others."""
    if not isinstance(session, Mapping) or not session:
        return None
    with_access = getattr(session, "accessed", None)
    try:
        for key in SESSION_ID_KEYS:
            value = session.get(key)
            if isinstance(value, Mapping):
                if (actor := from_value(value)) is not None:
                    return replace(actor, role=actor.role or _optional(roles, session))
            elif identifier := text(value):
                return Actor(
                    fit(identifier),
                    role=_optional(roles, session),
                    email=_optional(_short, session, EMAIL_KEYS),
                    name=_optional(_short, session, NAME_KEYS),
                )
        return None
    finally:
        # Reading marks the session as accessed, which would add `Vary: Cookie` to the answer.
        if with_access is False:
            session.accessed = False  # type: ignore[attr-defined]  # seen just above


def session_digest(session: object) -> str:
    """Name a server-side session without giving its identifier away.

    A session kept by Flask-Session has a random `sid`, which is a credential: the record gets the
    first 16 bytes of its SHA-256 in hex. A signed-cookie session has no identifier: empty.
    """
    try:
        sid = getattr(session, "sid", None)
    except Exception:  # noqa: BLE001 - of a session interface of the application's
        return ""
    if not isinstance(sid, str) or not sid:
        return ""
    return hashlib.sha256(b"spanseal session\0" + sid.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _id(value: object) -> str:
    """The id of a user object or mapping; empty where it has none, or is nobody who has signed in."""
    if is_expired(value):
        # Even Flask-Login's methods would fetch it again.
        return first(value, OBJECT_ID_KEYS) or identity(value)
    if loaded(value) is not None:
        # Its own properties are not asked, but these two are what Flask-Login is about.
        authenticated = getattr(value, "is_authenticated", None)
    else:
        authenticated = read(value, "is_authenticated")
    if authenticated is False:
        return ""
    get_id: Any = None if isinstance(value, Mapping) else getattr(value, "get_id", None)
    identifier = text(get_id()) if callable(get_id) else ""
    return identifier or first(value, OBJECT_ID_KEYS)


def _short(source: object, names: Iterable[str]) -> str:
    found = first(source, names)
    return found if len(found) <= MAX_TEXT else ""


def _optional(reader: Callable[..., str], *arguments: object) -> str:
    """Read what is good to know: a user whose roles cannot be loaded now is still known by id."""
    try:
        return reader(*arguments)
    except Exception as error:
        if _throttle.due(f"{reader.__name__} {type(error).__name__}"):
            logger.warning("the user's role, e-mail address or name cannot be read", exc_info=True)
        return ""
