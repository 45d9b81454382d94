"""The command `spanseal`: each room brings its own commands, which are loaded when they are called."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from .__about__ import __version__

__all__ = ["main"]

GROUP = "spanseal.commands"


class Rooms(click.Group):
    """A group whose commands are entry points: what is not installed says which extra brings it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, installed whole or not."""
        del ctx
        return sorted(entry_point.name for entry_point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        del ctx
        for entry_point in entry_points(group=GROUP, name=cmd_name):
            try:
                command: Any = entry_point.load()
            except ModuleNotFoundError as error:
                return _not_installed(entry_point, error)
            if isinstance(command, click.Command):
                return command
        return None


def _not_installed(entry_point: EntryPoint, error: ModuleNotFoundError) -> click.Command:
    message = (
        f"`spanseal {entry_point.name}` needs packages that are not installed here ({error}); "
        "on the machine that keeps the log: pip install 'spanseal[embedded]'"
    )

    @click.command(
        entry_point.name,
        help=message,
        short_help="(not installed here)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @click.pass_context
    def missing(ctx: click.Context) -> None:
        click.echo(f"Error: {message}", err=True)
        ctx.exit(2)

    return missing


@click.group(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="spanseal")
def main() -> None:
    """Tamper-evident audit trails from OpenTelemetry request spans.

    In an application there is nothing to call: with Spanseal installed, it is audited when it is
    started with opentelemetry-instrument. On its side:

    \b
      spanseal doctor        is everything set up
      spanseal routes        what each route is recorded as
      spanseal spool         what waits to be sent

    On the machine that keeps the log:

    \b
      spanseal collector     take records, chain and sign them, store them
      spanseal events        who did what
      spanseal verify        was anything tampered with

    Exit codes: 0 all is well, 1 findings, 2 it could not be done.
    """  # noqa: D301 - \b is click's mark for a paragraph that is not to be wrapped
