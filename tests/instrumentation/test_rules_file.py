"""The rules file: what is taken, and what is wrong with everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spanseal.api import checks
from spanseal.errors import ConfigurationError
from spanseal.meaning import rules_file
from spanseal.meaning.rules_file import Reference, RulesFile, read
from spanseal.meaning.rules_pattern import RoutePattern
from spanseal.meaning.yaml_schema import Document, Node


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def load(path: Path, *rules: str, top: str = "") -> RulesFile:
    """Read a file with these rules, one a line from line 3 on."""
    path.write_text("version: 1\nrules:\n" + "".join(f"- {{{rule}}}\n" for rule in rules) + top)
    return read(path)


def problems(path: Path, *rules: str, top: str = "") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, *rules, top=top)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_a_whole_rule(path: Path) -> None:
    path.write_text(
        """\
version: 1
rules:
  - route: [/patients/<pid>, "/wards/*", /records/**, unmatched]
    method: [GET, PURGE]
    status: [2xx, 404]
    action: patient_record.viewed
    resource: {type: patient, id: {variable: pid}}
    subject:
      type: ward
      id: {response: /data/0/ward~1id}
    outcome: failure
    failure_reason: "no: such"
    data_classes: [pii, phi]
    severity: high
    retention_class: hipaa
  - route: /health
    skip: probes
privileged:
  anything: [1]
""".replace("/patients/<pid>, ", "/patients/<int:pid>, ")
    )
    found = read(path)
    first, second = found.rules
    assert first.place == f"{path}:3"
    assert [pattern.text for pattern in first.routes] == [
        "/patients/<int:pid>",
        "/wards/*",
        "/records/**",
        "unmatched",
    ]
    assert first.methods == {"GET", "HEAD", "PURGE"}
    assert first.statuses == {*range(200, 300), 404}
    assert first.action == "patient_record.viewed"
    assert first.resource == Reference("patient", variable="pid")
    assert first.subject == Reference("ward", pointer="/data/0/ward~1id")
    assert (first.outcome, first.failure_reason) == ("failure", "no: such")
    assert first.data_classes == ("phi", "pii")
    assert (first.severity, first.retention_class, first.skip) == ("high", "hipaa", "")
    assert (second.place, second.skip, second.said) == (f"{path}:16", "probes", frozenset({"skip"}))
    assert isinstance(found.privileged, yaml.MappingNode)
    assert found.document.where(found.privileged) == f"{path}:19:3"


def test_a_file_without_rules(path: Path) -> None:
    path.write_text("version: 1")
    assert (read(path).rules, read(path).privileged) == ((), None)


def test_what_is_wrong_in_a_section_of_others_is_named_with_the_rest(path: Path) -> None:
    def section(document: Document, node: Node) -> None:
        document.mapping(node, "`privileged`", ("only",))

    path.write_text("version: 2\nprivileged: {olny: 1}")
    with pytest.raises(ConfigurationError) as caught:
        read(path, section)
    assert str(caught.value).splitlines() == [
        f"{path}:1:10: the version is `2`: write 1",
        f"{path}:2:14: `privileged` has no key `olny`: did you mean `only`?",
    ]


WRONG_TOP = [
    ("rules: []", "1:1: the rules file needs the key `version`"),
    ("version: '1'", "1:10: the version is `1`: write 1"),
    ("version: 1\nrule: []", "2:1: the rules file has no key `rule`: did you mean `rules`?"),
    ("version: 1\nrules: {a: b}", "2:8: `rules` is a mapping: write a list, `- …` or [a, b]"),
    ("version: 1\nrules:", "2:7: `rules` is nothing: write a list, `- …` or [a, b]"),
    ("version: 1\nrules: [a]", "2:9: a rule is a text: write keys with values, `key: value`"),
    ("- a", "1:1: the rules file is a list: write keys with values, `key: value`"),
    ("# nothing", " is empty: write `version: 1` and `rules:`, or set no SPANSEAL_RULES"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_TOP)
def test_a_file_of_another_form(path: Path, text: str, sentence: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    assert sentence in str(caught.value).splitlines()[0]


WRONG = [
    # keys
    ("rout: /a, severity: low", ["3:4: a rule has no key `rout`: did you mean `route`?"]),
    ("route: /a", ["3:3: this rule says nothing: write what such requests mean, or skip"]),
    (
        "severity: low, severity: high",
        ["3:19: the key `severity` is there twice, first in line 3: write it once"],
    ),
    # when
    ("route: a, severity: low", ["3:11: `a` is no route: it begins with a slash, or is the word unmatched"]),
    ("route: /a*, severity: low", ["3:11: `/a*` is no route: * stands for a whole segment"]),
    ("route: /**/a, severity: low", ["3:11: `/**/a` is no route: ** stands for the rest of a route"]),
    ("route: [/a, /a], severity: low", ["3:16: `/a` is there twice: write it once"]),
    ("route: [], severity: low", ["3:11: the route is an empty list"]),
    ("route: no, severity: low", ['3:11: the route is `no`, which YAML reads as true or false: write "no"']),
    ("route: {a: b}, severity: low", ["3:11: the route is a mapping: write a text"]),
    ("method: get, severity: low", ["3:12: `get` is no method: did you mean GET?"]),
    ("method: PSOT, severity: low", ["3:12: `PSOT` is no method: did you mean POST?"]),
    ("method: my method, severity: low", ["3:12: `my method` is no method: write it in capitals"]),
    ("method: [GET, GET], severity: low", ["3:18: `GET` is there twice"]),
    ("status: 2yx, severity: low", ["3:12: the status is `2yx`: write 404, 2xx, or a list of such"]),
    ("status: 600, severity: low", ["3:12: the status is `600`"]),
    ("status: [2xx, 204], severity: low", ["3:18: the status 204 is there twice"]),
    ("status: [[2xx]], severity: low", ["3:13: the status is a list"]),
    # what
    ("action: Viewed", ["3:12: the action `Viewed` is not of the form <resource>.<verb> in lower case"]),
    ("action: a.b.c", ["3:12: the action `a.b.c` is not of the form"]),
    (
        "action: audit_log.erased",
        ["3:12: the action `audit_log.erased` is one of Spanseal's own, as all of audit_log.*"],
    ),
    (
        "action: producer.gap",
        ["3:12: the action `producer.gap` is one of Spanseal's own, as all of producer.*"],
    ),
    ("action: on", ['3:12: the action is `on`, which YAML reads as true or false: write "on"']),
    ("outcome: fail", ["3:13: the outcome is `fail`: did you mean `failure`?"]),
    (
        "outcome: success, failure_reason: x",
        ["3:38: a failure_reason goes with outcome: failure, not success"],
    ),
    ("failure_reason: ''", ["3:20: the failure_reason is empty: write a text"]),
    ("data_classes: [PHI]", ["3:19: the data class `PHI` is no name in lower case"]),
    ("data_classes: ['a,b']", ["3:19: the data class `a,b` is no name"]),
    ("data_classes: [phi, phi]", ["3:24: `phi` is there twice"]),
    ("data_classes: []", ["3:18: the data_classes is an empty list"]),
    ("severity: hihg", ["3:14: the severity is `hihg`: did you mean `high`?"]),
    ("severity: 3", ['3:14: the severity is `3`, which YAML reads as a number: write "3"']),
    ("retention_class: 7 years", ["3:21: the retention_class `7 years` is no name in lower case"]),
    # ids
    ("resource: patient", ["3:14: the resource is a text: write keys with values"]),
    ("resource: {}", ["3:14: the resource says nothing: write {type: …, id: …}"]),
    ("resource: {kind: a}", ["3:15: the resource has no key `kind`: use `type`, `id`"]),
    (
        "route: /patients/<pid>, resource: {id: pdi}",
        ["3:43: the route /patients/<pid> has no variable `pdi`: did you mean `pid`?"],
    ),
    (
        "route: ['/a/<x>', /b], resource: {id: x}",
        ["3:42: the route /b has no variable `x`: it has none"],
    ),
    (
        "route: /a/<token>, resource: {id: token}",
        [
            "3:38: `token` is named like a credential, and those are not recorded: if its values are none, write {"
        ],
    ),
    (
        "resource: {id: {response: /data/api_key}}",
        ["3:30: `api_key` is named like a credential, and those are not recorded: if its values are none"],
    ),
    ("resource: {id: {response: data}}", ["3:30: `data` is no JSON pointer (RFC 6901)"]),
    ("resource: {id: {response: /a~2}}", ["3:30: `/a~2` is no JSON pointer"]),
    ("resource: {id: {response: /a, variable: b}}", ["3:19: the resource's id comes from one place"]),
    ("resource: {id: {secret: false}}", ["3:19: the resource's id comes from one place"]),
    ("resource: {id: {variable: a, secret: no}}", ["3:41: secret is `no`: write true or false"]),
    ("subject: {id: pid}", ["3:13: the subject needs the key `type`"]),
    ("subject: {type: patient}", ["3:13: the subject needs the key `id`"]),
    # skip
    ("skip:", ["3:9: the reason to skip is missing: write a text after the colon"]),
    ("skip: true", ['3:10: the reason to skip is `true`, which YAML reads as true or false: write "true"']),
    ("skip: x, severity: low", ["3:23: `skip` stands alone with route and method: leave out `severity`"]),
    ("skip: x, status: 404", ["3:21: `skip` stands alone with route and method: leave out `status`"]),
    # several
    (
        "rout: /a, severity: hihg, action: x",
        [
            "3:4: a rule has no key `rout`: did you mean `route`?",
            "3:24: the severity is `hihg`: did you mean `high`?",
            "3:38: the action `x` is not of the form",
        ],
    ),
]


