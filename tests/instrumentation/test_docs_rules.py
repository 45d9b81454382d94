"""docs/rules.md: its files can be read, its names are the program's, and so are its options."""

from __future__ import annotations

import re
from pathlib import Path

import flask
import pytest
from click.testing import CliRunner

from spanseal.cli import main
from spanseal.commands import routes_report
from spanseal.errors import ConfigurationError
from spanseal.meaning import rules_file
from spanseal.meaning.json_answer import MAX_BYTES
from spanseal.meaning.mapping import UNMATCHED, plan_of
from spanseal.meaning.rules import Rules, load_rules
from spanseal.meaning.rules_file import read
from spanseal.meaning.yaml_schema import MAX_BYTES as MOST_OF_A_FILE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text("utf-8")
FILES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `(GET|POST|PUT|PATCH|DELETE) /", line)
]


@pytest.fixture
def rules(tmp_path: Path) -> list[Rules]:
    loaded = []
    for number, text in enumerate(FILES):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        loaded.append(load_rules(path))
    return loaded


def test_its_files_mean_what_it_says(rules: list[Rules]) -> None:
    first, countries, asking = rules
    assert first.skips("GET", "/health")
    assert first.pointers("POST", "/patients", 201) == ("/data/id",)
    viewed = first.meaning("GET", "/patients/<int:pid>", {"pid": "3"}, 200)
    assert (viewed.action, viewed.resource_id) == ("patient_record.viewed", "3")
    assert viewed.attributes == {
        "audit.data_classes": "phi",
        "audit.severity": "high",
        "audit.retention_class": "hipaa",
    }
    assert first.meaning("GET", "/wards/<wid>/patients", {}, 200).attributes["audit.data_classes"] == "phi"
    assert first.meaning("POST", "/login", {}, 200).failure_reason == "wrong password"
    assert countries.meaning("GET", "/countries/<code>", {"code": "ch"}, 200).resource_id == "ch"
    assert [bool(asking.skips(method, "/a")) for method in ("HEAD", "OPTIONS", "GET")] == [True, True, False]


def test_its_names_are_the_programs() -> None:
    assert len(ROWS) > 40
    for requests, action, *resource in ROWS:
        for request in re.findall(r"`([^`]+)`", requests):
            method, route = request.split(" ")
            plan = plan_of(method, route)
            assert f"`{plan.action}`" == action, request
            if resource:
                shown = plan.resource_type + (f", `{plan.variable}`" if plan.variable else "")
                subject = (
                    f"; subject {plan.subject_type}, `{plan.subject_variable}`" if plan.subject_type else ""
                )
                assert shown + subject == resource[0], request
    assert f"`{UNMATCHED}`" in PAGE


def test_its_keys_words_and_bounds_are_the_programs() -> None:
    keys = re.findall(r"^\| `([a-z_]+)` \| ", PAGE, re.MULTILINE)
    assert set(rules_file._KEYS) == set(keys) - {"unmapped"}
    for word in (*rules_file.SEVERITIES, *rules_file.OUTCOMES, "phi", "chd", "pii"):
        assert f"`{word}`" in PAGE
    assert f"{MAX_BYTES >> 10} KiB and no content coding" in PAGE
    assert f"{MOST_OF_A_FILE >> 10} KiB are\nrefused" in PAGE


def test_the_mistakes_it_shows_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text("version: 1\nrules:\n  - rout: /a\n    method: GTE\n    severity: low\n")
    with pytest.raises(ConfigurationError) as caught:
        read(Path("rules.yaml"))
    assert f"```\n{caught.value}\n```" in PAGE


def test_the_command_it_describes_is_there() -> None:
    help_text = CliRunner().invoke(main, ["routes", "--help"]).output
    shown = re.findall(r"^spanseal routes .*$", PAGE, re.MULTILINE)
    assert len(shown) == 4
    options = {word for line in shown for word in line.split() if word.startswith("--")}
    assert options == {"--rules", "--fail-on", "--json", "--write"}
    assert all(option in help_text for option in options)
    for gap in routes_report.GAPS:
        assert f"| `{gap}` | " in PAGE
    app = flask.Flask("x")
    assert routes_report.actor_sources(app, {}) in ((), ("Flask-HTTPAuth",))
