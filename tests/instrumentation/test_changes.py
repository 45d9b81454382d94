"""What changed: only what is named, nothing that is secret, and no more than fits."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import uuid
from collections import UserList
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import spanseal
from spanseal import InvalidRecord
from spanseal.api.values import is_secret, plain
from tests.instrumentation.conftest import Audit


class Status(enum.Enum):
    OPEN = "open"


@dataclass
class Account:
    name: str
    password: str
    roles: list[str]
    nothing: None = None


def test_only_what_is_named_and_has_changed_is_told() -> None:
    before = Account("Uma", "one", ["a"])
    after = {"name": "Uma B.", "password": "two", "roles": ["a"], "nothing": None, "unnamed": 5}
    assert spanseal.changes(before, after, fields=["roles", "password", "name", "nothing"]) == {
        "change.fields": "name,password",
        "change.password.before": "[redacted]",
        "change.password.after": "[redacted]",
        "change.name.before": "Uma",
        "change.name.after": "Uma B.",
    }
    assert spanseal.changes(before, before, fields=["name"]) == {"change.fields": ""}


def test_what_is_redacted_can_be_chosen() -> None:
    one, other = {"code": "DE", "salary": 1, "token": "a"}, {"code": "FR", "salary": 2, "token": "b"}
    found = spanseal.changes(one, other, fields=["code", "salary", "token"], redact=["salary"], show=["code"])
    assert found["change.code.after"] == "FR"
    assert found["change.salary.before"] == found["change.token.after"] == "[redacted]"
    assert found["change.fields"] == "code,salary,token"


def test_what_is_made_and_what_is_removed() -> None:
    made = spanseal.changes(None, {"a": 1, "b": None}, fields=["a", "b"])
    assert made == {"change.fields": "a,b", "change.a.after": 1, "change.b.after": None}
    assert spanseal.changes({"a": 1}, None, fields=["a"]) == {"change.fields": "a", "change.a.before": 1}
    assert spanseal.changes({"a": 1}, {"b": 1}, fields=["a", "b"])["change.fields"] == "a,b"


@pytest.mark.parametrize(
    ("one", "other", "changed"),
    [
        (1, True, True),
        (1, 1.0, False),
        (None, "", True),
        (float("nan"), float("nan"), True),
        ([1], [1], False),
    ],
)
def test_what_counts_as_a_change(one: object, other: object, *, changed: bool) -> None:
    assert bool(spanseal.changes({"a": one}, {"a": other}, fields=["a"])["change.fields"]) is changed


def test_objects_that_cannot_be_read_or_compared() -> None:
    class Odd:
        @property
        def broken(self) -> int:
            raise RuntimeError("a secret")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("a secret")

        __hash__ = None  # type: ignore[assignment]

    found = spanseal.changes(Odd(), {"broken": 1}, fields=["broken"])
    assert found["change.broken.before"] == "[unreadable]"
    assert spanseal.changes({"a": Odd()}, {"a": Odd()}, fields=["a"]) == {"change.fields": ""}
    kind = f"<{Odd.__module__}.{Odd.__qualname__}>"
    assert spanseal.changes({"a": Odd()}, {"a": 1}, fields=["a"])["change.a.before"] == kind


@pytest.mark.parametrize(
    "arguments",
    [
        {"fields": []},
        {"fields": "name"},
        {"fields": ["a,b"]},
        {"fields": [""]},
        {"fields": [5]},
        {"fields": [f"f{n}" for n in range(101)]},
        {"fields": ["a"], "redact": ["b"]},
        {"fields": ["a"], "show": "a"},
        {"fields": ["a", "missing"]},
    ],
)
def test_wrong_fields_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord):
        spanseal.changes({"a": 1}, SimpleNamespace(a=2), **arguments)


SAME = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (0.5, 0.5),
        (2**64, hex(2**64)),
        (Status.OPEN, "open"),
        (b"secret", "[6 bytes]"),
        (dt.date(2025, 1, 2), "2025-01-02"),
        (dt.datetime(2025, 1, 2, 3, tzinfo=dt.UTC), "2025-01-02T03:00:00+00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (SAME, str(SAME)),
        ([1, {"token": "x", "b": Status.OPEN}], '[1,{"b":"open","token":"[redacted]"}]'),
        ({3, 1}, "[1,3]"),
        ([[[[[1]]]]], '[[[["<builtins.list>"]]]]'),
        ("x" * 1001, "x" * 1000 + "… [1001 characters]"),
        (object(), "<builtins.object>"),
        (UserList([1]), "<collections.UserList>"),
    ],
)
def test_values_as_a_record_shows_them(value: object, shown: object) -> None:
    found = plain(value)
    assert (type(found), found) == (type(shown), shown)


def test_values_are_bounded_and_never_raise() -> None:
    endless: list[Any] = []
    endless.append(endless)

    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError

    for value in (endless, Broken(a=1), dict.fromkeys(range(5000), "y" * 900), ["z" * 9000] * 9000):
        text = plain(value)
        assert isinstance(text, str)
        assert len(text) < 1100
    assert json.loads(str(plain(list(range(102)))))[-1] == "[102 items]"


@pytest.mark.parametrize(
    "name", ["password", "apiToken", "user_ssn", "IBAN", "card-number", "dateOfBirth", "cvc"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["name", "status", "amount", "span", "company", "description"])
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_changes_with_a_record_of_ones_own(audit: Audit) -> None:
    spanseal.record(
        "invoice.updated",
        attributes={"why": "asked"},
        changes=spanseal.changes({"a": None}, {"a": 5}, fields=["a"]),
    )
    found = audit.record().attributes
    assert (found["why"], found["change.fields"], found["change.a.after"]) == ("asked", "a", 5)
    assert found["change.a.before"] is None
