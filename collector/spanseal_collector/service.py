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
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spanseal_collector.admission import Admitter, Draft
from spanseal_collector.authentication import Authenticator, Tokens, tokens_needed
from spanseal_collector.deduplication import Deduplicator
from spanseal_collector.errors import BindError
from spanseal_collector.failures import FailureReports
from spanseal_collector.http_server import make_server
from spanseal_collector.intake import Intake
from spanseal_collector.lineage import History, predecessors_json, read_history
from spanseal_collector.pipeline import Limits, NewChain, Pipeline
from spanseal_collector.quarantine import LeftRow, own_record
from spanseal_collector.receiver import make_receiver
from spanseal_collector.sealer import FORMAT, Sealer
from spanseal_collector.tokens import TokenFile
from spanseal_collector.version import VERSION
from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.note import SigningKey
from spanseal_storage import migrations
from spanseal_storage.checkpoint_file import CheckpointFile, read_checkpoint_file
from spanseal_storage.directory import DataDirectory, Identity, Runtime, write_private
from spanseal_storage.engine import Engine, Role, open_engine
from spanseal_storage.errors import KeyFileError, NotADataDirectoryError, SchemaError
from spanseal_storage.keys import load_signing_key, trusted_keys
from spanseal_storage.rows import RecordTable
from spanseal_storage.sql_endpoint import make_app
from spanseal_storage.writer import Writer

if TYPE_CHECKING:
    from spanseal_collector.grpc_receiver import GrpcReceiver

