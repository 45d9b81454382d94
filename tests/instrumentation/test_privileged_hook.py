"""The gate stands under `opentelemetry-instrument`, also where nothing else could be set up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instrumentation.conftest import Audit

PROGRAM = """
import json, sys
import flask

app = flask.Flask("clinic")
app.secret_key = "a made-up key"

@app.delete("/users/<uid>")
def delete(uid):
    sys.stderr.write("THE VIEW RAN\\n")
    return uid

@app.get("/patients")
def patients():
    return "none"

client = app.test_client()
answers = [client.delete("/users/1"), client.get("/patients")]
sys.stdout.write(json.dumps([answer.status_code for answer in answers]))
"""

GATED = "version: 1\nprivileged: {actions: {user.deleted: {confirm: 15m}}}\n"
BROKEN = "version: 1\nrules: [{route: /a\n"
WRONG = "version: 1\nprivileged: {actions: {user.deleted: {confirm: 15}}}\n"


@pytest.mark.parametrize(
    ("policy", "variables", "expected", "said"),
    [
        (BROKEN, {}, [200, 200], "requests are recorded by the default rules"),
        (BROKEN + GATED, {}, [503, 503], "every request is refused"),
        ("", {}, [503, 200], "what is privileged by the seed is refused"),
        (None, {}, [503, 200], "what is privileged by the seed is refused"),
        (GATED, {}, [403, 200], ""),
        (WRONG, {}, [503, 503], "every request is refused"),
        (GATED, {"SPANSEAL_DURABILITY": "full"}, [503, 200], "privileged actions are refused"),
        (WRONG, {"SPANSEAL_DURABILITY": "full"}, [503, 503], "privileged actions are refused"),
        ("version: 1\n", {"SPANSEAL_DURABILITY": "full"}, [200, 200], "could not be set up"),
        (GATED, {"SPANSEAL_DURABILITY": "full", "SPANSEAL_ON_ERROR": "closed"}, [503, 503], "refused"),
    ],
)
def test_the_gate_stands_whatever_else_could_not_be_set_up(
    audit: Audit,
    tmp_path: Path,
    policy: str | None,
    variables: dict[str, str],
    expected: list[int],
    said: str,
) -> None:
    rules = tmp_path / "rules.yaml"
    if policy is not None:
        rules.write_text(policy)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    audit.set(
        SPANSEAL_RULES=str(rules),
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        **variables,
    )
    done = subprocess.run(
        [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == expected
    assert ("THE VIEW RAN" in done.stderr) is (expected[0] == 200)
    assert said in done.stderr