@pytest.mark.parametrize(("rule", "sentences"), WRONG, ids=[rule for rule, _ in WRONG])
def test_what_is_wrong_is_told_with_its_place_and_what_to_write(
    path: Path, rule: str, sentences: list[str]
) -> None:
    told = problems(path, rule)
    assert len(told) == len(sentences), told
    for line, sentence in zip(told, sentences, strict=True):
        assert line.startswith(sentence), told


def test_what_an_application_may_call_an_outcome_is_one_thing() -> None:
    assert rules_file.OUTCOMES == checks._OUTCOMES


def test_a_credential_that_is_none_is_taken(path: Path) -> None:
    found = load(
        path,
        "route: /countries/<code>, resource: {id: {variable: code, secret: false}}",
        "route: /b, resource: {id: {response: /key, secret: false}}",
        'route: "/c/<pid>", resource: {id: ""}',
        "route: /d/*, resource: {id: anything}",
    )
    assert [rule.resource for rule in found.rules] == [
        Reference(variable="code"),
        Reference(pointer="/key"),
        Reference(no_id=True),
        Reference(variable="anything"),
    ]


# --- rules that are never reached ---------------------------------------------------------------------------

UNREACHED = [
    ("route: /a, severity: low", "route: /a, severity: high"),
    ("severity: low", "route: /a, method: GET, status: 404, severity: high"),
    ("route: /a/**, severity: low", "route: [/a, /a/b, '/a/<x>/c/**'], severity: high"),
    ("route: /a/*, severity: low", "route: ['/a/<x>', /a/b, /a/*], severity: high"),
    ("route: '/a/<x>', severity: low", "route: '/a/<int:x>', severity: high"),
    ("route: /a, method: GET, severity: low", "route: /a, method: [HEAD], severity: high"),
    ("route: /a, status: 4xx, severity: low", "route: /a, status: [404, 410], severity: high"),
    ("route: /a, severity: low, action: a.b", "route: /a, severity: high"),
    ("route: /a, skip: x", "route: /a, severity: high"),
    ("route: /a, status: 404, severity: low", "route: /a, skip: x"),
    ("route: unmatched, severity: low", "route: unmatched, severity: high"),
]


