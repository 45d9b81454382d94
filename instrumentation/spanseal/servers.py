"""What a server does to its processes that matters for a thread in the background."""

from __future__ import annotations

import sys

__all__ = ["threads_stand_still"]


def threads_stand_still() -> bool:
    """Say whether threads run only while a request is answered: under uWSGI before 2.0.27 without --enable-threads."""
    # The server itself makes this module; no package brings it. 0 is said where threads are off.
    uwsgi = sys.modules.get("uwsgi")
    return getattr(uwsgi, "has_threads", None) == 0
