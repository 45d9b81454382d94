"""Route templates of all frameworks in one form, and the values that a path has where the template has variables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanseal.meaning.mapping import map_request
from spanseal.spans.route_templates import MAX_PATH, template


@pytest.mark.parametrize(
    ("route", "text", "path", "values"),
    [
        ("/patients/{pid}", "/patients/<pid>", "/patients/3", {"pid": "3"}),  # FastAPI, aiohttp, Falcon
        ("/patients/{pid}", "/patients/<pid>", "/patients/3/", {"pid": "3"}),
        (r"/rooms/{number:\d{3}}", "/rooms/<number>", "/rooms/101", {"number": "101"}),
        ("/files/{name:path}", "/files/<name>", "/files/a/b.txt", {"name": "a/b.txt"}),
        ("patients/<int:pk>/", "/patients/<pk>/", "/patients/3/", {"pk": "3"}),  # Django
        (
            "patients/<pk>/notes/<uuid:note>",
            "/patients/<pk>/notes/<note>",
            "/patients/3/notes/n",
            {"pk": "3", "note": "n"},
        ),
        (r"^patients/(?P<pk>[0-9]{1,4})/$", "/patients/<pk>/", "/patients/12/", {"pk": "12"}),
        (r"api/^patients/(?P<pk>[^/.)]+)/$", "/api/patients/<pk>/", "/api/patients/12/", {"pk": "12"}),
        (r"^patients/(?P<pk>(?:a|b)\)+)/?$", "/patients/<pk>/", "/patients/a)", {"pk": "a)"}),
        (r"^v1\.0/patients/(?P<pk>\d+)$", "/v1.0/patients/<pk>", "/v1.0/patients/7", {"pk": "7"}),
        ("/patients/<pid:int>", "/patients/<pid>", "/patients/3", {"pid": "3"}),  # Sanic
        ("/patients/<any(a, b):kind>", "/patients/<kind>", "/patients/a", {"kind": "a"}),  # werkzeug
        # Where the application is mounted stands before it.
        ("/patients/{pid}", "/patients/<pid>", "/clinic/v2/patients/3", {"pid": "3"}),
        # Encoded values are decoded, but only after the path is taken apart.
        ("/patients/{pid}/notes", "/patients/<pid>/notes", "/patients/a%2Fb%20c/notes", {"pid": "a/b c"}),
        (
            "/{year}-{month}-{day}",
            "/<year>-<month>-<day>",
            "/2026-01-02",
            {"year": "2026", "month": "01", "day": "02"},
        ),
        ("/{name}-{number}", "/<name>-<number>", "/jo-ann-5", {"name": "jo-ann", "number": "5"}),
        # What cannot be told for certain gives no value.
        (r"^(?:a|b)/(?P<x>\d+)/$", "/<x>/", "/a/3/", {}),
        (r"^a/\d{2}/(?P<x>b)$", "/a//<x>", "/a/12/b", {}),
        ("/{a}{b}", "/<a><b>", "/xy", {}),
        ("/{a:path}/x/{b:path}", "/<a>/x/<b>", "/1/x/2", {}),
        (r"^notes\.(?P<format>[a-z0-9]+)/?$", "/notes", "/notes.json", {}),
        ("/patients/{pid}", "/patients/<pid>", "/doctors/3", {}),
        ("/patients/{pid}", "/patients/<pid>", "/patients/" + "3" * MAX_PATH, {}),
        ("/pets/{pet-id}", "/pets/<pet_id>", "/pets/9", {"pet_id": "9"}),
        ("", "/", "/", {}),
        ("^$", "/", "/", {}),
    ],
)
def test_templates(route: str, text: str, path: str, values: dict[str, str]) -> None:
    read = template(route)
    assert read.text == text
    assert read.values(path, encoded=True) == values


def test_decoded_paths_are_not_decoded_again() -> None:
    assert template("/patients/{pid}").values("/patients/100%25", encoded=False) == {"pid": "100%25"}


@pytest.mark.parametrize(
    ("method", "route", "path", "action", "identifier"),
    [
        ("GET", "patients/<int:pk>/", "/patients/3/", "patient.viewed", "3"),
        ("GET", "/patients/{pid}", "/patients/3", "patient.viewed", "3"),
        ("DELETE", r"^patients/(?P<pk>\d+)/$", "/patients/3/", "patient.deleted", "3"),
        ("POST", "/patients/{pid}/discharge", "/patients/3/discharge", "patient.discharged", "3"),
        ("GET", "patients/", "/patients/", "patient.listed", ""),
        (
            "GET",
            r"^patients/(?P<pk>\d+)/notes\.(?P<format>[a-z0-9]+)/?$",
            "/patients/3/notes.json",
            "note.listed",
            "",
        ),
        ("POST", "/widgets/{token}", "/widgets/s3cr3t", "widget.updated", ""),
        ("GET", "/widgets/{token}", "/widgets/s3cr3t", "widget.viewed", ""),
    ],
)
def test_the_mapping_reads_them(method: str, route: str, path: str, action: str, identifier: str) -> None:
    read = template(route)
    meaning = map_request(method, read.text, read.values(path, encoded=True))
    assert (meaning.action, meaning.resource_id) == (action, identifier)
    assert "s3cr3t" not in repr(meaning)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.text(alphabet="ab/<>{}():?P^$\\[]+*.-|%é\n", max_size=60), st.text(alphabet="ab/%.-0é\n", max_size=60)
)
def test_no_route_is_too_odd(route: str, path: str) -> None:
    read = template(route)
    assert read.text.startswith("/")
    assert set(read.values(path, encoded=True)) <= set(read.names)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(alphabet="xyz019_~", min_size=1)),
        max_size=5,
    )
)
def test_what_is_put_in_comes_out(parts: list[tuple[str, str]]) -> None:
    named = [(f"{word}{at}", word, value) for at, (word, value) in enumerate(parts)]
    path = "".join(f"/{word}/{value}" for _, word, value in named)
    values = {name: value for name, _, value in named}
    starlette = "".join(f"/{word}/{{{name}}}" for name, word, _ in named)
    django = "".join(f"{word}/<str:{name}>/" for name, word, _ in named)
    pattern = "^" + "".join(f"{re.escape(word)}/(?P<{name}>[^/]+)/" for name, word, _ in named) + "$"
    for route in (starlette, django, pattern):
        assert template(route).values(path, encoded=False) == values


@pytest.mark.parametrize(
    "route",
    ["/a/{x:path}/b/{y}", "/{a}-{b}/{c}-{d}/e", "/{a}-{b}-{c}-{d}-{e}", "/{a}.{b}"],
)
@pytest.mark.parametrize("path", ["/" + "-" * 1000, "/-" * 500, "/a/b" * 250, "/" + "." * 1000])
def test_no_path_takes_long(route: str, path: str) -> None:
    # A pattern that tried everything would not come back: pytest's time limit is what ends it.
    template(route).values(path, encoded=True)
