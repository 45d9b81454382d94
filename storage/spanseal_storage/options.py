"""Options that commands of several rooms share."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["data_option"]

data_option = click.option(
    "--data",
    envvar="SPANSEAL_DATA",
    default="spanseal-data",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Data directory.",
)