__all__ = ["CollectorConfig", "Ready", "serve"]

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10
_STOP_SECONDS = 15.0
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorConfig:
    """Everything that can be told to a collector."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 4318
    """Of OTLP/HTTP; 0 takes a free one."""
    grpc_port: int | None = 4317
    """Of OTLP/gRPC, likewise; None where it is not served."""
    log_name: str | None = None
    collector_name: str | None = None
    checkpoint_log: Path | None = None
    require_tokens: bool = False
    """Whether senders need a token even before there is one."""
    insecure_no_auth: bool = False
    """Whether it may listen beyond the loopback interface without any."""
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
    grpc_address: str | None
    checkpoint_log: Path
    predecessors: int
    tokens_needed: bool
    """To send records; it may become so later."""
    queries: str
    """Where SQL is answered."""


def serve(
    config: CollectorConfig, on_ready: Callable[[Ready], None], on_stop: Callable[[], None] = lambda: None
) -> bool:
    """Run a collector until SIGTERM or SIGINT, or until it cannot commit any more.

    Args:
        config: what to do.
        on_ready: called once it listens.
        on_stop: called once it begins to stop.

    Returns:
        Whether the chain was ended with `audit_log.stopped`.

    Raises:
        DirectoryBusyError: another process holds the directory.
        NoTokenError: senders are to need a token, and there is none.
        TokenFileError: the token file cannot be read.
        BindError: the address cannot be had.
        StorageError: the directory, the engine, a key or the checkpoint log cannot be used.

    """
    directory = DataDirectory(config.data)
    token_file = TokenFile(directory)
    needed = tokens_needed(
        token_file, config.host, require=config.require_tokens, insecure=config.insecure_no_auth
    )
    identity = directory.create(config.log_name, config.collector_name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(directory.hold("spanseal collector"))
        listener = stack.enter_context(_listen(config.host, config.port))
        if config.grpc_port is not None:
            # gRPC takes no socket that is bound already. Who cannot have the port is told before a chain begins.
            _listen(config.host, config.grpc_port, "--grpc-port").close()
        stack.enter_context(_private_temporaries(directory))
        _migrate(directory)
        key = load_signing_key(directory)
        admitter = Admitter(_pseudonym_key(directory))
        log_path = config.checkpoint_log or directory.checkpoint_log
        engine = stack.enter_context(open_engine(directory, Role.WRITER))
        checkpoints = stack.enter_context(CheckpointFile(log_path))
        history = _catch_up(engine, directory, identity, key, checkpoints, log_path)
        client = stack.enter_context(contextlib.closing(engine.client()))
        pipeline = Pipeline(
            new_chain=_chains(config, identity, key, history.left_rows),
            predecessors=history.predecessors,
            records=Writer(client),
            checkpoints=checkpoints,
            deduplicator=Deduplicator(RecordTable(client)),
            limits=config.limits,
        )
        pipeline.start()
        host = _shown_host(config.host)

        def listening(grpc_port: int | None, queries_port: int) -> None:
            on_ready(
                Ready(
                    identity,
                    str(key.vkey),
                    pipeline.chain_id,
                    f"http://{host}:{listener.getsockname()[1]}",
                    None if grpc_port is None else f"{host}:{grpc_port}",
                    log_path,
                    len(history.predecessors),
                    needed,
                    f"http://127.0.0.1:{queries_port}",
                )
            )

        authenticator = Authenticator(Tokens(token_file, required=needed), FailureReports(pipeline.submit))
        intake = Intake(admitter, pipeline, authenticator)
        try:
            asyncio.run(_run(directory, engine, intake, listener, config.grpc_port, listening, on_stop))
        finally:
            ended = pipeline.stop(_STOP_SECONDS)
    return ended


def _listen(host: str, port: int, option: str = "--port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise BindError(
            f"cannot listen at {host}:{port}: {error}; give another {option}, or stop what holds it"
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
    config: CollectorConfig, identity: Identity, key: SigningKey, left_rows: Sequence[LeftRow]
) -> NewChain:
    left = list(left_rows)

    def new_chain(predecessors: Sequence[Checkpoint]) -> tuple[Sealer, list[Draft]]:
        sealer = Sealer(key, identity.log_name, identity.collector_name)
        started = sealer.own(
            "audit_log.started",
            {
                "audit.chain.format": FORMAT,
                "audit.chain.key": str(key.vkey),
                "audit.chain.predecessors": predecessors_json(predecessors),
                "audit.collector.name": identity.collector_name,
                "audit.collector.version": VERSION,
                "audit.config.sha256": config.sha256(),
            },
        )
        drafts = [started, *(own_record(row, sealer) for row in left)]
        left.clear()
        return sealer, drafts

    return new_chain


def _pseudonym_key(directory: DataDirectory) -> bytes:
    path = directory.keys / "pseudonym.key"
    try:
        if not path.exists():
            write_private(path, secrets.token_hex(_KEY_BYTES) + "\n")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        # Not the error's own text: it may hold a part of the key.
        raise KeyFileError(
            f"cannot read {path} ({type(error).__name__}); restore it, never edit it"
        ) from None
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"{path} does not hold {_KEY_BYTES} bytes in hex; restore it, never edit it")
    return key


@contextlib.contextmanager
def _private_temporaries(directory: DataDirectory) -> Iterator[None]:
    """Keep temporary files within the data directory, and remove what a killed collector left.

    An insert goes through a temporary file. It holds what the log holds, so it has no place in a directory that
    is shared, on a disk that is not encrypted.
    """
    folder = directory.path / "tmp"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
    except OSError as error:
        raise NotADataDirectoryError(f"cannot prepare {folder}: {error}") from error
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


async def _run(
    directory: DataDirectory,
    engine: Engine,
    intake: Intake,
    listener: socket.socket,
    grpc_port: int | None,
    on_ready: Callable[[int | None, int], None],
    on_stop: Callable[[], None],
) -> None:
    pipeline, authenticator = intake.pipeline, intake.authenticator
    token = secrets.token_urlsafe(32)

    def authorize(given: str | None) -> bool:
        if given is not None and hmac.compare_digest(given.encode(), token.encode()):
            return True
        return authenticator is not None and authenticator.may_read(given or "")

    query_app = make_app(engine, authorize=authorize)
    reader = make_server(query_app, drain_seconds=_DRAIN_SECONDS)
    receiver = make_server(make_receiver(intake), drain_seconds=_DRAIN_SECONDS)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def commits_no_more(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it is stopping as it is
            loop.call_soon_threadsafe(stop.set)

    pipeline.ended.add_done_callback(commits_no_more)
    with _listen("127.0.0.1", 0) as queries:
        grpc_receiver, bound = await _grpc(intake, listener.getsockname()[0], grpc_port)
        tasks = [
            asyncio.create_task(receiver.serve(sockets=[listener])),
            asyncio.create_task(reader.serve(sockets=[queries])),
        ]
        try:
            directory.publish_runtime(Runtime(os.getpid(), "127.0.0.1", queries.getsockname()[1], token))
            on_ready(bound, queries.getsockname()[1])
            waiting = asyncio.create_task(stop.wait())
            await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        finally:
            on_stop()
            pipeline.hurry()
            directory.withdraw_runtime()
            receiver.should_exit = reader.should_exit = True
            receiving, reading = tasks
            if grpc_receiver is not None:
                await grpc_receiver.stop(_DRAIN_SECONDS)
            await receiving
            if authenticator is not None:
                authenticator.reports.flush()
            # The chain is ended before anybody waits for questions that are still being answered.
            await asyncio.to_thread(pipeline.stop, _STOP_SECONDS)
            await asyncio.to_thread(query_app.state.close)
            await reading


async def _grpc(intake: Intake, host: str, port: int | None) -> tuple[GrpcReceiver | None, int | None]:
    if port is None:
        return None, None
    # gRPC's own library would write what peers say to standard error, to the byte; it asks this when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from spanseal_collector.grpc_receiver import GrpcReceiver  # noqa: PLC0415

    receiver = GrpcReceiver(intake)
    return receiver, await receiver.start(host, port)
