"""The command `spanseal tokens`: who may send to the collector, and read from it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from spanseal_collector.errors import CollectorError
from spanseal_collector.tokens import Scope, Token, TokenFile, new_token, parse_lifetime
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import StorageError
from spanseal_storage.options import data_option
from spanseal_storage.output import Format, could_not, write_lines, write_rows

__all__ = ["tokens"]

_COLUMNS = ("id", "scope", "tenant", "name", "state", "created", "expires")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (CollectorError, StorageError) as error:
        could_not(str(error))


@click.group()
def tokens() -> None:
    """Say who may send to the collector, and who may read.

    Works while a collector is running, which follows within its next request.
    """


@tokens.command()
@data_option
@click.option(
    "--scope",
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it is for: to send records, to read the log, or both.",
)
@click.option("--tenant", default="", metavar="NAME", help="Put all its records into this tenant.")
@click.option("--expires", metavar="TIME", help="In which time it expires: 12h, 90d, 52w.  [default: never]")
@click.option("--name", default="", metavar="TEXT", help="Whose it is, for the list.")
def create(data: Path, scope: str, tenant: str, expires: str | None, name: str) -> None:
    """Make a token, and print it.

    It is printed this once: what is stored cannot be turned back into it. A sender gives it as
    OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20TOKEN".

    Exit codes: 0 done, 2 could not be done.
    """
    with _told():
        lifetime = None if expires is None else parse_lifetime(expires)
        text, token = new_token(Scope(scope), tenant=tenant, name=name, lifetime=lifetime)
        TokenFile(DataDirectory(data)).add(token)
        write_lines([text])
        click.echo(f"Token {token.id}; it is not shown again.", err=True)


@tokens.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def list_tokens(data: Path, *, as_json: bool) -> None:
    """List the tokens, without what is secret of them.

    Exit codes: 0 done, 2 could not be done.
    """
    with _told():
        found, _ = TokenFile(DataDirectory(data)).read()
        now = time.time()
        if as_json:
            write_lines(json.dumps(_as_data(token, now), ensure_ascii=False) for token in found)
        elif found:
            rows = [tuple(value or "" for value in _as_data(token, now).values()) for token in found]
            write_rows(Format.TABLE, _COLUMNS, rows, {"state": "cyan"})
        else:
            click.echo(f"No tokens in {data}.", err=True)


@tokens.command()
@data_option
@click.argument("token_id", metavar="ID")
def revoke(data: Path, token_id: str) -> None:
    """Revoke a token, by its id.

    For 7 days its sender is told to come again, so that it keeps what it has until it is given another one.

    Exit codes: 0 done, 2 could not be done.
    """
    with _told():
        token = TokenFile(DataDirectory(data)).revoke(token_id, int(time.time()))
        click.echo(f"Token {token.id} is revoked since {_time(token.revoked_at)}.")


def _as_data(token: Token, now: float) -> dict[str, str | None]:
    values = (
        token.id,
        token.scope.value,
        token.tenant,
        token.name,
        token.state(now).value,
        _time(token.created_at),
        _time(token.expires_at),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