@pytest.mark.parametrize(("first", "second"), UNREACHED)
def test_a_rule_that_is_never_reached_is_named(path: Path, first: str, second: str) -> None:
    (told,) = problems(path, first, second)
    assert told.startswith("4:3: this rule is never reached: the one in line 3 holds for all of its requests")


REACHED = [
    ("route: /a, severity: low", "route: /a, severity: low, action: a.b"),
    ("route: /a, severity: low", "route: [/a, /b], severity: high"),
    ("route: /a/*, severity: low", "route: /a/**, severity: high"),
    ("route: /a, severity: low", "route: /a/**, severity: high"),
    ("route: '/a/<int:x>', severity: low", "route: '/a/<x>', severity: high"),
    ("route: /a, method: HEAD, severity: low", "route: /a, method: GET, severity: high"),
    ("route: /a, method: GET, severity: low", "route: /a, severity: high"),
    ("route: /a, status: 404, severity: low", "route: /a, status: 4xx, severity: high"),
    ("route: /a, status: 404, severity: low", "route: /a, severity: high"),
    ("route: /**, severity: low", "route: unmatched, severity: high"),
    ("route: /**, severity: low", "severity: high"),
    ("route: /a/b, severity: low", "route: /a/**, skip: x"),
    ("route: /a, skip: x", "route: /a/b, severity: high"),
]


