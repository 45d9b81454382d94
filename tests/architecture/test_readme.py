"""What the README says of commands and settings is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from spanseal.cli import main
from spanseal.settings import Settings
from spanseal.variables import variables_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
_VARIABLE = re.compile(r"SPANSEAL_[A-Z_]+")


def test_the_help_text_is_the_programs() -> None:
    shown = re.search(r"\$ spanseal --help\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    result = CliRunner().invoke(main, ["--help"], prog_name="spanseal", terminal_width=100)
    assert shown[1].rstrip() == result.output.rstrip()


def test_every_variable_is_in_the_readme_and_none_that_is_not_read() -> None:
    source = {
        name
        for room in ("instrumentation", "collector", "storage", "ledger")
        for path in (ROOT / room).rglob("*.py")
        for name in _VARIABLE.findall(path.read_text("utf-8"))
    }
    assert set(_VARIABLE.findall(README)) == source


def test_the_table_of_the_applications_settings_is_the_programs() -> None:
    _, _, after = README.partition("### Of the application\n")
    rows = [line for line in after.partition("\n### ")[0].splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{one.name}` | {f'`{one.default}`' if one.default else ''} | {one.meaning} |".replace(
            "|  |", "| |"
        )
        for one in variables_of(Settings).values()
    ]


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_subcommand_in_the_examples_takes_the_options_shown() -> None:
    for line in re.findall(r"^spanseal (.+?)(?:\s+#.*)?$", README, re.MULTILINE):
        words = line.split()
        options = [word for word in words if word.startswith("--")]
        names = words[:2] if words[0] in ("checkpoints", "spool", "approvals") else words[:1]
        result = CliRunner().invoke(main, [*names, "--help"])
        assert result.exit_code == 0, line
        assert [option for option in options if option not in result.output] == [], line
