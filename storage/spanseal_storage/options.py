"""Options that commands of several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from spanseal_ledger.note import VerificationKey
from spanseal_storage.directory import DataDirectory
from spanseal_storage.errors import KeyFileError
from spanseal_storage.keys import read_verification_keys, trusted_keys

__all__ = ["data_option", "key_options", "pinned_keys"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    envvar="SPANSEAL_DATA",
    default="spanseal-data",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Data directory.",
)


def key_options(default: str) -> Callable[[_Command], _Command]:
    """Give a command `--key` and `--keys`, as `key_texts` and `key_file`.

    Args:
        default: where the keys come from if neither is given; empty where one must be.

    """
    shown = f"  [default: {default}]" if default else ""

    def decorate(command: _Command) -> _Command:
        command = click.option(
            "--keys",
            "key_file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help=f"File of trusted verification keys, one a line.{shown}",
        )(command)
        return click.option(
            "--key",
            "key_texts",
            multiple=True,
            metavar="VKEY",
            help="A trusted verification key; repeatable.",
        )(command)

    return decorate


def pinned_keys(
    directory: DataDirectory | None, key_texts: tuple[str, ...], key_file: Path | None
) -> list[VerificationKey]:
    """Read the keys that a command was given; those beside the data where it was given none.

    Raises:
        KeyFileError: one is malformed or cannot be read, or there is no directory and none was given.

    """
    keys = read_verification_keys(key_texts, "--key")
    if key_file is not None:
        try:
            keys += read_verification_keys(key_file.read_text("utf-8").splitlines(), str(key_file))
        except (OSError, ValueError) as error:
            raise KeyFileError(f"cannot read {key_file}: {error}") from error
    if not key_texts and key_file is None:
        if directory is None:
            raise KeyFileError(
                "no key is trusted: give --key VKEY or --keys FILE, as you got it with the log"
            )
        keys = trusted_keys(directory)
    return keys
