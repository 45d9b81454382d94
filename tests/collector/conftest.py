"""A real engine and a real checkpoint log for the pipeline's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.processes import Collector
from spanseal_collector.admission import Draft
from spanseal_collector.deduplication import Deduplicator
from spanseal_collector.lineage import predecessors_json
from spanseal_collector.pipeline import Limits, Pipeline
from spanseal_collector.sealer import FORMAT, Sealer
from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.note import SigningKey
from spanseal_ledger.verifier import TrustedKeys, VerificationResult
from spanseal_storage import migrations
from spanseal_storage.checkpoint_file import CheckpointFile, read_checkpoint_file
from spanseal_storage.directory import DataDirectory, Identity
from spanseal_storage.engine import Engine, Role, open_engine
from spanseal_storage.keys import load_signing_key, trusted_keys
from spanseal_storage.rows import RecordTable, query
from spanseal_storage.verification import verify_log
from spanseal_storage.writer import Writer
from tests.collector.http import verdict


@dataclass
class Log:
    """An open log, with what a pipeline needs."""

    directory: DataDirectory
    identity: Identity
    engine: Engine
    client: Any
    key: SigningKey
    checkpoints: CheckpointFile
    close: Callable[[], None]
    """Leaves the directory to another process."""

    def new_chain(self, predecessors: Sequence[Checkpoint]) -> tuple[Sealer, list[Draft]]:
        sealer = Sealer(self.key, self.identity.log_name, self.identity.collector_name)
        metadata = {
            "audit.chain.format": FORMAT,
            "audit.chain.key": str(self.key.vkey),
            "audit.chain.predecessors": predecessors_json(predecessors),
        }
        return sealer, [sealer.own("audit_log.started", metadata)]

    def pipeline(self, **changes: Any) -> Pipeline:
        parts: dict[str, Any] = {
            "new_chain": self.new_chain,
            "predecessors": (),
            "records": Writer(self.client),
            "checkpoints": self.checkpoints,
            "deduplicator": Deduplicator(RecordTable(self.client)),
            "limits": Limits(),
        }
        return Pipeline(**(parts | changes))

    def rows(self, columns: str, where: str = "1") -> list[Any]:
        client = self.engine.client()
        try:
            return query(
                client,
                f"SELECT {columns} FROM audit.records WHERE {where} ORDER BY received_at, chain_id, seq",
            )
        finally:
            client.close()

    def verify(self) -> VerificationResult:
        """Verify what is stored against the checkpoint log."""
        lines, problems = read_checkpoint_file(self.directory.checkpoint_log)
        assert not problems
        client = self.engine.client()
        try:
            keys = TrustedKeys(pinned=trusted_keys(self.directory))
            return verify_log(client, keys=keys, checkpoint_log=lines)
        finally:
            client.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    directory = DataDirectory(tmp_path / "data")
    identity = directory.create("audit.example.org/test", "collector-1")
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory.hold("test"))
        with open_engine(directory, Role.OWNER) as engine:
            client = engine.client()
            migrations.migrate(client)
            client.close()
        key = load_signing_key(directory)
        engine = stack.enter_context(open_engine(directory, Role.WRITER))
        checkpoints = stack.enter_context(CheckpointFile(directory.checkpoint_log))
        client = stack.enter_context(contextlib.closing(engine.client()))
        yield Log(directory, identity, engine, client, key, checkpoints, stack.close)


@pytest.fixture(scope="package")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that runs as a process, for tests that ask for their own records only."""
    folder = tmp_path_factory.mktemp("common")
    with Collector(folder / "data", folder / "collector.log") as running:
        yield running
        assert verdict(running.data)["verdict"] == "clean"
