"""The command `spanseal routes`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from spanseal.errors import ConfigurationError, SpansealError

__all__ = ["routes"]

# As `routes_report.GAPS`; that module needs the instrumentation's packages, and help must not.
_KINDS = ("unmapped", "no-resource-id", "no-actor", "verb-under-get", "unused-rule")
_HEADINGS = ("METHOD", "ROUTE", "ACTION", "RESOURCE", "CLASSES", "SAID BY", "GAPS")


@click.command()
@click.argument("app", metavar="APP")
@click.option(
    "--rules",
    "rules_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Rules file.  [default: that of SPANSEAL_RULES]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(("gap", *_KINDS)),
    help="Exit with 1 where there is such a gap; `gap` is any. Repeatable.",
)
@click.option(
    "--write",
    "write_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a rules file to begin with: every route with its default. Never over a file that is there.",
)
def routes(
    app: str,
    rules_path: Path | None,
    write_path: Path | None,
    fail_on: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Show what each route of a Flask app is recorded as, and where that leaves a gap.

    APP is named as for gunicorn and `flask --app`: module:app, or module:factory(). It is imported, with the
    working directory first on the path, and not audited.

    Gaps:

    \b
      unmapped        the action says nothing of what was done
      no-resource-id  it changes something, and the record does not say which one
      no-actor        nothing that Spanseal knows of tells who asks
      verb-under-get  a verb in the path of a GET, which is recorded as viewing
      unused-rule     a rule that matches no route

    What the application says itself with annotate() or set_actor() cannot be seen here.

    Exit codes: 0 done, 1 gaps with --fail-on, 2 could not be done.
    """  # noqa: D301 - \b is click's mark for a paragraph that is not to be wrapped
    if write_path is not None and rules_path is not None:
        raise click.UsageError("--write writes the defaults: leave out --rules")
    try:
        found = _report(app, rules_path, use_rules=write_path is None)
        if write_path is not None:
            _write(write_path, found)
    except SpansealError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(_as_data(app, found), ensure_ascii=True))
    elif write_path is not None:
        click.echo(f"{write_path} is written: {len(found.routes)} routes")
    else:
        _show(found)
    kinds = found.kinds()
    sys.exit(1 if kinds and ("gap" in fail_on or kinds & set(fail_on)) else 0)


def _report(target: str, rules_path: Path | None, *, use_rules: bool) -> Any:
    from spanseal.gate.policy_file import read_policy  # noqa: PLC0415 - help needs none of what the report needs
    from spanseal.meaning.rules import DEFAULTS, Rules  # noqa: PLC0415
    from spanseal.meaning.rules_file import read  # noqa: PLC0415

    from .routes_app import load_app  # noqa: PLC0415
    from .routes_report import report  # noqa: PLC0415

    rules = DEFAULTS
    named = os.environ.get("SPANSEAL_RULES", "").strip()
    path = rules_path or (Path(named) if named else None)
    if use_rules and path is not None:
        try:
            rules = Rules(read(path, read_policy).rules)
        except ConfigurationError as error:
            raise ConfigurationError(f"the rules file cannot be used:\n{error}") from None
    return report(load_app(target), rules)


def _write(path: Path, found: Any) -> None:
    from .routes_starter import starter  # noqa: PLC0415 - as above

    text = starter(found)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already: name another file, or remove it") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


# --- output --------------------------------------------------------------------------------------------------


def _as_data(target: str, found: Any) -> dict[str, Any]:
    return {
        "app": target,
        "actor_sources": list(found.actors),
        "routes": [line.as_data() for line in found.routes],
        "unmatched": {"action": found.unmatched.action, "skip": found.unmatched_skip or None},
        "findings": [{"kind": one.kind, "place": one.place, "text": one.text} for one in found.findings],
        "gaps": sum(len(line.gaps) for line in found.routes) + len(found.findings),
    }


def _show(found: Any) -> None:
    rows = [_printable(row) for line in found.routes for row in _rows(line)]
    _table(rows)
    click.echo()
    unmatched = f"not recorded: {found.unmatched_skip}" if found.unmatched_skip else found.unmatched.action
    click.echo(_text(f"Requests without a route: {unmatched}"))
    click.echo(_text(f"Actors may come from: {', '.join(found.actors) or 'nowhere that Spanseal knows of'}"))
    for one in found.findings:
        click.echo(_text(f"{_place(one.place)}: {one.text}"))
    gaps: dict[str, int] = {}
    for line in found.routes:
        for gap in line.gaps:
            gaps[gap.kind] = gaps.get(gap.kind, 0) + 1
    for one in found.findings:
        gaps[one.kind] = gaps.get(one.kind, 0) + 1
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(gaps.items())) or "none"
    click.echo(f"{len(found.routes)} routes, gaps: {told}")


def _rows(line: Any) -> Iterator[Sequence[str]]:
    if line.skip:
        yield line.method, line.route, f"not recorded: {line.skip}", "", "", _place(line.skip_place), ""
        return
    gaps = ", ".join(gap.kind for gap in line.gaps)
    yield line.method, line.route, *_meaning(line.resolved), gaps
    for variant in line.variants:
        yield "", f"  if {variant.status}", *_meaning(variant.resolved), ""


def _meaning(found: Any) -> tuple[str, str, str, str]:
    outcome = ": ".join(part for part in (found.outcome, found.failure_reason) if part)
    action = f"{found.action} ({outcome})" if outcome else found.action
    reference = found.resource
    identifier = f"={reference.variable}" if reference.variable else ""
    if reference.pointer:
        identifier = f"=answer {reference.pointer}"
    classes = str(found.attributes.get("audit.data_classes", ""))
    places = list(dict.fromkeys(_place(source) for source in found.sources.values()))
    first = _place(found.sources["action"])
    said = [first, *(place for place in places if place != first and not place.startswith("default"))]
    resource = f"{found.resource_type}{identifier}"
    if found.subject.variable or found.subject.pointer:
        resource += f" of {found.subject_type}={found.subject.variable or f'answer {found.subject.pointer}'}"
    return action, resource, classes, ", ".join(said)


def _place(source: str) -> str:
    """Name a rule's place without the way to its file."""
    return source if source.startswith(("default", "@")) else source.rpartition("/")[2]


def _text(text: str) -> str:
    """Return text that cannot act on a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _printable(row: Sequence[str]) -> list[str]:
    return [_text(cell) for cell in row]


def _table(rows: list[list[str]]) -> None:
    if sys.stdout.isatty():
        try:
            from rich import box  # noqa: PLC0415 - comes with the collector's extra only
            from rich.console import Console  # noqa: PLC0415
            from rich.table import Table  # noqa: PLC0415
            from rich.text import Text  # noqa: PLC0415
        except ImportError:
            pass
        else:
            table = Table(*_HEADINGS, box=box.SIMPLE_HEAD, pad_edge=False)
            for row in rows:
                table.add_row(*(Text(cell, overflow="fold") for cell in row))
            Console(highlight=False).print(table)
            return
    widths = [max(len(row[at]) for row in [list(_HEADINGS), *rows]) for at in range(len(_HEADINGS))]
    for row in [list(_HEADINGS), *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
