"""The collector's wall clock, watched against the monotonic one (docs/format.md, "Life of a chain")."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["BACK_LIMIT_SECONDS", "FORWARD_LIMIT_SECONDS", "Clock"]

BACK_LIMIT_SECONDS = 1.0
FORWARD_LIMIT_SECONDS = 300.0


class Clock:
    """Wall time in ns that never goes back by itself, and says when the wall clock jumped. One thread."""

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._start = wall() - monotonic()
        self._last = 0
        self.offset = 0
        """Wall clock minus the time expected by the monotonic clock, in ns, since the last jump."""

    def read(self) -> tuple[int, float | None]:
        """Read the time.

        Returns:
            Nanoseconds since the epoch, never less than before but for a jump; and the jump in seconds where
            the wall clock stepped back by more than 1 s or forward by more than 5 min, else None.

        """
        wall = self._wall()
        self.offset = wall - self._monotonic() - self._start
        jump = self.offset / 1e9
        if jump < -BACK_LIMIT_SECONDS or jump > FORWARD_LIMIT_SECONDS:
            self._start += self.offset
            self.offset = 0
            self._last = wall
            return wall, jump
        self._last = max(self._last, wall)
        return self._last, None
