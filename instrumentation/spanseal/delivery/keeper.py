"""The spool and the shipper of one process: made at the first record, ended with the process.

Not everything has ended when Python says so: threads of a server may go on answering after `atexit` (Flask's
development server when it reloads). What they record is written as before, without a number, and left to the next
process: into the file that is still open as long as a request has a row in it, else into a new one.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from spanseal.errors import ConfigurationError, SpoolError, SpoolUnavailable
from spanseal.servers import forks_unseen, threads_stand_still
from spanseal.wire import encode_resource

from .spool import Spool
from .spool_file import Access

if TYPE_CHECKING:
    from spanseal.settings import Settings

    from .shipper import Shipper

__all__ = ["Keeper"]

logger = logging.getLogger("spanseal")

_FIRST_RETRY, _MOST_RETRY = 1.0, 30.0

_abandoned: list[object] = []
"""What holds a parent's connections: using or closing them in a child would harm the parent's files."""


class Keeper:
    """Holds what one process has of the spool. Safe to use from any thread."""

    def __init__(self, settings: Callable[[], Settings], before_settling: Callable[[], None]) -> None:
        """Open nothing yet.

        Args:
            settings: Gives the process's settings; may raise `ConfigurationError`.
            before_settling: Called by the shipper before it gives numbers to what is finished.
        """
        self.spool: Spool | None = None
        self.shipper: Shipper | None = None
        self.lost = 0
        """Records that could not be stored while there was no spool."""
        self._settings = settings
        self._before_settling = before_settling
        self._locks: dict[str, threading.Lock] = {}
        self._counting = threading.Lock()
        self._access = Access()
        self._next_try = 0.0
        self._delay = _FIRST_RETRY
        self._stopped = False

    def open(self) -> Spool:
        """Return the spool.

        Raises:
            SpoolError: There is none, and it cannot be made now.
        """
        spool = self.spool
        if spool is not None and not spool.gone:
            return spool
        with self._creation:
            if self.spool is not None and not self.spool.gone:
                return self.spool
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
            self.spool = spool
            return spool

    def wake(self) -> None:
        """Tell the shipper, where there is one, that there is something to send."""
        shipper = self.shipper
        if shipper is not None:
            shipper.wake()

    def drop(self) -> None:
        """Count a record that could not be stored."""
        spool = self.spool
        if spool is not None and not spool.gone:
            spool.drop()
            return
        with self._counting:
            self.lost += 1

    def stop(self) -> None:
        """Send what waits, as far as the time allows, and end the stream."""
        with self._creation:
            self._stopped = True
            shipper, self.shipper = self.shipper, None
        if shipper is not None:
            shipper.stop(self._settings().shutdown_timeout)

    def leave(self) -> None:
        """Let the file go as a dead process's, for those that are forked from this one to take over.

        A thread in here that is inside SQLite at such a fork would leave its locks held for ever in the child.
        """
        with self._creation:
            spool, self.spool = self.spool, None
        if spool is not None:
            spool.stop()
            spool.file.close()
            spool.lock.release()

    def hold(self) -> None:
        """Keep everybody out of SQLite, before `fork`."""
        self._access.hold()

    def let_go(self) -> None:
        """Let them in again, in the parent."""
        self._access.let_go()

    def abandon(self) -> None:
        """Give everything up, in a child after `fork`: the shipper's thread does not exist here, its connections do."""
        atexit.unregister(self.stop)
        _abandoned.extend((self.spool, self.shipper))
        self.spool = self.shipper = None

    @property
    def _creation(self) -> threading.Lock:
        """Held while the spool is made, which lets other greenlets run.

        Made when it is needed: gevent's worker replaces the standard library's locks late, and in one made before
        that a greenlet would wait for ever, since it stops the thread in which the holder would go on.
        """
        return self._locks.setdefault("creation", threading.Lock())

    def _make(self) -> Spool:
        settings = self._settings()
        resource = encode_resource(settings.resource)
        spool = Spool(settings, resource, self._access)
        with self._counting:
            lost, self.lost = self.lost, 0
        if lost:
            spool.drop(lost)
        if self._stopped:
            spool.closed = True  # nobody is there to number and to send what it takes
            return spool
        if forks_unseen():
            return spool
        try:
            self._ship(settings, spool, resource)
        except RuntimeError as error:  # no more threads, or the interpreter is going down
            spool.discard()
            with self._counting:
                self.lost += lost
            raise SpoolUnavailable(f"the audit's thread cannot be started: {error}") from error
        return spool

    def _ship(self, settings: Settings, spool: Spool, resource: bytes) -> None:
        # In the worker: imported in gunicorn's master, urllib3 would keep the SSLContext that gevent replaces later,
        # and every TLS connection of the application would end in a RecursionError.
        from .shipper import Shipper  # noqa: PLC0415

        shipper = Shipper(settings, spool, resource, self._access, before_settling=self._before_settling)
        shipper.start()
        atexit.register(self.stop)
        self.shipper = shipper
        if threads_stand_still():
            logger.critical(
                "uWSGI runs without threads: audit records are kept in %s, but are sent only while requests are "
                "answered and when the process ends; start it with --enable-threads",
                settings.spool_dir,
            )
