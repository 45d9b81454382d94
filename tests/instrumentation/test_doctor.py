"""`spanseal doctor`: a set-up that works, and one for each thing that does not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from spanseal.cli import main
from spanseal.commands import doctor
from spanseal.commands.doctor import Finding, examine
from tests.instrumentation.conftest import Audit
from tests.instrumentation.fake_receiver import Reply


def found(check: str) -> list[Finding]:
    return [finding for finding in examine() if finding.check == check]


def only(check: str) -> Finding:
    (finding,) = found(check)
    return finding


def alone(audit: Audit, *names: str) -> None:
    """Leave out the checks that take long and are not looked at."""
    audit.monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in names})


def test_a_set_up_that_works_and_nothing_is_left_of_the_look(audit: Audit) -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    findings = [json.loads(line) for line in result.output.splitlines()]
    assert {finding["check"]: finding["level"] for finding in findings} == dict.fromkeys(
        ["settings", *doctor.CHECKS], "ok"
    )
    assert len(findings) == len(doctor.CHECKS) + 1
    assert result.exit_code == 0
    assert list(audit.directory.iterdir()) == []
    assert audit.receiver.taken == []


def test_everything_that_is_wrong_with_the_variables(audit: Audit) -> None:
    audit.set(SPANSEAL_DURABILITY="moon", SPANSEAL_TRUSTED_PROXIES="x", SPANSEAL_TENNANT="a")
    findings = list(examine())
    assert [finding.level for finding in findings] == ["problem", "problem", "warning"]
    assert "SPANSEAL_TENANT" in findings[2].found
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "SPANSEAL_DURABILITY is 'moon'" in result.output


@pytest.mark.parametrize(
    ("variables", "level", "words"),
    [
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "spanseal"}, "problem", "switched off"),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"}, "ok", "audits Flask"),
    ],
)
def test_the_hook_is_looked_at_where_it_works(
    audit: Audit, variables: dict[str, str], level: str, words: str
) -> None:
    audit.set(**variables)
    alone(audit, "hook")
    finding = only("hook")
    assert (finding.level, words in finding.found) == (level, True)


def test_a_hook_that_fails_is_told_with_its_reason(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "flask.py").write_text("raise RuntimeError('not the real one')")
    audit.set(PYTHONPATH=str(tmp_path))
    alone(audit, "hook")
    finding = only("hook")
    assert (finding.level, "does not audit" in finding.found) == ("problem", True)
    assert "not the real one" in finding.found


def file_in_the_way(audit: Audit) -> None:
    audit.directory.write_text("")


def readable_by_others(audit: Audit) -> None:
    audit.directory.mkdir(mode=0o755)
    audit.directory.chmod(0o755)


def more_than_the_disk(audit: Audit) -> None:
    audit.set(SPANSEAL_SPOOL_MAX_BYTES=str(1 << 60))


def damaged_file(audit: Audit) -> None:
    audit.directory.mkdir(mode=0o700)
    (audit.directory / "x.damaged").write_text("")


@pytest.mark.parametrize(
    ("break_it", "level", "words"),
    [
        (file_in_the_way, "problem", "cannot be written"),
        (readable_by_others, "warning", "mode 755"),
        (more_than_the_disk, "warning", "MiB are free"),
        (damaged_file, "problem", "1 damaged"),
    ],
)
def test_what_is_wrong_with_the_spool(
    audit: Audit, break_it: Callable[[Audit], None], level: str, words: str
) -> None:
    break_it(audit)
    alone(audit, "spool")
    assert [finding.found for finding in found("spool") if finding.level == level and words in finding.found]


_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted


@pytest.mark.skipif(not os.access(_MEMORY, os.W_OK), reason="there is no file system in memory")
def test_a_spool_in_memory_is_warned_of(audit: Audit) -> None:
    directory = _MEMORY / f"spanseal-test-{os.getpid()}"
    audit.set(SPANSEAL_SPOOL_DIR=str(directory))
    alone(audit, "spool")
    finding = only("spool")
    directory.rmdir()
    assert (finding.level, "tmpfs" in finding.found) == ("warning", True)


def test_a_collector_that_refuses_and_one_that_is_not_there(audit: Audit) -> None:
    alone(audit, "collector", "clock")
    audit.receiver.answer = lambda _: Reply(401)
    refused = only("collector")
    assert (refused.level, "OTEL_EXPORTER_OTLP_HEADERS" in refused.found) == ("problem", True)
    audit.set(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert only("collector").level == "problem"
    assert only("clock").level == "warning"


def test_what_is_sent_in_the_clear_to_elsewhere_is_warned_of(audit: Audit) -> None:
    alone(audit, "collector")
    audit.set(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector.invalid:4318")
    assert [finding.level for finding in found("collector")] == ["problem", "warning"]


@pytest.mark.parametrize(("ahead", "words"), [(60.0, "ahead of"), (-60.0, "behind")])
def test_a_clock_that_is_wrong(audit: Audit, ahead: float, words: str) -> None:
    alone(audit, "clock")
    assert only("clock").level == "ok"
    # The receiver in this process keeps the right time.
    audit.monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    finding = only("clock")
    assert (finding.level, words in finding.found) == ("problem", True)


def test_a_resolver_and_rules_that_cannot_be_loaded(audit: Audit, tmp_path: Path) -> None:
    alone(audit, "actor", "rules")
    audit.set(SPANSEAL_ACTOR_RESOLVER="no_such_module:who", SPANSEAL_RULES=str(tmp_path / "none.yaml"))
    assert (only("actor").level, only("rules").level) == ("problem", "problem")


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("version: 1\nprivileged: {seed: true}\n", "ok", "7 actions are privileged"),
        ("version: 1\nprivileged: {seed: maybe}\n", "problem", "rules.yaml:2:"),
        ("version: 1\nrules: [{route: /a, actoin: a.b}]\n", "problem", "did you mean"),
    ],
)
def test_rules_and_what_is_privileged_are_read(
    audit: Audit, tmp_path: Path, text: str, level: str, words: str
) -> None:
    alone(audit, "rules")
    (tmp_path / "rules.yaml").write_text(text)
    audit.set(SPANSEAL_RULES=str(tmp_path / "rules.yaml"))
    finding = only("rules")
    assert (finding.level, words in finding.found) == (level, True), finding.found


def test_a_check_that_fails_itself_does_not_end_the_others(audit: Audit) -> None:
    def failing(_: object) -> None:
        raise ZeroDivisionError

    audit.monkeypatch.setattr(doctor, "CHECKS", {"hook": failing, "actor": doctor.CHECKS["actor"]})
    assert [finding.level for finding in examine()] == ["ok", "problem", "ok"]
