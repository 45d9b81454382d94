"""The command `spanseal collector`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from spanseal_collector.authentication import is_loopback
from spanseal_collector.errors import CollectorError
from spanseal_collector.pipeline import Limits
from spanseal_collector.service import CollectorConfig, Ready, serve
from spanseal_ledger.errors import LedgerError
from spanseal_storage.errors import StorageError
from spanseal_storage.options import data_option

__all__ = ["collector", "end_anyway"]

_STOP_SECONDS = 35.0


def _port_or_off(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    return None if value == "off" else int(click.IntRange(0, 65535).convert(value, param, ctx))  # type: ignore[arg-type]  # it takes texts


@click.command()
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    default=4318,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of OTLP/HTTP; 0 takes a free one.",
)
@click.option(
    "--grpc-port",
    default="4317",
    show_default=True,
    metavar="PORT|off",
    callback=_port_or_off,
    help="Port of OTLP/gRPC; 0 takes a free one, off serves none.",
)
@click.option("--log-name", help="Name of the log, such as audit.example.org/prod; for a new directory only.")
@click.option("--collector-name", help="Name of this collector; for a new directory only.")
@click.option(
    "--checkpoint-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Checkpoint log, outside the database.  [default: DATA/checkpoints.jsonl]",
)
@click.option(
    "--heartbeat-interval",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=0.05, max=3600.0),
    help="Seconds between heartbeat records.",
)
@click.option(
    "--require-tokens", is_flag=True, help="Do not start while no token may send (see spanseal tokens)."
)
@click.option(
    "--insecure-no-auth",
    is_flag=True,
    help="Let anybody send who can reach this address, until there is a token.",
)
@click.option("--verbose", "-v", is_flag=True, help="Say more.")
def collector(
    data: Path,
    host: str,
    port: int,
    grpc_port: int | None,
    log_name: str | None,
    collector_name: str | None,
    checkpoint_log: Path | None,
    heartbeat_interval: float,
    *,
    require_tokens: bool,
    insecure_no_auth: bool,
    verbose: bool,
) -> None:
    """Take audit records over OTLP, chain them, sign them, store them.

    The data directory is made where there is none. Senders need a token as soon as there is one that may send
    (spanseal tokens create --scope ingest), and always where another --host than the loopback one is given.

    Listens at 127.0.0.1 for OTLP/HTTP (port 4318, POST /v1/logs, protobuf or JSON; gzip, zstd or neither) and
    for OTLP/gRPC (port 4317, gzip or not), and acknowledges only when records and signed checkpoint are on disk.
    Ends with SIGTERM or Ctrl-C: what was received is stored, and the
    chain is ended.

    Exit codes: 0 stopped and the chain ended, 1 stopped but the chain could not be ended, 2 could not start.
    """
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, markup=False)],
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if require_tokens and insecure_no_auth:
        raise click.UsageError("--require-tokens and --insecure-no-auth exclude each other")
    config = CollectorConfig(
        data=data,
        host=host,
        port=port,
        grpc_port=grpc_port,
        log_name=log_name,
        collector_name=collector_name,
        checkpoint_log=checkpoint_log,
        require_tokens=require_tokens,
        insecure_no_auth=insecure_no_auth,
        limits=Limits(heartbeat_seconds=heartbeat_interval),
    )
    try:
        ended = serve(config, lambda ready: _tell(console, config, ready), lambda: end_anyway(_STOP_SECONDS))
    except (StorageError, CollectorError, LedgerError) as error:
        console.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
        sys.exit(2)
    console.print("Stopped; the chain is ended." if ended else "Stopped, but the chain could not be ended.")
    sys.stdout.flush()
    # The engine's own threads may outlive its handles: nothing that is left to do is worth waiting for them.
    os._exit(0 if ended else 1)


def end_anyway(seconds: float) -> None:
    """End the process with code 1 in so many seconds, if it has not ended by then.

    The engine may hang on a disk that does not answer, and then cannot be closed either. What is stored is
    stored; the next start finds the chain as it is.
    """
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _tell(console: Console, config: CollectorConfig, ready: Ready) -> None:
    if ready.tokens_needed:
        senders = "need a token (spanseal tokens)"
    elif is_loopback(config.host):
        senders = "need no token: whoever is on this machine can send"
    else:
        senders = "need no token: whoever can reach this address can send (--insecure-no-auth)"
    if not is_loopback(config.host):
        console.print(
            f"Warning: {config.host} can be reached from elsewhere, and what is sent there, tokens too, is not "
            "encrypted: put it behind something that speaks TLS.",
            style="yellow",
        )
    rows = (
        ("listening", f"{ready.url}/v1/logs (OTLP/HTTP, protobuf and JSON)"),
        ("", f"{ready.grpc_address} (OTLP/gRPC)" if ready.grpc_address else "no OTLP/gRPC"),
        ("senders", senders),
        ("queries", f"{ready.queries} (ClickHouse's HTTP, for spanseal query and tokens that may read)"),
        ("data", str(config.data.absolute())),
        ("log", ready.identity.log_name),
        ("chain", f"{ready.chain_id} (names {ready.predecessors} earlier)"),
        ("checkpoints", str(ready.checkpoint_log)),
        ("public key", ready.vkey),
    )
    for name, value in rows:
        console.print(Text.assemble((f"{name:>12}  ", "bold"), value), soft_wrap=True)
