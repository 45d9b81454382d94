"""The header in which an authenticating proxy says who signed in, believed only where it came from that proxy.

Anybody can send a header. What tells the proxy's from a forged one is the address of the connection's other end,
before anything (werkzeug's ProxyFix) has put the client's in its place. The proxy itself must remove what clients
send under this name; that cannot be seen from here.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spanseal.errors import ConfigurationError
from spanseal.throttle import Throttle

from .actor import MAX_TEXT, Actor
from .reading import fit

__all__ = ["UNIX", "ProxyHeader", "header_name", "networks", "peer_of", "proxy_header"]

logger = logging.getLogger("spanseal")

UNIX = "unix"
"""Stands for the peers of a Unix socket, which have no address."""

# What gunicorn, werkzeug and waitress say of a Unix socket's peer. One of TCP always has an IP address.
_UNIX_PEERS = frozenset({"", "<local>", "localhost"})
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_CREDENTIALS = frozenset({"AUTHORIZATION", "COOKIE", "PROXY_AUTHORIZATION"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Which header says who signed in, and whose it must be."""

    user: str
    """Of the user's id, as it is written in HTTP."""
    role: str
    """Of the roles; empty where none is."""
    peers: tuple[str | Network, ...]
    """The networks of the proxies, and `unix`."""

    def actor(self, environ: Mapping[str, Any], peer: str | None) -> Actor | None:
        """Return who signed in at the proxy.

        Args:
            environ: The WSGI environ.
            peer: The address of the connection's other end; None where the server does not say.
        """
        given = _value(environ, self.user)
        if not given:
            return None
        # With the PROXY protocol the server says the client's address, and nothing of its peer.
        if environ.get("PROXY_PROTOCOL") or not self._is_ours(peer):
            if _throttle.due(self.user):
                logger.warning(
                    "%s came from %s, which is none of SPANSEAL_ACTOR_HEADER_FROM: it is not believed",
                    self.user,
                    repr(peer[:64]) if peer else "no address",
                )
            return None
        role = _value(environ, self.role) if self.role else ""
        return Actor(fit(given), role=role if len(role) <= MAX_TEXT else "")

    def _is_ours(self, peer: str | None) -> bool:
        if peer is None:
            return False
        if peer in _UNIX_PEERS:
            return UNIX in self.peers
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        # A socket that takes both protocols shows IPv4 addresses as `::ffff:10.0.0.1`.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any(not isinstance(one, str) and (mapped or address) in one for one in self.peers)


def proxy_header(user: str, role: str, peers: tuple[str | Network, ...]) -> ProxyHeader | None:
    """Put the settings together.

    Raises:
        ConfigurationError: A header without those who may send it, or the other way round.
    """
    if user and not peers:
        raise ConfigurationError(
            "SPANSEAL_ACTOR_HEADER is set, but anybody can send a header: name the proxy's addresses "
            "in SPANSEAL_ACTOR_HEADER_FROM"
        )
    for name, value in (("SPANSEAL_ACTOR_ROLE_HEADER", role), ("SPANSEAL_ACTOR_HEADER_FROM", peers)):
        if value and not user:
            raise ConfigurationError(f"{name} is set without SPANSEAL_ACTOR_HEADER, which it belongs to")
    return ProxyHeader(user, role, peers) if user else None


def header_name(given: str) -> str:
    """Read a header's name.

    Raises:
        ValueError: It is none, or that of a credential.
    """
    if given and not _NAME.fullmatch(given):
        raise ValueError("write a header's name, such as X-Forwarded-User")
    if _key(given).removeprefix("HTTP_") in _CREDENTIALS:
        raise ValueError("that header holds credentials: write the one in which the proxy names the user")
    return given


def networks(given: str) -> tuple[str | Network, ...]:
    """Read addresses and networks, separated by commas, and `unix`.

    Raises:
        ValueError: One of them is none, or any address is in it.
    """
    found: list[str | Network] = []
    for item in filter(None, (item.strip() for item in given.split(","))):
        if item.lower() == UNIX:
            found.append(UNIX)
            continue
        try:
            network = ipaddress.ip_network(item)
        except ValueError as error:
            raise ValueError(f"write addresses, networks such as 10.1.0.0/16, or {UNIX}: {error}") from None
        if network.prefixlen == 0:
            raise ValueError(f"{item} is every address: then anybody could say who they are")
        found.append(network)
    return tuple(found)


def peer_of(environ: Mapping[str, Any]) -> str | None:
    """Return the address of the connection's other end: what the server said, before werkzeug's ProxyFix."""
    original = environ.get("werkzeug.proxy_fix.orig")
    peer = (original if isinstance(original, Mapping) else environ).get("REMOTE_ADDR")
    return peer if isinstance(peer, str) else None


def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _value(environ: Mapping[str, Any], name: str) -> str:
    value = environ.get(_key(name))
    if not isinstance(value, str):
        return ""
    # PEP 3333 gives header bytes as Latin-1; what proxies send is UTF-8.
    return (
        value.strip()
        if value.isascii()
        else value.encode("latin-1", "replace").decode("utf-8", "replace").strip()
    )
