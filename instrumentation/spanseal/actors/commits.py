"""Looking at the user before SQLAlchemy forgets it.

After a commit SQLAlchemy takes what its objects hold for outdated, and fetches it anew when it is looked at. Nothing
here fetches, so the user's role would not be known at the end of a request that has stored something. It is looked at
just before the commit instead.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from spanseal.errors import NotAudited
from spanseal.request import current_request

__all__ = ["watch"]

logger = logging.getLogger("spanseal")

_watched: list[object] = []


def watch() -> None:
    """Begin to look before commits, where the application has loaded SQLAlchemy. Twice is once."""
    orm = sys.modules.get("sqlalchemy.orm")
    session = getattr(orm, "Session", None)
    if session is None or session in _watched:
        return
    _watched.append(session)
    try:
        sys.modules["sqlalchemy.event"].listen(session, "before_commit", _before_commit)
    except Exception:
        logger.exception("SQLAlchemy's commits cannot be watched: roles of its users may be missing")


def _before_commit(_session: object) -> None:
    request = current_request.get()
    if request is not None and request.look is not None:
        # Whether the request may go on is decided at its own stages, not in the middle of a transaction.
        with suppress(NotAudited):
            request.look(request)
