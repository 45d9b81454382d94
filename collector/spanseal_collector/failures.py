"""Attempts to send without a good token: how many a peer may make, and what is sealed of them.

Both are bounded, whatever is tried: a number of peers, and a record a minute for each reason, with a count.
Used from the event loop's thread alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from spanseal_collector.errors import UnavailableError
from spanseal_collector.sealer import Notice

__all__ = ["FailureReports", "PeerLimit"]

_log = logging.getLogger(__name__)

_FAILURES = 30
_WINDOW_SECONDS = 60.0
_PEERS = 4096
_MOST_IDS = 100


class PeerLimit:
    """Counts the failed attempts of each peer; what succeeds is never limited.

    Many senders may share an address, and no number of attempts finds a token: what is limited is the noise.
    """

    def __init__(
        self,
        *,
        failures: int = _FAILURES,
        seconds: float = _WINDOW_SECONDS,
        peers: int = _PEERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a limit.

        Args:
            failures: how many a peer may have in so many seconds.
            seconds: as long as they are counted together.
            peers: how many are remembered; of more, the one whose last failure is the oldest is forgotten.
            clock: seconds that never go back.

        """
        self._failures = failures
        self._seconds = seconds
        self._most = peers
        self._clock = clock
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def failed(self, peer: str) -> float:
        """Count a failure.

        Args:
            peer: an IP address; of version 6, its /64 counts as one.

        Returns:
            0 where it is within the limit, else seconds until it is again.

        """
        key = _network(peer)
        now = self._clock()
        begun, count = self._peers.pop(key, (now, 0))
        if now - begun >= self._seconds:
            begun, count = now, 0
        self._peers[key] = (begun, count + 1)
        if len(self._peers) > self._most:
            self._peers.popitem(last=False)
        return 0.0 if count < self._failures else begun + self._seconds - now


def _network(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


@dataclass(slots=True)
class _Counted:
    attempts: int = 0
    token_ids: set[str] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None
    """Until it runs out, no further record is sealed for this reason."""


class FailureReports:
    """Seals `audit_log.auth_failed`: the first failure of a reason at once, what follows together, once a minute."""

    def __init__(
        self, submit: Callable[[list[Notice], int], Future[None]], *, seconds: float = _WINDOW_SECONDS
    ) -> None:
        """Make reports.

        Args:
            submit: stores notices, as `Pipeline.submit` does.
            seconds: between two records for one reason.

        """
        self.total = 0
        """Failed attempts so far."""
        self._submit = submit
        self._seconds = seconds
        self._reasons: dict[str, _Counted] = {}

    def count(self, reason: str, token_id: str = "", peer: str = "") -> None:
        """Count a failed attempt. Needs a running event loop.

        Args:
            reason: one of a few words.
            token_id: of a token that is or was known.
            peer: address, for the collector's log; it is personal data, so it is in no record.

        """
        self.total += 1
        counted = self._reasons.setdefault(reason, _Counted())
        counted.attempts += 1
        if token_id and len(counted.token_ids) < _MOST_IDS:
            counted.token_ids.add(token_id)
        if counted.timer is None:
            which = f" (token {token_id})" if token_id else ""
            _log.warning("a request from %s was refused: %s%s", peer or "a reader", reason, which)
            self._report(reason)

    def flush(self) -> None:
        """Hand over what was counted and not reported yet; the collector is to end."""
        for reason, counted in self._reasons.items():
            if counted.timer is not None:
                counted.timer.cancel()
                counted.timer = None
            if counted.attempts:
                self._send(reason, counted)

    def _report(self, reason: str) -> None:
        counted = self._reasons[reason]
        counted.timer = None
        if counted.attempts:
            counted.timer = asyncio.get_running_loop().call_later(self._seconds, self._report, reason)
            self._send(reason, counted)

    def _send(self, reason: str, counted: _Counted) -> None:
        attempts, token_ids = counted.attempts, counted.token_ids
        metadata = {"audit.auth.reason": reason, "audit.auth.attempts": str(attempts)}
        if token_ids:
            metadata["audit.auth.token_ids"] = json.dumps(sorted(token_ids), separators=(",", ":"))
        notice = Notice("audit_log.auth_failed", metadata, outcome="failure")
        counted.attempts, counted.token_ids = 0, set()
        loop = asyncio.get_running_loop()

        def keep() -> None:
            # It is told with the next ones.
            counted.attempts += attempts
            counted.token_ids |= token_ids

        def ended(future: Future[None]) -> None:
            if future.exception() is not None and not loop.is_closed():
                loop.call_soon_threadsafe(keep)

        try:
            self._submit([notice], notice.size).add_done_callback(ended)
        except UnavailableError:
            keep()
