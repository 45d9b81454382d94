"""The streams of this directory that ended and that no later stream has named yet.

A small JSON file, changed under the directory's lock only. If it is lost, streams are not named by their
successors, which a verifier tells as information: nothing else depends on it.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger("spanseal")

_MOST = 256


class EndedStreams:
    """The list, while the directory is locked."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.entries = entries
        self.changed = False

    def add(self, destination: str, instance: str, tenant: str, stream: str, last: int) -> None:
        """Remember a stream that ended with the number `last` (-1 for none)."""
        self.entries.append(
            {
                "destination": destination,
                "instance": instance,
                "tenant": tenant,
                "stream_id": stream,
                "last": last,
            }
        )
        self.entries = self.entries[-_MOST:]
        self.changed = True

    def take(self, destination: str, instance: str, tenant: str) -> list[tuple[str, int]]:
        """Take out the streams that a new stream of this instance has to name."""
        wanted = {"destination": destination, "instance": instance, "tenant": tenant}
        taken = [entry for entry in self.entries if wanted.items() <= entry.items()]
        if taken:
            self.entries = [entry for entry in self.entries if entry not in taken]
            self.changed = True
        return [(str(entry["stream_id"]), int(entry["last"])) for entry in taken]


@contextmanager
def ended_streams(directory: Path) -> Iterator[EndedStreams]:
    """Read the list, and write it back if it was changed. The caller holds the directory's lock."""
    path = directory / "ended-streams.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise ValueError("not a list")  # noqa: TRY004  # one way out for everything unreadable
    except FileNotFoundError:
        entries = []
    except ValueError as error:
        logger.warning("%s is damaged (%s): earlier streams will not be named by later ones", path, error)
        entries = []
    ended = EndedStreams([entry for entry in entries if isinstance(entry, dict)])
    yield ended
    if ended.changed:
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(ended.entries, file)
        temporary.replace(path)
