"""What the attributes of a server span say of a request. Pure functions over plain data.

The names are those of OpenTelemetry's semantic conventions, those that are stable and the older ones beside them:
which of them a span bears is the choice of the instrumentation and of `OTEL_SEMCONV_STABILITY_OPT_IN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from spanseal.actors.actor import MAX_TEXT, Actor
from spanseal.errors import InvalidRecord
from spanseal.meaning.mapping import KNOWN_METHODS
from spanseal.meaning.words import READING_VERBS, VERBS, plain, singular

__all__ = ["Facts", "RpcMeaning", "actor_of", "facts_of", "rpc_meaning"]

Kind = Literal["http", "websocket", "rpc", "other"]

_MAX_TEXT = 2048
"""Characters of a text that are kept."""

# A span may have come by `client.address` through a header that anybody can send: the connection's own end goes first.
_PEER = ("network.peer.address", "net.sock.peer.addr", "net.peer.ip", "client.address")
_FORWARDED = ("http.request.header.x_forwarded_for", "http.request.header.x-forwarded-for")
_REQUEST_ID = ("http.request.header.x_request_id", "http.request.header.x-request-id")
# These give the path as the client wrote it; ASGI servers have decoded it.
_ENCODED = ("http.target", "http.url", "url.full")

_READING = frozenset(
    {
        "batch_get",
        "check",
        "describe",
        "fetch",
        "find",
        "get",
        "list",
        "lookup",
        "query",
        "read",
        "search",
        "watch",
    }
)
_RPC_VERBS = {
    **VERBS,
    "describe": "viewed",
    "fetch": "viewed",
    "find": "searched",
    "get": "viewed",
    "insert": "created",
    "list": "listed",
    "lookup": "viewed",
    "modify": "updated",
    "patch": "updated",
    "put": "updated",
    "query": "searched",
    "read": "viewed",
    "register": "registered",
    "save": "updated",
    "set": "updated",
    "store": "created",
    "watch": "viewed",
    "write": "updated",
}
_GRPC_STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a span's attributes say."""

    kind: Kind
    method: str = ""
    """Of HTTP, upper case; what it really was where it is none that is known."""
    route: str = ""
    """As the framework writes it."""
    path: str = ""
    """Without the query. Not recorded: it may hold anything."""
    encoded: bool = False
    """Whether the path is as the client wrote it, with `%20`."""
    status: int = 0
    """Of the answer; 0 where there is none."""
    rpc_system: str = ""
    rpc_service: str = ""
    rpc_method: str = ""
    rpc_status: str = ""
    """Name or number of the status that the call ended with; empty where it has none yet."""
    client: str = ""
    forwarded_for: str = ""
    """X-Forwarded-For, where the instrumentation was told to capture it: its end, if it is long."""
    user_agent: str = ""
    request_id: str = ""
    """The request's own X-Request-Id, where the instrumentation was told to capture it."""


def facts_of(attributes: Mapping[str, Any], *, longest: int | None = None, asgi: bool = False) -> Facts:
    """Read a server span's attributes.

    Args:
        attributes: Of the span; anything may stand in them.
        longest: The characters that the SDK cuts a text to. A path of this length may have lost its end: it is
            not used, since half an id is the id of something else.
        asgi: Whether paths come decoded, as ASGI servers give them.
    """
    route = _text(attributes, "http.route")
    service, method = _rpc_names(attributes)
    http_method = _text(attributes, "http.request.method", "http.method")
    original = _text(attributes, "http.request.method_original")
    scheme = _text(attributes, "url.scheme", "http.scheme")
    if service or method or _text(attributes, "rpc.system", "rpc.system.name"):
        kind: Kind = "rpc"
    elif http_method or original:
        kind = "http"
    elif scheme in ("ws", "wss"):
        kind = "websocket"
    else:
        kind = "http" if route else "other"
    path, encoded = _path(attributes, longest, asgi=asgi)
    return Facts(
        kind=kind,
        method=_method(http_method, original),
        route=route,
        path=path,
        encoded=encoded and not asgi,
        status=_number(attributes, "http.response.status_code", "http.status_code"),
        rpc_system=_text(attributes, "rpc.system.name", "rpc.system"),
        rpc_service=service,
        rpc_method=method,
        rpc_status=_rpc_status(attributes),
        client=_text(attributes, *_PEER),
        forwarded_for=_forwarded(attributes, longest),
        user_agent=_text(attributes, "user_agent.original", "http.user_agent"),
        request_id=next(iter(_texts(attributes, _REQUEST_ID)), "").strip(),
    )


