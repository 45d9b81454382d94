"""What one process holds of the audit: its settings, its spool, its shipper. Made at the first record.

Under gunicorn the instrumentation is loaded in the master and runs in the workers; with `--preload` the whole
application is. So nothing is opened before it is needed, everything belongs to the process that opened it, and
a child made by `fork` begins anew without touching what its parent holds.

What happens to a request that cannot be audited is decided here, by `SPANSEAL_ON_ERROR`: `open` lets it pass and
names the loss with a `producer.gap` as soon as that can be stored; `closed` refuses it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import settings as settings_module
from .actors.sources import Resolver, load_resolver
from .delivery.keeper import Keeper
from .delivery.locks import forget_all
from .delivery.spool import Spool
from .errors import ConfigurationError, InvalidRecord, NotAudited, SpansealError, SpoolError
from .meaning.rules import DEFAULTS, Rules, load_rules
from .servers import forks_unseen
from .settings import Settings
from .throttle import Throttle
from .wire import AuditRecord

__all__ = ["Pending", "Runtime", "current", "exchange"]

logger = logging.getLogger("spanseal")

_T = TypeVar("_T")


@dataclass(slots=True)
class Pending:
    """A request's record on its way."""

    row: int | None = None
    """Its row in the spool; None where nothing is stored yet."""
    spool: Spool | None = None
    """Which spool that is."""
    answered: bool = False
    """Whether what was known when the answer began is stored."""
    dropped: bool = False
    """Whether it was counted as lost: it is not stored any more then."""


