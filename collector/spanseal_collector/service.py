"""The running collector: directory, engine, keys, history, pipeline and servers, in the order they depend."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvicorn

from spanseal_collector.admission import Admitter, Draft
from spanseal_collector.deduplication import Deduplicator
from spanseal_collector.errors import CollectorError
from spanseal_collector.lineage import History, predecessors_json, read_history
from spanseal_collector.pipeline import Limits, Pipeline
from spanseal_collector.receiver import make_receiver
from spanseal_collector.sealer import FORMAT, Sealer
from spanseal_collector.version import VERSION
from spanseal_ledger.note import SigningKey
from spanseal_storage import migrations
from spanseal_storage.checkpoint_file import CheckpointFile, read_checkpoint_file
from spanseal_storage.directory import DataDirectory, Identity, Runtime, write_private
from spanseal_storage.engine import Engine, Role, open_engine
from spanseal_storage.errors import SchemaError
from spanseal_storage.keys import load_signing_key, trusted_keys
from spanseal_storage.rows import RecordTable
from spanseal_storage.sql_endpoint import make_app
from spanseal_storage.writer import Writer

__all__ = ["BindError", "CollectorConfig", "Ready", "serve"]

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10


class BindError(CollectorError):
    """The address to listen at cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorConfig:
    """Everything that can be told to a collector."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 4318
    log_name: str | None = None
    collector_name: str | None = None
    checkpoint_log: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def sha256(self) -> str:
        """Digest of the effective configuration, as it is sealed in `audit_log.started`."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Ready:
    """What a collector tells when it listens."""

    identity: Identity
    vkey: str
    chain_id: str
    url: str
    checkpoint_log: Path
    predecessors: int


class _Server(uvicorn.Server):
    """A server that leaves the signals to the one who runs several of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(config: CollectorConfig, on_ready: Callable[[Ready], None]) -> bool:
    """Run a collector until SIGTERM or SIGINT.

    Args:
        config: what to do.
        on_ready: called once it listens.

    Returns:
        Whether the chain was ended with `audit_log.stopped`.

    Raises:
        DirectoryBusyError: another process holds the directory.
        BindError: the address cannot be had.
        StorageError: the directory, the engine, a key or the checkpoint log cannot be used.

    """
    directory = DataDirectory(config.data)
    identity = directory.create(config.log_name, config.collector_name)
    with directory.hold("spanseal collector"):
        listener = _listen(config.host, config.port)
        try:
            _migrate(directory)
            key = load_signing_key(directory)
            log_path = config.checkpoint_log or directory.checkpoint_log
            with open_engine(directory, Role.WRITER) as engine, CheckpointFile(log_path) as checkpoints:
                history = _catch_up(engine, directory, identity, key, checkpoints, log_path)
                client = engine.client()
                try:
                    pipeline = Pipeline(
                        new_chain=_chains(config, identity, key, history),
                        records=Writer(client),
                        checkpoints=checkpoints,
                        deduplicator=Deduplicator(RecordTable(client)),
                        limits=config.limits,
                    )
                    pipeline.start()
                    port = listener.getsockname()[1]
                    ready = Ready(
                        identity,
                        str(key.vkey),
                        pipeline.chain_id,
                        f"http://{_shown_host(config.host)}:{port}",
                        log_path,
                        len(history.predecessors),
                    )
                    try:
                        asyncio.run(_run(directory, engine, pipeline, listener, lambda: on_ready(ready)))
                    finally:
                        ended = pipeline.stop()
                finally:
                    client.close()
        finally:
            listener.close()
    return ended


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise BindError(
            f"cannot listen at {host}:{port}: {error}; give another --port, or stop what holds it"
        ) from error
    return listener


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _migrate(directory: DataDirectory) -> None:
    """Migrate with an owner's rights, which are given up before anything is received."""
    with contextlib.suppress(SchemaError), open_engine(directory, Role.READER):
        return
    with open_engine(directory, Role.OWNER) as engine:
        client = engine.client()
        try:
            for migration in migrations.migrate(client):
                _log.info("applied schema version %d: %s", migration.version, migration.name)
        finally:
            client.close()


def _catch_up(
    engine: Engine,
    directory: DataDirectory,
    identity: Identity,
    key: SigningKey,
    checkpoints: CheckpointFile,
    log_path: Path,
) -> History:
    """Enter in the checkpoint log what was stored but not logged when the last collector died."""
    lines, problems = read_checkpoint_file(log_path)
    for problem in problems:
        _log.warning("checkpoint log %s: %s", log_path, problem)
    client = engine.client()
    try:
        history = read_history(client, lines, identity.log_name, key.vkey, trusted_keys(directory))
    finally:
        client.close()
    for line in history.missing_lines:
        checkpoints.append(line)
    if history.missing_lines:
        _log.info("entered %d stored checkpoints in the checkpoint log", len(history.missing_lines))
    return history


def _chains(
    config: CollectorConfig, identity: Identity, key: SigningKey, history: History
) -> Callable[[Sealer | None], tuple[Sealer, Draft]]:
    def new_chain(previous: Sealer | None) -> tuple[Sealer, Draft]:
        earlier = history.predecessors if previous is None else [previous.checkpoint()]
        sealer = Sealer(key, identity.log_name, identity.collector_name)
        started = sealer.own(
            "audit_log.started",
            {
                "audit.chain.format": FORMAT,
                "audit.chain.key": str(key.vkey),
                "audit.chain.predecessors": predecessors_json(earlier),
                "audit.collector.name": identity.collector_name,
                "audit.collector.version": VERSION,
                "audit.config.sha256": config.sha256(),
            },
        )
        return sealer, started

    return new_chain


def _pseudonym_key(directory: DataDirectory) -> bytes:
    path = directory.keys / "pseudonym.key"
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n")
    return bytes.fromhex(path.read_text("utf-8").strip())


async def _run(
    directory: DataDirectory,
    engine: Engine,
    pipeline: Pipeline,
    listener: socket.socket,
    on_ready: Callable[[], None],
) -> None:
    token = secrets.token_urlsafe(32)

    def authorize(given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), token.encode())

    admitter = Admitter(_pseudonym_key(directory))
    queries = _listen("127.0.0.1", 0)
    receiver = _server(make_receiver(admitter, pipeline))
    query_app = make_app(engine, authorize=authorize)
    reader = _server(query_app)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [
        asyncio.create_task(receiver.serve(sockets=[listener])),
        asyncio.create_task(reader.serve(sockets=[queries])),
    ]
    try:
        directory.publish_runtime(Runtime(os.getpid(), "127.0.0.1", queries.getsockname()[1], token))
        on_ready()
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    finally:
        directory.withdraw_runtime()
        receiver.should_exit = reader.should_exit = True
        await asyncio.gather(*tasks)
        await asyncio.to_thread(query_app.state.close)
        queries.close()


def _server(app: object) -> _Server:
    return _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]  # uvicorn's own alias of an ASGI application is narrower than ASGI's
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            h11_max_incomplete_event_size=64 << 10,
        )
    )