def actor_of(attributes: Mapping[str, Any]) -> Actor | None:
    """Take the actor from what an application has set on its span: `enduser.id` or `user.id`, and roles."""
    identifier = _text(attributes, "enduser.id", "user.id", "enduser.pseudo.id")
    if not identifier:
        return None
    roles = _texts(attributes, ("enduser.role", "user.roles"))
    try:
        return Actor(
            identifier,
            role=",".join(sorted(role for role in roles if role))[:MAX_TEXT],
            email=_text(attributes, "user.email"),
            name=_text(attributes, "user.name"),
        )
    except InvalidRecord:
        return None


# --- remote procedure calls --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RpcMeaning:
    """What a call meant."""

    action: str
    resource_type: str
    reading: bool
    """Whether its name promises that it changes nothing."""


def rpc_meaning(service: str, method: str) -> RpcMeaning:
    """Give a call its meaning: `clinic.v1.PatientService`, `GetPatient` is `patient.viewed`.

    Args:
        service: The service's full name.
        method: The method's own.

    Returns:
        `<thing>.called`, the thing being the service, where the method begins with no verb that is known.
    """
    owner = plain(service.rpartition(".")[2]).removesuffix("_service") or "request"
    verb, _, thing = plain(method).partition("_")
    if verb == "batch" and thing:
        verb, _, thing = thing.partition("_")
    reading = verb in _READING or verb in READING_VERBS
    if verb not in _RPC_VERBS:
        return RpcMeaning(f"{singular(owner)}.called", singular(owner), reading=False)
    resource = singular(thing or owner)
    return RpcMeaning(f"{resource}.{_RPC_VERBS[verb]}", resource, reading)


def _rpc_names(attributes: Mapping[str, Any]) -> tuple[str, str]:
    service, method = _text(attributes, "rpc.service"), _text(attributes, "rpc.method")
    # The stable conventions write both into one: `package.Service/Method`.
    whole, slash, last = method.rpartition("/")
    return (service or whole.strip("/"), last) if slash else (service, method)


def _rpc_status(attributes: Mapping[str, Any]) -> str:
    code = attributes.get("rpc.grpc.status_code")
    if isinstance(code, int) and not isinstance(code, bool):
        return _GRPC_STATUS[code] if 0 <= code < len(_GRPC_STATUS) else f"status {code}"
    return _text(attributes, "rpc.response.status_code")


# --- reading -----------------------------------------------------------------------------------------------


def _method(method: str, original: str) -> str:
    upper = method.upper()
    if upper in KNOWN_METHODS:
        return upper
    return original.upper() or upper


def _path(attributes: Mapping[str, Any], longest: int | None, *, asgi: bool) -> tuple[str, bool]:
    """Find the path; say whether it is as the client wrote it."""
    for key in ("url.path", *_ENCODED):
        text = attributes.get(key)
        if not isinstance(text, str) or not text:
            continue
        if longest is not None and len(text) >= longest:
            return "", False
        if asgi and text.startswith("/"):
            return text, False  # decoded, without its query: a `?` in it is one of the path
        if not text.startswith("/"):
            try:
                text = urlsplit(text).path
            except ValueError:
                return "", False
        return text.partition("?")[0], key in _ENCODED
    return "", False


def _forwarded(attributes: Mapping[str, Any], longest: int | None) -> str:
    """Return X-Forwarded-For. Proxies add to its end: what a client writes before that must not push it out of sight."""
    whole = ",".join(_texts(attributes, _FORWARDED, most=None))
    if longest is not None and len(whole) >= longest:
        return ""
    if len(whole) <= _MAX_TEXT:
        return whole
    return whole[-_MAX_TEXT:].partition(",")[2]


def _text(attributes: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return value[:_MAX_TEXT]
    return ""


def _texts(attributes: Mapping[str, Any], keys: Sequence[str], most: int | None = _MAX_TEXT) -> list[str]:
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return [value[:most]]
        if isinstance(value, list | tuple) and value:
            return [item[:most] for item in value if isinstance(item, str)]
    return []


def _number(attributes: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.isdecimal() and len(value) < 5:
            return int(value)
    return 0
