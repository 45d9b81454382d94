"""What one process has counted, for its metrics."""

from __future__ import annotations

__all__ = ["Tally"]


class Tally:
    """Plain numbers. Requests' threads add to them without a lock: `+= 1` on an attribute is not interrupted."""

    __slots__ = (
        "answered",
        "begun",
        "dropped",
        "entered",
        "final",
        "forgotten",
        "refused",
        "sent",
        "settled",
    )

    def __init__(self) -> None:
        self.begun = 0
        """Records stored before their view ran."""
        self.answered = 0
        """Records stored when their answer began."""
        self.final = 0
        """Records that got their number, the producer's own included."""
        self.entered = 0
        """Rows made for records that were not final at once."""
        self.settled = 0
        """Those of them that became final."""
        self.forgotten = 0
        """Final records that are out of this process's own file."""
        self.sent = 0
        """Records that the collector has stored, dead processes' included."""
        self.refused = 0
        """Records that were set aside, dead processes' included."""
        self.dropped = 0
        """Records that could not be stored."""
