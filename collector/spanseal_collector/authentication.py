"""Who may send: the token of a request, before a byte of its body is read.

In this order:

1. No token is needed as long as none can send (`ingest`) and none was asked for (`--require-tokens`).
2. A token file that cannot be read, or that is gone, is everybody's 503: clients drop what they hold on 401.
3. No token, or one that never was: 401.
4. One that has expired or was revoked: 503 for 7 days, in which somebody can give the sender a new one; then 401.
5. One for something else: 403.

The answer to a failure tells nothing that who asks does not know: a token is known by all of its bytes.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from spanseal_collector.errors import (
    BusyError,
    ForbiddenError,
    NoTokenError,
    TokenFileError,
    UnauthenticatedError,
    UnavailableError,
)
from spanseal_collector.failures import FailureReports, PeerLimit
from spanseal_collector.tokens import TOKEN, Scope, State, Token, TokenFile, digest

__all__ = ["GRACE_SECONDS", "Authenticator", "Tokens", "is_loopback", "tokens_needed"]

_log = logging.getLogger(__name__)

GRACE_SECONDS = 7 * 86_400
"""For which a token that was good is answered as if it could be so again."""

_ENDED_RETRY_SECONDS = 60.0
_UNREADABLE_RETRY_SECONDS = 10.0
_NOBODY = "0" * 64


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen at can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tokens_needed(file: TokenFile, host: str, *, require: bool, insecure: bool) -> bool:
    """Decide whether senders need a token, where it is not that one is made later.

    Args:
        file: the token file.
        host: address to listen at.
        require: whether they were asked for.
        insecure: whether a collector that all can reach may go without.

    Raises:
        NoTokenError: they are, and there is none.
        TokenFileError: that cannot be told.

    """
    if any(token.scope.covers(Scope.INGEST) for token in file.read()[0]):
        return True
    advice = "make one with `spanseal tokens create --scope ingest` on its data directory"
    if require:
        raise NoTokenError(f"--require-tokens, but no token may send records: {advice}")
    if not is_loopback(host) and not insecure:
        raise NoTokenError(
            f"{host} can be reached from elsewhere, and no token may send records: {advice}, "
            "or let anybody send with --insecure-no-auth"
        )
    return False


class Tokens:
    """The tokens as the file has them now: it is read again when it has changed."""

    def __init__(self, file: TokenFile, *, required: bool) -> None:
        """Make one.

        Args:
            file: the token file.
            required: whether senders need a token even if the file has none any more.

        """
        self._file = file
        self._required = required
        self._stamp: tuple[int, ...] | None = None
        self._known: Mapping[str, Token] = {}
        self._unreadable = ""

    def required(self) -> bool:
        """Tell whether a sender needs a token; once that is so it stays so.

        Raises:
            TokenFileError: the file cannot be read, or is gone.

        """
        self._refresh()
        return self._required

    def find(self, given: str) -> Token | None:
        """Find a token.

        Raises:
            TokenFileError: the file cannot be read, or is gone.

        """
        self._refresh()
        form = TOKEN.fullmatch(given)
        token = self._known.get(form[1]) if form else None
        # An id that is not known takes as long as a secret that is wrong.
        same = hmac.compare_digest(digest(given), token.sha256 if token else _NOBODY)
        return token if same else None

    def _refresh(self) -> None:
        try:
            stamp = self._file.stamp()
            if stamp is None and self._required:
                raise TokenFileError(f"{self._file.path} is gone; restore it, or make a new token")
            if stamp != self._stamp or self._unreadable:
                tokens, self._stamp = self._file.read()
                self._known = {token.id: token for token in tokens}
                if any(token.scope.covers(Scope.INGEST) for token in tokens):
                    self._required = True
        except TokenFileError as error:
            if str(error) != self._unreadable:
                self._unreadable = str(error)
                _log.error("nobody can send until this is mended: %s", error)
            raise
        if self._unreadable:
            self._unreadable = ""
            _log.info("the token file can be read again")


class Authenticator:
    """Decides about each request. Used from the event loop's thread alone."""

    def __init__(
        self,
        tokens: Tokens,
        reports: FailureReports,
        *,
        limit: PeerLimit | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make an authenticator.

        Args:
            tokens: the tokens that there are.
            reports: told of each failure.
            limit: of failures for each peer.
            clock: seconds since the epoch.

        """
        self.reports = reports
        self._tokens = tokens
        self._limit = limit or PeerLimit()
        self._clock = clock

    def sender(self, headers: Sequence[str], peer: str) -> str:
        """Tell into which tenant the records of a request go.

        Args:
            headers: its `Authorization` headers.
            peer: the address it comes from.

        Returns:
            The tenant; empty where each record may name its own.

        Raises:
            UnauthenticatedError: it has no token, or one that never was.
            ForbiddenError: its token is for something else.
            UnavailableError: its token was good until lately, or the token file cannot be read.
            BusyError: too many attempts from its address have failed.

        """
        try:
            if not self._tokens.required():
                return ""
            return self._accept(_bearer(headers), Scope.INGEST, peer).tenant
        except TokenFileError:
            self.reports.count("token_file_unreadable", peer=peer)
            raise UnavailableError(
                "who may send cannot be told now; see the collector's log", _UNREADABLE_RETRY_SECONDS
            ) from None

    def may_read(self, given: str) -> bool:
        """Tell whether a token opens the whole log; one of a tenant opens nothing."""
        try:
            token = self._accept(given, Scope.READ, "")
        except (UnauthenticatedError, ForbiddenError, UnavailableError):
            return False
        except TokenFileError:
            self.reports.count("token_file_unreadable")
            return False
        if token.tenant:
            self.reports.count("tenant_cannot_read", token.id)
        return not token.tenant

    def _accept(self, given: str, needed: Scope, peer: str) -> Token:
        token = self._tokens.find(given) if given else None
        now = self._clock()
        state = token.state(now) if token else State.ACTIVE
        if token is None:
            reason = "unknown" if given else "missing"
        elif state is not State.ACTIVE:
            reason = state.value
        elif not token.scope.covers(needed):
            reason = "scope"
        else:
            return token
        self.reports.count(reason, token.id if token else "", peer)
        if peer and (wait := self._limit.failed(peer)):
            raise BusyError("too many attempts without a good token; send it again later", wait)
        if token is None:
            raise UnauthenticatedError(
                "the token is not known here"
                if given
                else "a token is needed: send it as Authorization: Bearer sst_…"
            )
        if reason == "scope":
            raise ForbiddenError(f"the token {token.id} is not for this; its scope is {token.scope.value}")
        if now - (token.ended_at() or 0) >= GRACE_SECONDS:
            raise UnauthenticatedError("the token is not known here any more")
        raise UnavailableError(
            f"the token {token.id} is {state.value}; give the sender another one", _ENDED_RETRY_SECONDS
        )


def _bearer(headers: Sequence[str]) -> str:
    """Return the token; empty where there is none. Two headers, or another scheme, are a token that never was."""
    if not headers:
        return ""
    scheme, _, value = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer":
        return "?"
    return value.strip() or "?"
