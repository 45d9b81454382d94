"""Words of routes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.meaning.words import (
    _THINGS,
    NOUNS_TOO,
    READING_VERBS,
    SINGLETONS,
    VERBS,
    is_plural,
    is_singleton,
    is_thing,
    plain,
    singular,
)


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("patients", "patient"),
        ("categories", "category"),
        ("addresses", "address"),
        ("boxes", "box"),
        ("batches", "batch"),
        ("caches", "cache"),
        ("cookies", "cookie"),
        ("people", "person"),
        ("statuses", "status"),
        ("menus", "menu"),
        ("apis", "api"),
        ("ties", "tie"),
        ("user_addresses", "user_address"),
        ("lab_diagnoses", "lab_diagnosis"),
    ],
)
def test_plurals_become_singular(plural: str, one: str) -> None:
    assert singular(plural) == one
    assert is_plural(plural)
    assert not is_plural(one)


@pytest.mark.parametrize("noun", ["status", "access", "analysis", "bus", "s", ""])
def test_what_only_looks_like_a_plural_stays(noun: str) -> None:
    assert singular(noun) == noun
    assert not is_plural(noun)


@pytest.mark.parametrize("noun", ["series", "species", "tv_series"])
def test_collections_without_a_singular_are_collections(noun: str) -> None:
    assert singular(noun) == noun
    assert is_plural(noun)


@pytest.mark.parametrize(
    "noun", ["alias", "analytics", "data", "news", "settings", "statistics", "tos", "user_settings"]
)
def test_what_is_no_list_of_things_is_none(noun: str) -> None:
    assert singular(noun) == noun
    assert not is_plural(noun)


def test_of_some_things_there_are_many_and_of_some_one() -> None:
    assert [is_thing(word) for word in ("patient", "medical_record", "patients", "checkout", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [is_singleton(word) for word in ("profile", "mail_preferences", "bank_account", "")] == [
        True,
        True,
        False,
        False,
    ]


def test_no_name_of_many_is_also_one_of_one_or_a_plural() -> None:
    assert not [word for word in _THINGS if singular(word) != word]
    assert {"account", "profile"} == _THINGS & SINGLETONS


@pytest.mark.parametrize(
    ("segment", "word"),
    [
        ("labResults", "lab_results"),
        ("lab-results", "lab_results"),
        ("Café", "cafe"),
        ("2fa", "two_factor"),
        ("404", "n_404"),
        ("3d-models", "n_3d_models"),
        ("日本", "resource"),
        ("日本-api", "api"),
        ("_", ""),
        ("-", ""),
        ("", ""),
        ("²fa", "two_factor"),
    ],
)
def test_segments_become_words(segment: str, word: str) -> None:
    assert plain(segment) == word


@given(st.text())
def test_every_text_becomes_a_word_or_nothing(text: str) -> None:
    assert re.fullmatch(r"([a-z][a-z0-9_]*)?", plain(text))
    if any(letter.isalnum() for letter in text):
        assert plain(text)


def test_the_tables_fit_together() -> None:
    assert VERBS.keys() >= READING_VERBS
    assert VERBS.keys() >= NOUNS_TOO
    for word, past in VERBS.items():
        assert plain(word) == word
        assert plain(past) == past
