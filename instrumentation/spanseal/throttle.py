"""Saying a thing that goes on being so once a minute, not at every request."""

from __future__ import annotations

import time

__all__ = ["Throttle"]

SECONDS = 60.0
_MOST = 256


class Throttle:
    """Remembers what was said when. Safe to use from any thread: at worst something is said twice."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def due(self, what: str) -> bool:
        """Say whether `what` was not said within the last minute, and take it for said now."""
        now = time.monotonic()
        at = self._said.get(what)
        if at is not None and now - at < SECONDS:
            return False
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[what] = now
        return True
