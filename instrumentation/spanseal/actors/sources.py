"""Where the actor of a request is looked for, and in which order.

What the application says itself, with `set_actor()` or the configured resolver, comes first. Then come the sources of
`SPANSEAL_ACTOR_SOURCES`. Each reads what an extension has put down after it has verified the user or the token. None
reads the request: a token that nobody has verified is only what somebody claims. The one exception is the header of
an authenticating proxy, which must come from that proxy.

Nothing here loads anything: Flask-Login's user is taken where the application has loaded it, and the session where
Flask has opened it, so that auditing adds no query and no `Vary: Cookie`.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spanseal.errors import ConfigurationError
from spanseal.throttle import Throttle

from .actor import ANONYMOUS, Actor
from .claims import SUBJECT, from_claims
from .proxy_header import ProxyHeader
from .reading import first, fit, is_expired, is_proxy, read, text
from .users import from_session, from_value, kind_of

__all__ = ["DEFAULT", "Evidence", "Found", "Resolver", "Source", "ask", "load_resolver", "resolve", "sources"]

logger = logging.getLogger("spanseal")

DEFAULT = "flask_login,flask_jwt_extended,authlib,http_auth,g.user,g.current_user,session,remote_user,header"

Resolver = Callable[[], object]

_throttle = Throttle()


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What of a request the sources look at."""

    g: object
    """`flask.g`."""
    session: object = None
    """The session that Flask has opened, or None."""
    environ: Mapping[str, Any] = field(default_factory=dict)
    """Of WSGI: only REMOTE_USER and the proxy's header are read."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The application's, where extensions are configured."""
    peer: str | None = None
    """The address of the connection's other end; None where the server does not say."""
    header: ProxyHeader | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One place where the actor is looked for."""

    name: str
    make: Callable[[Any, Evidence], Actor | None]
    """Makes an actor of what is kept there; returns None where it is nobody."""
    attribute: str = ""
    """Of `flask.g`, where it is kept; empty where it is kept elsewhere."""
    find: Callable[[Evidence], Any] = lambda _evidence: None
    """Returns what is kept elsewhere, or None."""


@dataclass(frozen=True, slots=True)
class Found:
    """Who was found, and where."""

    actor: Actor
    source: str = ""
    subject: object = None
    """What the actor was made of."""


def resolve(
    resolver: Resolver | None,
    order: tuple[Source, ...],
    evidence: Evidence,
    before: Found | None = None,
    *,
    early: bool = False,
) -> Found | None:
    """Look for the actor in a request's context. What goes wrong in a source leaves it to the next one.

    Args:
        resolver: The configured one, or None.
        order: The sources.
        evidence: What they look at.
        before: What an earlier look at the same request found.
        early: Whether nothing of the application has run yet: a resolver that fails is not spoken of then.

    Returns:
        Who was found, or None where nothing is known now. `ANONYMOUS` was found where something said that a session
        is nobody's any more.
    """
    if resolver is not None and (actor := ask(resolver, early=early)) is not None:
        return Found(actor, "resolver")
    # Only what was put there: a property of an application's own class for `flask.g` may load something.
    kept = _held(evidence.g)
    for source in order:
        try:
            subject = kept.get(source.attribute) if source.attribute else source.find(evidence)
            if subject is None or is_proxy(subject):
                continue
            if before is not None and before.subject is subject and is_expired(subject):
                return before
            if (actor := source.make(subject, evidence)) is not None:
                return Found(actor, source.name, subject)
        except Exception as error:  # noqa: BLE001 - of an application's user object
            _say(source.name, error)
    try:
        return Found(ANONYMOUS, "flask_login") if "_login_user" in kept and _is_refused(evidence) else None
    except Exception as error:  # noqa: BLE001 - as above
        _say("flask_login", error)
        return None


def ask(resolver: Resolver, *, early: bool = False) -> Actor | None:
    """Ask the configured resolver; None where it does not know, or fails. Arguments as of `resolve`."""
    try:
        return from_value(_whole(resolver()))
    except Exception as error:  # noqa: BLE001 - of the application's own
        if not early:
            _say("resolver", error)
        return None


def sources(given: str) -> tuple[Source, ...]:
    """Read the names of sources, separated by commas, in their order.

    Raises:
        ValueError: One of them is not known, or stands there twice.
    """
    found: list[Source] = []
    for name in filter(None, (name.strip() for name in given.split(","))):
        if any(name == other.name for other in found):
            raise ValueError(f"{name} stands there twice")
        if name.startswith("g.") and name[2:].isidentifier():
            found.append(Source(name, _make_of_g, name[2:]))
        elif name in _KNOWN:
            found.append(_KNOWN[name])
        else:
            meant = difflib.get_close_matches(name, _KNOWN, n=1)
            raise ValueError(
                f"{name!r} is no source"
                + (f" (did you mean {meant[0]}?)" if meant else "")
                + f": use {', '.join(_KNOWN)}, or g.<name> for an attribute of flask.g"
            )
    if not found:
        raise ValueError("name at least one source")
    return tuple(found)


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
    except Exception as error:
        raise ConfigurationError(
            f"SPANSEAL_ACTOR_RESOLVER is {name!r}, which cannot be imported ({error}): write module:function"
        ) from error
    if not callable(resolver):
        raise ConfigurationError(f"SPANSEAL_ACTOR_RESOLVER is {name!r}, which is not callable")
    return resolver  # type: ignore[no-any-return]  # getattr gives Any


def _say(name: str, error: Exception) -> None:
    # The next source may still know.
    if _throttle.due(f"{name} {type(error).__name__}"):
        what = "the actor resolver" if name == "resolver" else f"the source {name} of actors"
        logger.warning("%s failed; going on with the next one", what, exc_info=error)


def _whole(value: object) -> object:
    # A resolver may return `current_user` as it is: whoever configures it says what may be loaded.
    return value._get_current_object() if is_proxy(value) else value  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way


# --- the sources: what each extension keeps, in which form --------------------------------------------------


def _held(g: object) -> dict[str, Any]:
    try:
        held = object.__getattribute__(g, "__dict__")
    except AttributeError:
        return {}
    return held if isinstance(held, dict) else {}


def _make_of_g(value: Any, _evidence: Evidence) -> Actor | None:
    # Claims tell more than a mapping of one's own does, and have no `id` of their user but `sub`.
    if isinstance(value, Mapping) and SUBJECT in value and "id" not in value:
        return from_claims(value)
    return from_value(value)


def _make_of_login(user: Any, evidence: Evidence) -> Actor | None:
    if is_expired(user):
        # Its id as Flask-Login keeps it, which need not be the primary key.
        session = evidence.session if isinstance(evidence.session, Mapping) else {}
        actor, kept = from_value(user), text(_peek(session, "_user_id"))
        return replace(actor, id=fit(kept)) if actor is not None and kept else actor
    return from_value(user) if getattr(user, "is_authenticated", None) else None


def _is_refused(evidence: Evidence) -> bool:
    """Say whether Flask-Login has not accepted the user of a session: one who is no more, or locked out."""
    user = _held(evidence.g).get("_login_user")
    if user is None or not isinstance(evidence.session, Mapping) or is_expired(user):
        return False
    return not getattr(user, "is_authenticated", None) and bool(_peek(evidence.session, "_user_id"))


def _make_of_session(session: Any, evidence: Evidence) -> Actor | None:
    return None if _is_refused(evidence) else from_session(session)


def _peek(session: Mapping[str, Any], key: str) -> Any:
    accessed = getattr(session, "accessed", None)
    try:
        return session.get(key)
    finally:
        if accessed is False:
            session.accessed = False  # type: ignore[attr-defined]  # seen just above


def _make_of_jwt(claims: Any, evidence: Evidence) -> Actor | None:
    """Flask-JWT-Extended: claims and user are put down when everything was verified; empty where a token is optional."""
    if not isinstance(claims, Mapping) or not claims:
        return None
    actor = from_claims(claims, evidence.config.get("JWT_IDENTITY_CLAIM", SUBJECT))
    kept = _held(evidence.g).get("_jwt_extended_jwt_user")
    user = from_value(kept.get("loaded_user")) if isinstance(kept, Mapping) else None
    if user is None or (actor is not None and actor.on_behalf_of):
        return actor
    if actor is None:
        return user
    # The user that the application has loaded knows its roles of now; the token those of when it was issued.
    return replace(
        user,
        type=actor.type if user.type == "user" else user.type,
        role=user.role or actor.role,
        email=user.email or actor.email,
        name=user.name or actor.name,
    )


def _make_of_authlib(token: Any, _evidence: Evidence) -> Actor | None:
    """Authlib: claims, an introspection's answer, or the application's own token object, never by that one's `id`."""
    if isinstance(token, Mapping):
        return from_claims(token)
    user = read(token, "user")
    if user is not None and not callable(user) and (actor := from_value(user)) is not None:
        return actor
    if identifier := first(token, ("user_id", SUBJECT)):
        return Actor(fit(identifier), type=kind_of(token) or "user")
    client = first(token, ("client_id",))
    return Actor(fit(client), type="service") if client else None


def _make_of_server(name: Any, _evidence: Evidence) -> Actor | None:
    if not isinstance(name, str) or not name:
        return None
    # PEP 3333 gives it as Latin-1, whatever the server has read.
    whole = name if name.isascii() else name.encode("latin-1", "replace").decode("utf-8", "replace")
    return Actor(fit(whole))


def _make_of_header(header: ProxyHeader, evidence: Evidence) -> Actor | None:
    return header.actor(evidence.environ, evidence.peer)


_KNOWN = {
    source.name: source
    for source in (
        Source("flask_login", _make_of_login, "_login_user"),
        Source("flask_jwt_extended", _make_of_jwt, "_jwt_extended_jwt"),
        Source("authlib", _make_of_authlib, "authlib_server_oauth2_token"),
        Source("http_auth", _make_of_g, "flask_httpauth_user"),
        Source("session", _make_of_session, find=lambda evidence: evidence.session),
        Source("remote_user", _make_of_server, find=lambda evidence: evidence.environ.get("REMOTE_USER")),
        Source("header", _make_of_header, find=lambda evidence: evidence.header),
    )
}
