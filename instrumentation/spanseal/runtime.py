"""What one process holds of the audit: its settings, its spool, its shipper. Made at the first record.

Under gunicorn the instrumentation is loaded in the master and runs in the workers; with `--preload` the whole
application is. So nothing is opened before it is needed, everything belongs to the process that opened it, and
a child made by `fork` begins anew without touching what its parent holds.

What happens to a request that cannot be audited is decided here, by `SPANSEAL_ON_ERROR`: `open` lets it pass and
names the loss with a `producer.gap` as soon as that can be stored; `closed` refuses it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from dataclasses import dataclass

from . import settings as settings_module
from .actor import Resolver, load_resolver
from .errors import ConfigurationError, NotAudited, SpoolClosed, SpoolError, SpoolUnavailable
from .locks import forget_all
from .settings import Settings
from .shipper import Shipper
from .spool import Spool
from .wire import AuditRecord, encode_resource

__all__ = ["Pending", "Runtime", "current"]

logger = logging.getLogger("spanseal")

_FIRST_RETRY, _MOST_RETRY = 1.0, 30.0
_SAY_AGAIN = 60.0

_abandoned: list[object] = []
"""Connections of a parent process: using or closing them in a child would harm the parent's files."""


@dataclass(slots=True)
class Pending:
    """A request's record on its way."""

    row: int | None = None
    """Its row in the spool; None where nothing is stored yet."""
    answered: bool = False
    dropped: bool = False
    """Whether it was counted as lost."""


class Runtime:
    """The audit of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._creation = threading.Lock()
        self._spool_lock = threading.Lock()
        self._settings: Settings | None = None
        self._resolver: Resolver | None = None
        self._spool: Spool | None = None
        self._shipper: Shipper | None = None
        self._lost_before = 0
        self._next_try = 0.0
        self._delay = _FIRST_RETRY
        self._stopped = False
        self._said = 0.0

    # --- the life of a request's record ----------------------------------------------------------------

    def begin(self, record: AuditRecord) -> Pending:
        """Write down that a request is about to change something.

        Raises:
            NotAudited: It cannot be written, and the request must not go on.
        """
        try:
            return Pending(self._open().begin(record.encode()))
        except SpoolError as error:
            self._failed(error)
            return Pending()

    def answer(self, pending: Pending | None, record: AuditRecord) -> Pending:
        """Write down what is known when a request's answer begins.

        Raises:
            NotAudited: It cannot be written, and the answer must not be given.
        """
        pending = pending or Pending()
        try:
            pending.row = self._open().answer(pending.row, record.encode())
            pending.answered = True
        except SpoolError as error:
            if pending.row is None and not pending.dropped:
                pending.dropped = True
                self._drop()
            self._failed(error)
        return pending

    def finish(self, pending: Pending, record: AuditRecord, *, changed: bool) -> None:
        """Take notice that a request has ended: costs no commit.

        Args:
            pending: What `begin` or `answer` gave.
            record: What is known in the end.
            changed: Whether that is more than was known when the answer began.
        """
        spool, shipper = self._spool, self._shipper
        if pending.row is None or spool is None or shipper is None:
            return
        spool.finish(pending.row, record.encode() if changed or not pending.answered else None)
        shipper.wake()

    def append(self, record: AuditRecord) -> None:
        """Store a record that is final at once.

        Raises:
            NotAudited: It cannot be stored, and whoever made it must not go on.
        """
        try:
            self._open().append(record.encode())
        except SpoolError as error:
            self._drop()
            self._failed(error)
            return
        if self._shipper is not None:
            self._shipper.wake()

    # --- what it is made of ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            ConfigurationError: A variable has a value that cannot be used.
        """
        if self._settings is None:
            self._settings = settings_module.load()
        return self._settings

    @property
    def resolver(self) -> Resolver | None:
        """The configured actor resolver.

        Raises:
            ConfigurationError: It cannot be imported.
        """
        if self._resolver is None and self.settings.actor_resolver:
            self._resolver = load_resolver(self.settings.actor_resolver)
        return self._resolver

    def stop(self) -> None:
        """Send what waits, as far as the time allows, and end the stream."""
        with self._creation:
            self._stopped = True
            shipper, self._shipper = self._shipper, None
        if shipper is not None:
            shipper.stop(self.settings.shutdown_timeout)

    def abandon(self) -> None:
        """Give everything up, in a child after `fork`."""
        if self._spool is not None:
            _abandoned.append(self._spool.file.abandon())
            # The shipper's thread does not exist here; its adopted files' connections do.
            _abandoned.append(self._shipper)

    def _open(self) -> Spool:
        spool = self._spool
        if spool is not None:
            return spool
        with self._creation:
            if self._spool is not None:
                return self._spool
            if self._stopped:
                raise SpoolClosed("the process is stopping, its audit spool takes no more records")
            now = time.monotonic()
            if now < self._next_try:
                raise SpoolUnavailable("the audit spool could not be made a moment ago")
            try:
                spool = self._make()
            except (SpoolError, ConfigurationError) as error:
                self._next_try = now + self._delay
                self._delay = min(self._delay * 2, _MOST_RETRY)
                if isinstance(error, ConfigurationError):
                    raise SpoolUnavailable(str(error)) from error
                raise
            self._spool = spool
            return spool

    def _make(self) -> Spool:
        settings = self.settings
        resource = encode_resource(settings.resource)
        spool = Spool(settings, resource, self._spool_lock)
        if self._lost_before:
            spool.drop(self._lost_before)
            self._lost_before = 0
        shipper = Shipper(settings, spool, resource, self._spool_lock)
        shipper.start()
        atexit.register(self.stop)
        self._shipper = shipper
        return spool

    def _drop(self) -> None:
        if self._spool is not None:
            self._spool.drop()
        else:
            self._lost_before += 1

    def _failed(self, error: SpoolError) -> None:
        """Say it, and refuse where that was asked for."""
        now = time.monotonic()
        closed = settings_module.refuses()
        if now - self._said > _SAY_AGAIN or self._said == 0:
            self._said = now
            logger.critical("%s; %s", error, "requests are refused" if closed else "requests go on unaudited")
        if closed:
            raise NotAudited("this cannot be audited now, so it is not done") from error


_runtime = Runtime()


def current() -> Runtime:
    """Return this process's runtime."""
    return _runtime


def _in_child() -> None:
    global _runtime  # noqa: PLW0603 - one for each process
    _runtime.abandon()
    forget_all()
    _runtime = Runtime()


os.register_at_fork(after_in_child=_in_child)
