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
from functools import partial
from typing import Any

from .actor import ANONYMOUS, Actor
from .claims import SUBJECT, from_claims
from .errors import ConfigurationError
from .proxy_header import ProxyHeader
from .reading import first, fit, is_expired, is_proxy, read, text
from .throttle import Throttle
from .users import from_session, from_value, kind_of

__all__ = ["DEFAULT", "Evidence", "Found", "Resolver", "Source", "ask", "load_resolver", "resolve", "sources"]

logger = logging.getLogger("spanseal")

DEFAULT = "flask_login,flask_jwt_extended,authlib,http_auth,g.user,g.current_user,session,remote_user,header"

Resolver = Callable[[], object]

_throttle = Throttle()


@dataclass(frozen=True, slots=True, kw_only=True)
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
    find: Callable[[Evidence], Any]
    """Returns what is kept there, or None."""
    make: Callable[[Any, Evidence], Actor | None]
    """Makes an actor of it; returns None where it is nobody."""


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
    for source in order:
        subject = _attempt(source.name, partial(source.find, evidence))
        if subject is None or is_proxy(subject):
            continue
        if before is not None and before.subject is subject and is_expired(subject):
            return before
        if (actor := _attempt(source.name, partial(source.make, subject, evidence))) is not None:
            return Found(actor, source.name, subject)
    if _attempt("flask_login", lambda: _is_refused(evidence) or None):
        return Found(ANONYMOUS, "flask_login")
    return None


def ask(resolver: Resolver, *, early: bool = False) -> Actor | None:
    """Ask the configured resolver; None where it does not know, or fails. Arguments as of `resolve`."""
    actor: Actor | None = _attempt("resolver", lambda: from_value(_whole(resolver())), silent=early)
    return actor


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
            found.append(Source(name, partial(_of_g, name[2:]), _make_of_g))
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


def _attempt(name: str, step: Callable[[], Any], *, silent: bool = False) -> Any:
    try:
        return step()
    except Exception as error:
        # An application's user object can raise anything; the next source may still know.
        if not silent and _throttle.due(f"{name} {type(error).__name__}"):
            what = "the actor resolver" if name == "resolver" else f"the source {name} of actors"
            logger.warning("%s failed; going on with the next one", what, exc_info=True)
        return None


def _whole(value: object) -> object:
    # A resolver may return `current_user` as it is: whoever configures it says what may be loaded.
    return value._get_current_object() if is_proxy(value) else value  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way


# --- the sources: what each extension keeps, in which form --------------------------------------------------


def _of_g(name: str, evidence: Evidence) -> Any:
    return getattr(evidence.g, name, None)


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
    user = getattr(evidence.g, "_login_user", None)
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
    kept = getattr(evidence.g, "_jwt_extended_jwt_user", None)
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


def _make_of_environ(environ: Any, _evidence: Evidence) -> Actor | None:
    name = environ.get("REMOTE_USER")
    if not isinstance(name, str) or not name:
        return None
    # PEP 3333 gives it as Latin-1, whatever the server has read.
    whole = name if name.isascii() else name.encode("latin-1", "replace").decode("utf-8", "replace")
    return Actor(fit(whole))


def _make_of_header(environ: Any, evidence: Evidence) -> Actor | None:
    return evidence.header.actor(environ, evidence.peer) if evidence.header is not None else None


def _environ(evidence: Evidence) -> Any:
    return evidence.environ


_KNOWN = {
    source.name: source
    for source in (
        Source("flask_login", partial(_of_g, "_login_user"), _make_of_login),
        Source("flask_jwt_extended", partial(_of_g, "_jwt_extended_jwt"), _make_of_jwt),
        Source("authlib", partial(_of_g, "authlib_server_oauth2_token"), _make_of_authlib),
        Source("http_auth", partial(_of_g, "flask_httpauth_user"), _make_of_g),
        Source("session", lambda evidence: evidence.session, _make_of_session),
        Source("remote_user", _environ, _make_of_environ),
        Source("header", _environ, _make_of_header),
    )
}
