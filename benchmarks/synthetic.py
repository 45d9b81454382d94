"""Makes a real log of any size: sealed, signed and stored as the collector does it, without the network."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from spanseal_collector.admission import Draft
from spanseal_collector.sealer import FORMAT, Sealer
from spanseal_collector.uuid7 import uuid7
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.record import Record
from spanseal_storage import migrations
from spanseal_storage.checkpoint_file import CheckpointFile
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import load_signing_key
from spanseal_storage.writer import Writer

__all__ = ["make_log", "synthetic_draft"]

_BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_STREAM = "web-1/0192f000-0000-7000-8000-0000000000aa"


def synthetic_draft(number: int) -> Draft:
    """Make the draft of a request as the instrumentation would record it."""
    failed = number % 50 == 7
    status = 403 if failed else 200
    record = Record(
        chain_id="",
        seq=0,
        tenant_seq=0,
        received_at=0,
        event_time=time.time_ns(),
        producer_seq=number,
        record_id=uuid7(),
        tenant="default",
        producer_id=_STREAM,
        service="clinic",
        actor_type="user",
        actor_id=f"u-{number % 1000}",
        actor_role="nurse",
        session_id="",
        action="patient.viewed",
        outcome="failure" if failed else "success",
        failure_reason="Forbidden" if failed else "",
        resource_type="patient",
        resource_id=str(number % 50_000),
        request_id=uuid7(),
        trace_id=os.urandom(16).hex(),
        span_id=os.urandom(8).hex(),
        actor_ip="10.0.0.7",
        personal={"user.name": f"user.{number % 1000}", "user_agent.original": _BROWSER},
        metadata={
            "audit.capture": "wsgi",
            "http.request.method": "GET",
            "http.response.status_code": str(status),
            "http.route": "/patients/<int:pid>",
            "scope.name": "spanseal",
            "scope.version": "0.1.0",
        },
        metadata_types="ssisss",
    )
    return Draft(record, untimed=False, size=1024)


def make_log(
    data: Path, records: int, batch: int = 5000, progress: Callable[[int], None] | None = None
) -> DataDirectory:
    """Make a log of one ended chain in a new data directory.

    Args:
        data: the directory.
        records: how many besides the collector's own two.
        batch: records in one insert.
        progress: told how many are done.

    """
    directory = new_log(data)
    ranges = (range(start, min(start + batch, records)) for start in range(0, records, batch))
    write_chain(directory, ([synthetic_draft(number) for number in numbers] for numbers in ranges), progress)
    return directory


def new_log(data: Path) -> DataDirectory:
    """Make a data directory with an empty database."""
    directory = DataDirectory(data)
    directory.create("audit.example.org/bench", "collector-1")
    with directory.hold("make a log"), open_engine(directory, Role.OWNER) as engine:
        client = engine.client()
        migrations.migrate(client)
        client.close()
    return directory


def write_chain(
    directory: DataDirectory,
    batches: Iterable[Sequence[Draft]],
    progress: Callable[[int], None] | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Write one whole chain with a collector's own parts: its start, the batches, its end.

    Args:
        directory: of a log.
        batches: the drafts of each insert.
        progress: told how many are done.
        clock: when a batch was received, ns since the Unix epoch.

    """
    identity = directory.identity()
    key = load_signing_key(directory)
    with (
        directory.hold("make a log"),
        open_engine(directory, Role.WRITER) as engine,
        CheckpointFile(directory.checkpoint_log) as log,
    ):
        client = engine.client()
        writer = Writer(client)
        sealer = Sealer(key, identity.log_name, identity.collector_name)
        metadata = {
            "audit.chain.format": FORMAT,
            "audit.chain.key": str(key.vkey),
            "audit.chain.predecessors": "[]",
        }
        for drafts in itertools.chain(
            [[sealer.own("audit_log.started", metadata)]], batches, [[sealer.own("audit_log.stopped", {})]]
        ):
            sealed = sealer.seal(drafts, clock())
            writer.write(sealed)
            log.append(Line(received_at=sealed.received_at, note=sealed.note))
            if progress is not None:
                progress(sealer.size)
        client.close()
