"""Who did it: the actor, and where it is looked for.

The order is: what the application said with `set_actor()`, the configured resolver, Flask-Login's
user, `flask.g.user`, the session; else `anonymous`. An unverified token is never read.

Nothing here loads anything: Flask-Login's user is taken where the application has loaded it, and the
session where Flask has opened it, so that auditing adds no query and no `Vary: Cookie`.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ConfigurationError, InvalidRecord
from .throttle import Throttle

logger = logging.getLogger("spanseal")

MAX_TEXT = 4096
"""Characters of an actor's id, role, e-mail address or name."""

ACTOR_TYPES = ("user", "service", "system", "anonymous")
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
ROLE_KEYS = ("role", "roles")
EMAIL_KEYS = ("email", "user_email")
NAME_KEYS = ("username", "user_name", "login", "name")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with the role held at that moment."""

    id: str = ""
    type: str = "user"
    """`user`, `service`, `system` or `anonymous`."""
    role: str = ""
    """Several roles are joined with commas."""
    email: str = ""
    """Personal: can be erased later."""
    name: str = ""
    """The user's short name, for people who read the trail; personal as well."""

    def __post_init__(self) -> None:
        """Refuse what the collector would not admit.

        Raises:
            InvalidRecord: An unknown type, or a value that is not text or too long.
        """
        if self.type not in ACTOR_TYPES:
            raise InvalidRecord(f"actor type {self.type!r} is not one of {', '.join(ACTOR_TYPES)}")
        for name, value in (("id", self.id), ("role", self.role), ("email", self.email), ("name", self.name)):
            if not isinstance(value, str):
                raise InvalidRecord(f"the actor's {name} must be text, not {type(value).__name__}")
            if len(value) > MAX_TEXT:
                raise InvalidRecord(f"the actor's {name} has {len(value)} characters, the most is {MAX_TEXT}")


ANONYMOUS = Actor(type="anonymous")

_throttle = Throttle()

Resolver = Callable[[], object]


def load_resolver(name: str) -> Resolver:
    """Import the configured resolver.

    Args:
        name: `module:function`. The function takes nothing and runs in the request's context; it may
            return an `Actor`, an id, a mapping, a user object, or None for "I do not know".

    Raises:
        ConfigurationError: It cannot be imported.
    """
    module, _, function = name.partition(":")
    try:
        resolver = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"SPANSEAL_ACTOR_RESOLVER is {name!r}, which cannot be imported ({error}): write module:function"
        ) from error
    if not callable(resolver):
        raise ConfigurationError(f"SPANSEAL_ACTOR_RESOLVER is {name!r}, which is not callable")
    return resolver  # type: ignore[no-any-return]  # getattr gives Any


def resolve(resolver: Resolver | None, *, g: object, session: object) -> Actor | None:
    """Look for the actor in a request's context.

    Args:
        resolver: The configured one, or None.
        g: `flask.g`.
        session: The session that Flask has opened, or None.

    Returns:
        The actor, or None where nobody is known.
    """
    found = None
    if resolver is not None:
        found = _attempt(lambda: from_value(resolver()))
    if found is None and (user := getattr(g, "_login_user", None)) is not None:
        found = _attempt(lambda: _from_login(user))
    if found is None and (user := getattr(g, "user", None)) is not None:
        found = _attempt(lambda: from_value(user))
    if found is None and session is not None:
        found = _attempt(lambda: from_session(session))
    return found


def _attempt(source: Callable[[], Actor | None]) -> Actor | None:
    try:
        return source()
    except Exception as error:
        # An application's user object can raise anything; the next source may still know.
        if _throttle.due(type(error).__name__):
            logger.warning("an actor resolver failed; going on with the next one", exc_info=True)
        return None


def from_value(value: object) -> Actor | None:
    """Make an actor of what a resolver or `flask.g.user` gave: an Actor, an id, a mapping or an object."""
    if value is None:
        return None
    if isinstance(value, Actor):
        return value
    if isinstance(value, str | int):
        return Actor(text) if (text := _text(value)) else None
    if _read(value, "is_authenticated") is False:
        return None
    get_id = None if isinstance(value, Mapping) else getattr(value, "get_id", None)
    identifier = _text(get_id()) if callable(get_id) else ""
    identifier = identifier or _first(value, OBJECT_ID_KEYS)
    if not identifier:
        # An OpenID Connect client's token as it is often kept: who it is about stands one level deeper.
        inner = value.get("userinfo") if isinstance(value, Mapping) else None
        return from_value(inner) if isinstance(inner, Mapping) and "userinfo" not in inner else None
    return Actor(
        identifier,
        role=_optional(_role, value),
        email=_optional(_first, value, EMAIL_KEYS),
        name=_optional(_first, value, NAME_KEYS),
    )


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
                    return replace(actor, role=actor.role or _role(session))
            elif identifier := _text(value):
                return Actor(
                    identifier,
                    role=_role(session),
                    email=_first(session, EMAIL_KEYS),
                    name=_first(session, NAME_KEYS),
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


def _from_login(user: object) -> Actor | None:
    return from_value(user) if _read(user, "is_authenticated") else None


def _optional(reader: Callable[..., str], *arguments: object) -> str:
    """Read what is good to know: a user whose roles cannot be loaded now is still known by id."""
    try:
        return reader(*arguments)
    except Exception as error:
        if _throttle.due(f"{reader.__name__} {type(error).__name__}"):
            logger.warning("the user's role, e-mail address or name cannot be read", exc_info=True)
        return ""


def _read(source: object, name: str) -> Any:
    if isinstance(source, Mapping):
        return source.get(name)
    return getattr(source, name, None)


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, str | int):
        return str(value)
    # uuid.UUID and database ids: their text is the id. Any other object's text could be anything.
    return str(value) if type(value).__name__ in ("UUID", "ObjectId") else ""


def _first(source: object, names: Iterable[str]) -> str:
    return next((text for name in names if (text := _text(_read(source, name)))), "")


def _role(source: object) -> str:
    for key in ROLE_KEYS:
        value = _read(source, key)
        if isinstance(value, str):
            if value:
                return value
        elif isinstance(value, list | tuple | set | frozenset):
            names = [_text(item) or _first(item, ("name",)) for item in value]
            if joined := ",".join(sorted(name for name in names if name)):
                return joined
        elif value is not None and (name := _first(value, ("name",))):
            return name
    return ""