class Runtime:
    """The audit of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._settings: Settings | None = None
        self._resolver: Resolver | None = None
        self._rules: Rules | None = None
        self._wrong: dict[str, str] = {}
        self._orphans: deque[Callable[[], None]] = deque()
        self._gone = False
        self._throttle = Throttle()
        self.keeper = Keeper(lambda: self.settings, self.end_orphans)
        """Of the spool and the shipper."""

    # --- the life of a request's record ----------------------------------------------------------------

    def begin(self, pending: Pending, record: Callable[[], AuditRecord]) -> None:
        """Write down that a request is about to change something.

        Args:
            pending: What is stored of it so far: changed by this.
            record: Makes the record of what is known now.

        Raises:
            NotAudited: It cannot be written, and the request must not go on.
        """
        if self._gone:
            return
        try:
            spool = self._open()
            pending.row, pending.spool = spool.begin(record().encode()), spool
        except Exception as error:  # noqa: BLE001 - whatever it is, the policy decides
            self.trouble(error)

    def answer(self, pending: Pending, record: Callable[[], AuditRecord]) -> None:
        """Write down what is known when a request's answer begins. Arguments as in `begin`.

        Raises:
            NotAudited: It cannot be written, and the answer must not be given.
        """
        if self._gone:
            return
        if pending.dropped:
            if settings_module.refuses():
                raise NotAudited("this cannot be audited now, so it is not done")
            return
        try:
            spool = pending.spool or self._open()
            pending.row, pending.spool = spool.answer(pending.row, record().encode()), spool
            pending.answered = True
        except Exception as error:  # noqa: BLE001 - as above
            if pending.row is None:
                pending.dropped = True
                self.keeper.drop()
            self.trouble(error)

    def finish(self, pending: Pending, record: Callable[[], AuditRecord] | None) -> None:
        """Take notice that a request has ended: costs no commit.

        Args:
            pending: What is stored of it.
            record: Makes the record of what is known in the end; None if that is what is stored.
        """
        if pending.row is None or pending.spool is None or self._gone:
            return
        body = None
        if record is not None:
            try:
                body = record().encode()
            except Exception as error:
                # What is stored already goes on its way.
                if self._throttle.due(str(error)):
                    logger.exception("the end of a request cannot be recorded")
        try:
            pending.spool.finish(pending.row, body)
        except SpoolError as error:
            if self._throttle.due(str(error)):
                logger.error("the end of a request cannot be recorded: %s", error)  # noqa: TRY400
        self.keeper.wake()

    def append(self, record: AuditRecord, *, must: bool = False) -> None:
        """Store a record that is final at once; its tenant is this process's.

        Args:
            record: What happened.
            must: Whether it must be stored whatever `SPANSEAL_ON_ERROR` says: it has not happened where this raises.

        Raises:
            InvalidRecord: It holds what a record cannot hold.
            NotAudited: It cannot be stored, and whoever made it must not go on.
        """
        try:
            record.tenant = self.settings.tenant
            self._open().append(record.encode())
            if forks_unseen():
                self.keeper.leave()
        except InvalidRecord:
            raise
        except Exception as error:
            if must:
                raise NotAudited(f"this cannot be recorded now, so it is not done: {error}") from error
            self.keeper.drop()
            self.trouble(error)
            return
        self.keeper.wake()

    def orphaned(self, end: Callable[[], None]) -> None:
        """Take a request whose answer was thrown away without being closed; it is ended later.

        For finalizers: they run at any moment, in the middle of anything, so this takes no lock.

        Args:
            end: What ends the request.
        """
        self._orphans.append(end)

    def end_orphans(self) -> None:
        """End what finalizers gave."""
        while self._orphans:
            try:
                end = self._orphans.popleft()
            except IndexError:  # another thread was faster
                return
            end()

    def trouble(self, error: Exception, otherwise: str = "requests go on unaudited") -> None:
        """Say that something cannot be audited, once a minute, and refuse it where that was asked for.

        Args:
            error: What went wrong.
            otherwise: What happens where nothing is refused.

        Raises:
            NotAudited: It must not be done.
        """
        closed = settings_module.refuses()
        if self._throttle.due(f"{type(error).__name__} {error}"):
            logger.critical(
                "%s; %s",
                str(error) or type(error).__name__,
                "requests are refused" if closed else otherwise,
                exc_info=None if isinstance(error, SpansealError) else error,
            )
        if closed:
            raise NotAudited("this cannot be audited now, so it is not done") from error

    # --- what it is made of ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            ConfigurationError: A variable has a value that cannot be used.
        """
        if self._settings is None:
            self._settings = self._once("settings", settings_module.load)
        return self._settings

    @property
    def resolver(self) -> Resolver | None:
        """The configured actor resolver.

        Raises:
            ConfigurationError: It cannot be imported.
        """
        name = self.settings.actor_resolver
        if self._resolver is None and name:
            self._resolver = self._once("resolver", lambda: load_resolver(name))
        return self._resolver

    @property
    def rules(self) -> Rules:
        """What requests mean. Where the rules file is wrong: the defaults, or nothing goes on.

        Raises:
            NotAudited: The rules file is wrong, and `SPANSEAL_ON_ERROR` is `closed`.
        """
        rules = self._rules
        if rules is None:
            try:
                rules = self._rules = self._once("rules", lambda: load_rules(self.settings.rules))
            except ConfigurationError as error:
                self.trouble(error, "requests are recorded by the default rules")
                rules = DEFAULTS
        return rules

    def _once(self, name: str, load: Callable[[], _T]) -> _T:
        # What was wrong stays wrong, and is not tried anew at every request.
        if name in self._wrong:
            raise ConfigurationError(self._wrong[name])
        try:
            return load()
        except ConfigurationError as error:
            self._wrong[name] = str(error)
            raise

    def stop(self) -> None:
        """Send what waits, as far as the time allows, and end the stream."""
        self.end_orphans()
        self.keeper.stop()

    def abandon(self) -> None:
        """Give everything up, in a child after `fork`: requests that run now are the parent's to record."""
        self._gone = True
        self.keeper.abandon()

    def _open(self) -> Spool:
        if self._orphans:
            self.end_orphans()
        return self.keeper.open()


_runtime = Runtime()
_noticing = threading.Lock()


def current() -> Runtime:
    """Return this process's runtime."""
    if _runtime.pid != os.getpid():
        # Forked by a server that does not ask Python to (uWSGI).
        with _noticing:
            if _runtime.pid != os.getpid():
                _in_child()
    return _runtime


def exchange(other: Runtime) -> Runtime:
    """Put another runtime in the place of this process's, for tests; returns the one before."""
    global _runtime
    before, _runtime = _runtime, other
    return before


def _before_fork() -> None:
    _runtime.keeper.hold()


def _in_parent() -> None:
    _runtime.keeper.let_go()


def _in_child() -> None:
    global _runtime  # noqa: PLW0603 - one for each process
    _runtime.abandon()
    forget_all()
    _runtime = type(_runtime)()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
