"""What the rules file says is privileged, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanseal.gate.errors import GateUnavailable
from spanseal.gate.policy import SEED, Requirement, duration
from spanseal.gate.setup import load_policy

WHOLE = """\
version: 1
rules: []
privileged:
  confirmation: {session_key: confirmed}
  approvers: {roles: [admin, security]}
  store: db/approvals.db
  seed: true
  actions:
    admin.permission_granted: {confirm: 5m}
    user.deleted: {confirm: 15m, approval: 2h, use_within: 10m, bind_body: true}
    note.shredded: {approval: 1d}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def test_a_whole_policy(rules: Path) -> None:
    rules.write_text(WHOLE)
    policy = load_policy(rules)
    assert policy is not None
    assert policy.session_key == "confirmed"
    assert policy.approver_roles == {"admin", "security"}
    assert policy.store == rules.parent / "db" / "approvals.db"
    assert dict(policy.actions) == {
        **SEED,
        "admin.permission_granted": Requirement(confirm=300),
        "user.deleted": Requirement(confirm=900, approval=7200, use_within=600, bind_body=True),
        "note.shredded": Requirement(approval=86400),
    }


def test_functions_are_named_and_not_loaded(rules: Path) -> None:
    rules.write_text(
        "version: 1\nprivileged:\n  seed: true\n  confirmation: {callable: app.mfa:when}\n"
        "  approvers: {callable: app:Users.may}\n  store: {callable: app:store}\n"
    )
    policy = load_policy(rules)
    assert policy is not None
    assert (policy.confirmation, policy.approvers) == ("app.mfa:when", "app:Users.may")
    assert (policy.store, policy.store_factory) == (None, "app:store")


def test_no_file_and_no_section_are_no_policy(rules: Path) -> None:
    assert load_policy(None) is None
    rules.write_text("version: 1\nrules: []\n")
    assert load_policy(rules) is None


def test_the_seed_is_what_compliance_queries_look_for() -> None:
    assert set(SEED) == {
        "admin.permission_granted",
        "admin.role_changed",
        "user.deleted",
        "user.impersonated",
        "api_key.created",
        "data.bulk_exported",
        "config.changed",
    }
    assert {one.confirm for one in SEED.values()} == {900}
    assert {action for action, one in SEED.items() if one.approval} == {"user.deleted", "data.bulk_exported"}


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("privileged: yes", 3, "write keys with values"),
        ("privileged: {}", 3, "nothing is privileged here"),
        ("privileged:\n  sead: true", 4, "did you mean `seed`"),
        ("privileged:\n  seed: yes", 4, "write true or false"),
        (
            "privileged:\n  actions: {deleteUser: {confirm: 15m}}",
            4,
            "the action `deleteUser` is not of the form",
        ),
        ("privileged:\n  actions:\n    user.deleted: {}", 5, "takes nothing"),
        (
            "privileged:\n  actions:\n    user.deleted: {bind_body: true, confirm: 1m}",
            5,
            "write `approval` too",
        ),
        ("privileged:\n  actions:\n    user.deleted:\n      confirm: 15", 6, 'write "15"'),
        ("privileged:\n  actions:\n    user.deleted:\n      confirm: 15 min", 6, "such as 15m or 1h"),
        ("privileged:\n  actions:\n    user.deleted:\n      approval: 0h", 6, "from 1s to 30d"),
        ("privileged:\n  actions:\n    user.deleted:\n      aproval: 1h", 6, "did you mean `approval`"),
        ("privileged:\n  seed: true\n  approvers: {}", 5, "said in one way"),
        ("privileged:\n  seed: true\n  approvers: {roles: []}", 5, "name at least one"),
        ("privileged:\n  seed: true\n  approvers: {roles: [a], callable: a:b}", 5, "said in one way"),
        ("privileged:\n  seed: true\n  approvers: {callable: os.system}", 5, "write module:function"),
        ("privileged:\n  seed: true\n  confirmation: {callable: 'a:b()'}", 5, "write module:function"),
        ("privileged:\n  seed: true\n  confirmation: {}", 5, "says nothing"),
        ("privileged:\n  seed: true\n  confirmation: {session_key: a, callable: a:b}", 5, "from one place"),
        ("privileged:\n  seed: true\n  store: {callable: nothing}", 5, "write module:function"),
        ("rules: 5\nprivileged: {seed: true}", 3, "write a list"),
        ("privileged: [", 4, "expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(rules: Path, section: str, line: int, message: str) -> None:
    rules.write_text(f"version: 1\n\n{section}\n")
    with pytest.raises(GateUnavailable) as caught:
        load_policy(rules)
    assert f"{rules}:{line}:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "seed_only"),
    [
        (b"version: 1\nprivileged: &a {seed: *a}\n", False),
        (b"{version: 1,\n'privileged' : {seed: true}", False),
        (b"\t- \nprivileged:", False),
        (b"\xff\xfe", True),
        (b"", True),
        (None, True),
    ],
)
def test_a_file_that_may_have_a_policy_is_not_taken_for_one_without(
    rules: Path, content: bytes | None, *, seed_only: bool
) -> None:
    rules.unlink(missing_ok=True)
    if content is not None:
        rules.write_bytes(content)
    with pytest.raises(GateUnavailable) as caught:
        load_policy(rules)
    assert caught.value.seed_only == seed_only


@pytest.mark.parametrize(
    "content", ["- a list", "rules: [", "version: 1\nnotes: what is privileged: nothing\n"]
)
def test_a_wrong_file_without_the_section_gates_nothing(rules: Path, content: str) -> None:
    rules.write_text(content)
    assert load_policy(rules) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("1s", 1), ("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 30 * 86400)]
)
def test_durations(text: str, expected: int) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "15", "0m", "-1m", "31d", "1.5h", "15 m", "15M", "٣m", "9999999s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 15m"):
        duration(text)