@pytest.mark.parametrize(("first", "second"), REACHED)
def test_a_rule_that_has_something_left_to_say_is_taken(path: Path, first: str, second: str) -> None:
    assert len(load(path, first, second).rules) == 2


def test_two_rules_can_hide_a_third_together(path: Path) -> None:
    (told,) = problems(
        path, "route: /a, action: a.b", "route: /a, severity: low", "route: /a, severity: high, action: c.d"
    )
    assert told.startswith("5:3: this rule is never reached")


def test_a_rule_that_is_wrong_hides_no_other(path: Path) -> None:
    told = problems(path, "route: a, severity: low", "route: /b, severity: high")
    assert [line.partition(" ")[0] for line in told] == ["3:11:"]


def test_there_can_be_too_many(path: Path) -> None:
    many = [f"route: /{number}, severity: low" for number in range(rules_file.MAX_RULES + 1)]
    assert len(load(path, *many[:-1]).rules) == rules_file.MAX_RULES
    assert problems(path, *many) == [
        f"{rules_file.MAX_RULES + 3}:3: more than 1000 rules: say more with * and **"
    ]


# --- patterns ------------------------------------------------------------------------------------------------

MATCHES = [
    ("/patients/<pid>", "/patients/<pid>", True),
    ("/patients/<pid>", "/patients/<int:pid>", True),
    ("/patients/<int:pid>", "/patients/<pid>", False),
    ("/patients/<pid>", "/patients/<other>", False),
    ("/patients/<pid>", "/patients/<pid>/", False),
    ("/reports/<rid>.pdf", "/reports/<int:rid>.pdf", True),
    ("/a/*", "/a/b", True),
    ("/a/*", "/a/<x>", True),
    ("/a/*", "/a/", False),
    ("/a/*", "/a/b/c", False),
    ("/a/*/c", '/a/<regex("[^/]+/x"):b>/c', True),
    ("/a/**", "/a", True),
    ("/a/**", "/a/", True),
    ("/a/**", "/a/<x>/b", True),
    ("/a/**", "/ab", False),
    ("/**", "/", True),
    ("/", "/", True),
    ("/", "/a", False),
    ("/**", None, False),
    ("unmatched", None, True),
    ("unmatched", "/unmatched", False),
]


@pytest.mark.parametrize(("pattern", "route", "expected"), MATCHES)
def test_which_routes_a_pattern_matches(pattern: str, route: str | None, expected: bool) -> None:  # noqa: FBT001
    assert RoutePattern.parse(pattern).matches(route) is expected
