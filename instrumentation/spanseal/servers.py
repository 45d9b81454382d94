"""What a server does to its processes that matters for a thread in the background."""

from __future__ import annotations

import sys

__all__ = ["forks_unseen", "threads_stand_still"]


def forks_unseen() -> bool:
    """Say whether this process will fork without telling Python: uWSGI's master, in which applications are loaded."""
    uwsgi = sys.modules.get("uwsgi")
    # A worker's number is 1 or more. (So is not that of mules and spoolers, which are served by this as well.)
    return uwsgi is not None and getattr(uwsgi, "worker_id", lambda: 1)() == 0


def threads_stand_still() -> bool:
    """Say whether threads run only while a request is answered: under uWSGI before 2.0.27 without --enable-threads."""
    # The server itself makes this module; no package brings it. 0 is said where threads are off.
    uwsgi = sys.modules.get("uwsgi")
    return getattr(uwsgi, "has_threads", None) == 0
