"""`spanseal routes`: what each route is recorded as, by which rule, and where that leaves a gap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from click.testing import CliRunner

import spanseal
from spanseal.cli import main
from spanseal.commands import routes_report
from spanseal.commands.routes_command import _KINDS
from spanseal.commands.routes_report import report
from spanseal.commands.routes_starter import starter
from spanseal.meaning import marks
from spanseal.meaning.mapping import map_request
from spanseal.meaning.rules import DEFAULTS, Rules, load_rules
from spanseal.meaning.rules_file import read

APP = """\
import flask
import spanseal

print("the application says something")
spanseal.record("service.loaded")
app = flask.Flask("shop", static_folder=None)
spanseal.instrument_app(app)


def view(**_):
    return "seen"


def create_app(name="shop", *, keyed=False):
    made = flask.Flask(name)
    made.secret_key = "a key" if keyed else None
    made.add_url_rule("/made", "made", view)
    return made


app.add_url_rule("/", "index", view)
app.add_url_rule("/orders", "list", view)
app.add_url_rule("/orders", "create", view, methods=["POST"])
app.add_url_rule("/orders/<int:oid>", "order", view, methods=["GET", "PUT", "DELETE"])
app.add_url_rule("/orders/<int:oid>/lines", "line", view, methods=["POST"])
app.add_url_rule("/delete/<int:oid>", "delete", view)
app.add_url_rule("/orders/<int:oid>/cancel", "cancel", view, methods=["GET", "POST"])
app.add_url_rule("/graphql", "graphql", view, methods=["POST"])
app.add_url_rule("/health", "health", view)
app.add_url_rule("/login", "login", view, methods=["GET", "POST"])
app.add_url_rule("/countries/<code>", "country", view, methods=["HEAD", "OPTIONS"])
app.add_url_rule("/marked/<x>", "marked", spanseal.action("thing.marked", resource_id="x")(lambda x: x), methods=["POST"])
"""
RULES = """\
version: 1
rules:
  - {route: /orders, method: POST, status: 201, resource: {type: order, id: {response: /id}}}
  - {route: /orders/**, data_classes: [chd], severity: high}
  - {route: /login, method: POST, status: 200, outcome: failure, failure_reason: wrong password}
  - {route: /health, skip: probes}
  - {route: /countries/<code>, resource: {type: country, id: {variable: code, secret: false}}}
  - {route: "/orders/<oid>/line", retention_class: short}
  - {route: /login, method: DELETE, severity: low}
  - {route: /delete/<oid>, action: order.deleted}
"""

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask-HTTPAuth is told by its module, which other tests of this process load."""
    monkeypatch.delitem(sys.modules, "flask_httpauth", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("SPANSEAL_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPANSEAL_SPOOL_DIR", str(tmp_path / "spool"))
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "rules.yaml").write_text(RULES)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("shop", "broken"):
        sys.modules.pop(name, None)


def run(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["routes", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


def lines_of(result: Any) -> dict[str, Any]:
    found = json.loads(result.stdout)["routes"]
    return {f"{line['method']} {line['route']}": line for line in found}


def kinds(line: Any) -> list[str]:
    return [gap["kind"] for gap in line["gaps"]]


def test_every_route_with_its_defaults(folder: Path) -> None:
    result = run("shop:app", "--json")
    found = lines_of(result)
    assert {key: (line["action"], line["sources"]["action"], kinds(line)) for key, line in found.items()} == {
        "GET /": ("index.viewed", "default: method", ["unmapped"]),
        "GET /orders": ("order.listed", "default: method", []),
        "POST /orders": ("order.created", "default: method", ["no-resource-id", "no-actor"]),
        "GET /orders/<int:oid>": ("order.viewed", "default: method", []),
        "PUT /orders/<int:oid>": ("order.updated", "default: method", ["no-actor"]),
        "DELETE /orders/<int:oid>": ("order.deleted", "default: method", ["no-actor"]),
        "POST /orders/<int:oid>/lines": ("line.created", "default: method", ["no-resource-id", "no-actor"]),
        "GET /delete/<int:oid>": (
            "record.viewed",
            "default: verb in the path",
            ["unmapped", "verb-under-get"],
        ),
        "GET /orders/<int:oid>/cancel": ("order.viewed", "default: verb in the path", []),
        "POST /orders/<int:oid>/cancel": ("order.cancelled", "default: verb in the path", ["no-actor"]),
        "POST /graphql": (
            "graphql.requested",
            "default: well-known",
            ["unmapped", "no-resource-id", "no-actor"],
        ),
        "GET /health": ("health.viewed", "default: well-known", []),
        "GET /login": ("login.viewed", "default: method", []),
        "POST /login": ("user.signed_in", "default: well-known", ["no-actor"]),
        "HEAD /countries/<code>": ("country.viewed", "default: method", []),
        "OPTIONS /countries/<code>": ("country.inspected", "default: method", []),
        "POST /marked/<x>": ("thing.marked", "@action", ["no-actor"]),
    }
    assert [key.partition(" ")[0] for key in found if "<int:oid>" in key and "l" not in key] == [
        "GET",
        "PUT",
        "DELETE",
    ]
    assert found["POST /marked/<x>"]["resource"] == {"type": "thing", "id": {"variable": "x"}}
    assert found["POST /orders/<int:oid>/lines"]["subject"] == {"type": "order", "id": {"variable": "oid"}}
    assert found["HEAD /countries/<code>"]["resource"] == {"type": "country", "id": None}
    whole = json.loads(result.stdout)
    assert (whole["unmatched"], whole["findings"], whole["actor_sources"]) == (
        {"action": "request.unmatched", "skip": None},
        [],
        [],
    )
    assert whole["gaps"] == sum(len(line["gaps"]) for line in whole["routes"]) == 15
    # What the application prints is not among it, and what it records goes nowhere.
    assert "the application says something" in result.stderr
    assert not (folder / "spool").exists()


@pytest.mark.usefixtures("folder")
def test_rules_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("shop:app", "--json", "--rules", "rules.yaml")
    monkeypatch.setenv("SPANSEAL_RULES", "rules.yaml")
    assert json.loads(run("shop:app", "--json").stdout) == json.loads(result.stdout)
    found = lines_of(result)
    created = found["POST /orders"]
    assert created["resource"] == {"type": "order", "id": {"response": "/id"}}
    assert (created["data_classes"], created["severity"]) == (["chd"], "high")
    assert created["sources"] == {
        "action": "default: method",
        "resource": "rules.yaml:3",
        "data_classes": "rules.yaml:4",
        "severity": "rules.yaml:4",
    }
    assert kinds(created) == ["no-actor"]
    assert kinds(found["GET /orders"]) == ["no-actor"]  # of a class, so it matters who reads it
    assert found["POST /login"]["outcome"] is None
    (variant,) = found["POST /login"]["by_status"]
    assert (variant["status"], variant["outcome"], variant["failure_reason"]) == (
        "200",
        "failure",
        "wrong password",
    )
    health = found["GET /health"]
    assert (health["skip"], health["gaps"], health["sources"]["skip"]) == ("probes", [], "rules.yaml:6")
    assert found["HEAD /countries/<code>"]["resource"] == {"type": "country", "id": {"variable": "code"}}
    assert kinds(found["GET /delete/<int:oid>"]) == []
    assert json.loads(result.stdout)["findings"] == [
        {
            "kind": "unused-rule",
            "place": "rules.yaml:8",
            "text": "/orders/<oid>/line matches no route",
        },
        {"kind": "unused-rule", "place": "rules.yaml:9", "text": "no route that /login matches takes DELETE"},
    ]


def test_an_almost_right_route_is_named(folder: Path) -> None:
    (folder / "rules.yaml").write_text(
        "version: 1\nrules:\n- {route: ['/orders/<id>', /orders/, /nothing, unmatched], severity: low}\n"
    )
    found = json.loads(run("shop:app", "--json", "--rules", "rules.yaml").stdout)["findings"]
    assert [one["text"] for one in found] == [
        "/orders/<id> matches no route: did you mean /orders/<int:oid>?",
        "/orders/ matches no route: did you mean /orders?",
        "/nothing matches no route",
    ]


@pytest.mark.usefixtures("folder")
def test_exit_codes() -> None:
    run("shop:app")
    for wanted in ("gap", "unmapped", "no-actor", "verb-under-get", "no-resource-id"):
        run("shop:app", "--fail-on", wanted, exit_code=1)
    run("shop:app", "--fail-on", "unused-rule")
    run("shop:app", "--fail-on", "unused-rule", "--rules", "rules.yaml", exit_code=1)
    run("shop:create_app", "--fail-on", "gap")
    assert set(_KINDS) == set(routes_report.GAPS)
    assert all(kind in CliRunner().invoke(main, ["routes", "--help"]).output for kind in _KINDS)


@pytest.mark.usefixtures("folder")
def test_the_table() -> None:
    output = run("shop:app", "--rules", "rules.yaml").stdout
    rows = [" ".join(line.split()) for line in output.splitlines()]
    assert rows[0] == "METHOD ROUTE ACTION RESOURCE CLASSES SAID BY GAPS"
    for row in (
        "GET / index.viewed index default: method unmapped",
        "GET /health not recorded: probes rules.yaml:6",
        "POST /login user.signed_in user default: well-known no-actor",
        "if 200 user.signed_in (failure: wrong password) user default: well-known, rules.yaml:5",
        "POST /orders order.created order=answer /id chd default: method, rules.yaml:3, rules.yaml:4 no-actor",
        "POST /orders/<int:oid>/lines line.created line of order=oid chd default: method, rules.yaml:4 no-resource-id, no-actor",
        "POST /marked/<x> thing.marked thing=x @action no-actor",
        "rules.yaml:8: /orders/<oid>/line matches no route",
        "Requests without a route: request.unmatched",
        "Actors may come from: nowhere that Spanseal knows of",
        "17 routes, gaps: 11 no-actor, 2 no-resource-id, 2 unmapped, 2 unused-rule",
    ):
        assert row in rows, output


COULD_NOT = [
    (["nothing:app"], "nothing"),
    (["shop:missing"], "missing"),
    (["shop:view"], "shop:view"),
    (["broken:app"], "while broken:app was imported: KeyError: 'SECRET'"),
    (["shop:app", "--rules", "no.yaml"], "no.yaml cannot be read: No such file or directory"),
    (["shop:app", "--rules", "shop.py"], "shop.py:"),
    (["shop:app", "--rules", "rules.yaml", "--write", "new.yaml"], "--write writes the defaults"),
    (["shop:app", "--write", "rules.yaml"], "rules.yaml is there already"),
    (["shop:app", "--write", "nowhere/rules.yaml"], "nowhere/rules.yaml cannot be written"),
]


@pytest.mark.parametrize(("arguments", "said"), COULD_NOT)
def test_what_could_not_be_done(folder: Path, arguments: list[str], said: str) -> None:
    (folder / "broken.py").write_text("import os\n\n\nos.environ['SECRET']\n")
    before = (folder / "rules.yaml").read_text()
    result = run(*arguments, exit_code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert "METHOD" not in result.stdout
    assert (folder / "rules.yaml").read_text() == before


ENDINGS = [
    ("import sys; sys.exit(3)", "it ended the process with 3"),
    ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    ("def f(:", "SyntaxError"),
    ("1 / 0", "ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("source", "said"), ENDINGS)
def test_an_application_that_fails_is_told_with_its_place(folder: Path, source: str, said: str) -> None:
    (folder / "broken.py").write_text(f"\n{source}\n")
    result = run("broken:app", exit_code=2)
    assert said in result.stderr
    assert "while broken:app was imported" in result.stderr
    if "1 / 0" in source:
        assert f"({folder / 'broken.py'}, line 2)" in result.stderr


@pytest.mark.parametrize(
    "target", ["shop:create_app", "shop:create_app()", "shop:create_app('x', keyed=True)"]
)
@pytest.mark.usefixtures("folder")
def test_factories(target: str) -> None:
    whole = json.loads(run(target, "--json").stdout)
    assert [line["route"] for line in whole["routes"]] == ["/made", "/static/<path:filename>"]
    assert whole["actor_sources"] == (["session"] if "keyed" in target else [])


def test_a_process_of_its_own(folder: Path) -> None:
    """As people call it: the working directory is found, nothing is spooled, and the end is clean."""
    program = Path(sys.executable).with_name("spanseal")
    result = subprocess.run(
        [program, "routes", "shop:app", "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "the application says something\n")
    assert len(json.loads(result.stdout)["routes"]) == 17
    assert not (folder / "spool").exists()


# --- where an actor may come from --------------------------------------------------------------------------------


def test_where_an_actor_may_come_from() -> None:
    app = flask.Flask("x")
    sources = routes_report.actor_sources
    unlisted = {"Flask-HTTPAuth"}  # counts as soon as anything in the process has imported it

    def of(**environ: str) -> list[str]:
        return [name for name in sources(app, environ) if name not in unlisted]

    assert of() == []
    assert of(SPANSEAL_ACTOR_RESOLVER="a:b") == ["SPANSEAL_ACTOR_RESOLVER"]
    assert of(SPANSEAL_ACTOR_HEADER="X-User") == ["SPANSEAL_ACTOR_HEADER"]
    assert of(SPANSEAL_ACTOR_HEADER="X-User", SPANSEAL_ACTOR_SOURCES="session") == []
    app.secret_key = "x"
    assert of() == ["session"]
    assert of(SPANSEAL_ACTOR_SOURCES="flask_login") == []
    app.secret_key = None
    app.extensions["flask-jwt-extended"] = object()
    app.before_request(lambda: None)
    assert of() == ["Flask-JWT-Extended", "before_request functions, by flask.g"]
    assert of(SPANSEAL_ACTOR_SOURCES="session") == []
    with pytest.raises(spanseal.ConfigurationError, match="SPANSEAL_ACTOR_SOURCES"):
        of(SPANSEAL_ACTOR_SOURCES="nobody")


# --- the file to begin with ----------------------------------------------------------------------------------------


def meanings(rules: Rules, app: flask.Flask) -> dict[tuple[str, str], Any]:
    """What all requests of an application mean, with values for all variables."""
    found = {}
    for rule in app.url_map.iter_rules():
        values = {name: f"value of {name}" for name in rule.arguments}
        for method in rule.methods or ():
            assert rules.skips(method, rule.rule) == ""
            found[rule.rule, method] = rules.meaning(method, rule.rule, values, 200)
    return found


def test_the_file_to_begin_with_says_what_the_defaults_say(folder: Path) -> None:
    output = run("shop:app", "--write", "new.yaml").stdout
    assert output == "new.yaml is written: 17 routes\n"
    app = sys.modules["shop"].app
    rules = load_rules(folder / "new.yaml")
    assert meanings(rules, app) == meanings(DEFAULTS, app)
    assert len(rules.rules) == 16  # one route is the decorator's
    text = (folder / "new.yaml").read_text()
    assert "# no-resource-id: it changes something, and the record does not say which one" in text
    assert "    # resource: {type: order, id: {response: /id}}\n" in text
    again = lines_of(run("shop:app", "--json", "--rules", "new.yaml"))
    before = lines_of(run("shop:app", "--json"))
    for key, line in again.items():
        assert {**line, "gaps": 0, "sources": 0} == {**before[key], "gaps": 0, "sources": 0}
        assert line["sources"]["action"].startswith(("new.yaml:", "@action")), key
    # What is commented out is right as it stands, too.
    uncommented = text.replace("    # resource:", "    resource:")
    (folder / "more.yaml").write_text(uncommented)
    assert load_rules(folder / "more.yaml").pointers("POST", "/orders", 201) == ("/id",)


STRANGE = [
    "/a/<x>",
    "/a/<int:x>",
    "/a/<int(min=1):y>",
    "/b/*",
    "/c/x*y",
    "/d/with space",
    "/e/'quoted\"",
    "/f/日本/<x>",
    "/g: h",
    "/i#j",
    "/k/",
    "/k",
    "/l/\u200b",
    "/m/<token>",
    "/n/<any(a,'b'):kind>/x",
    "/o/<x>.pdf",
]


def test_strange_routes_are_written_so_that_they_can_be_read(folder: Path) -> None:
    app = flask.Flask("strange", static_folder=None)
    for number, route in enumerate(STRANGE):
        app.add_url_rule(route, str(number), lambda **_: "", methods=["GET", "POST", "M-SEARCH"])
    path = folder / "strange.yaml"
    path.write_text(starter(report(app, DEFAULTS, {})), encoding="utf-8")
    rules = load_rules(path)
    assert meanings(rules, app) == meanings(DEFAULTS, app)
    unwritten = [route for route in STRANGE if not any(rule.holds_for("GET", route) for rule in rules.rules)]
    assert unwritten == ["/b/*", "/c/x*y", "/l/\u200b"]
    assert path.read_text("utf-8").count("a rule cannot name this route") == 9


def test_an_application_of_marked_views_alone_has_a_file_too(folder: Path) -> None:
    app = flask.Flask("marked", static_folder=None)
    app.add_url_rule("/a", "a", marks.action("a.done")(lambda: ""))
    path = folder / "marked.yaml"
    path.write_text(starter(report(app, DEFAULTS, {})))
    assert read(path).rules == ()
    assert map_request("GET", "/a").action == "a.viewed"
    assert "a.done" in path.read_text()


def test_a_name_that_says_nothing_of_what_was_done_is_a_gap() -> None:
    app = flask.Flask("vague", static_folder=None)
    for route in ("/contact", "/forms/<fid>/submit", "/<slug>", "/<shop_id>/", "/<kind>", "/mail-settings"):
        app.add_url_rule(route, route, lambda **_: "", methods=["POST"])
    found = {
        line.route: (line.resolved.action, {gap.kind for gap in line.gaps})
        for line in report(app, DEFAULTS, {}).routes
    }
    unmapped = {route: action for route, (action, gaps) in found.items() if "unmapped" in gaps}
    assert unmapped == {
        "/contact": "contact.submitted",
        "/<slug>": "record.updated",
        "/<kind>": "kind.updated",
    }
    assert found["/forms/<fid>/submit"][0] == "form.submitted"
    assert found["/<shop_id>/"][0] == "shop.updated"
    # There is one of them, so it needs no id.
    assert found["/mail-settings"] == ("mail_settings.updated", {"no-actor"})
