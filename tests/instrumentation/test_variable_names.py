"""What a route's variables are of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.meaning.variable_names import (
    is_id,
    is_locale,
    is_parameter,
    is_query,
    is_spoken,
    kind_of,
    noun_of,
)
from spanseal.meaning.words import plain


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("project_id", "project"),
        ("projectId", "project"),
        ("project_uuid", "project"),
        ("project_slug", "project"),
        ("project_name", "project"),
        ("invoice_number", "invoice"),
        ("medical_record_id", "medical_record"),
        ("categories_id", "category"),
        ("order_id", "order"),
        ("username", "user"),
        ("filename", "file"),
        ("file_name", "file"),
        ("pagepath", "page"),
        ("path", "page"),
        # a name that is no thing's, ids that do not say of what, parameters
        ("first_name", ""),
        ("code_name", ""),
        ("p_id", ""),
        ("record_id", ""),
        ("id", ""),
        ("pid", ""),
        ("page_number", ""),
        ("type_name", ""),
        ("res_type", ""),
        ("project", ""),
        ("_", ""),
        ("_id", ""),
    ],
)
def test_a_variable_says_of_what_it_is(variable: str, kind: str) -> None:
    assert kind_of(variable) == kind


@pytest.mark.parametrize(
    ("variable", "noun"),
    [
        ("project", "project"),
        ("repos", "repo"),
        ("project_id", "project"),
        ("slug", ""),
        ("pid", ""),
        ("lang", ""),
    ],
)
def test_a_variable_may_be_a_noun(variable: str, noun: str) -> None:
    assert noun_of(variable) == noun


def test_what_names_no_thing() -> None:
    names = ("id", "pid", "_", "slug", "format", "book_format", "lang_code", "q", "user")
    assert [name for name in names if is_id(name)] == ["id", "pid", "_", "slug"]
    assert [name for name in names if is_spoken(name)] == ["slug"]
    assert [name for name in names if is_parameter(name)] == ["format", "book_format", "lang_code", "q"]
    assert [name for name in names if is_locale(name)] == ["lang_code"]
    assert [name for name in names if is_query(name)] == ["q"]


@given(st.text(max_size=12) | st.from_regex(r"[a-z_]{0,8}_(id|name|slug)", fullmatch=True))
def test_a_type_is_a_word(variable: str) -> None:
    assert plain(kind_of(variable)) == kind_of(variable)
    assert plain(noun_of(variable)) == noun_of(variable)
