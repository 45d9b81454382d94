"""`spanseal doctor`: checks the set-up of an application, and says what to do."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

import click

from .doctor import examine

__all__ = ["doctor"]

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("problem", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each finding.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check the set-up of an application, and say what to do.

    Run it in the application's environment, directory and variables, as its user. It looks whether
    opentelemetry-instrument audits Flask, whether the spool can be written and the collector takes
    records, whether the clocks agree, and whether the actor's resolver and the rules can be loaded.
    Nothing is recorded by it.

    Exit codes: 0 no problem, 1 problems.
    """
    # As gunicorn and flask have it: the resolver stands where the application does.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - text is what sys.path holds
    problems = 0
    for finding in examine():
        problems += finding.level == "problem"
        if as_json:
            click.echo(json.dumps(asdict(finding)))
            continue
        mark, colour = _MARKS[finding.level]
        click.echo(f"{click.style(f'{mark:<8}', fg=colour)} {finding.check:<10} {finding.found}")
        if finding.advice:
            click.echo(f"{'':<8} {'':<10} {click.style('-> ' + finding.advice, dim=True)}")
    ctx.exit(1 if problems else 0)
