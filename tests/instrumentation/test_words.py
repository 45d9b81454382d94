"""Words of routes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.meaning.words import NOUNS_TOO, READING_VERBS, VERBS, is_plural, plain, singular


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


@pytest.mark.parametrize("noun", ["data", "news", "settings", "user_settings"])
def test_collections_without_a_singular_are_collections(noun: str) -> None:
    assert singular(noun) == noun
    assert is_plural(noun)


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
