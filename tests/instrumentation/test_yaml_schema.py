"""YAML files as nodes with places: what is refused, and how everything that is wrong is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal.errors import ConfigurationError
from spanseal.meaning import yaml_schema
from spanseal.meaning.yaml_schema import Document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def document(path: Path, text: str | bytes) -> Document:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Document(path)


UNREADABLE = [
    ("a: &x [1]\nb: *x", "2:4: aliases (*name) are not taken: write it out"),
    ("a: &a [*a]", "1:8: aliases"),
    ("a: !!python/object/apply:os.system [x]", "1:4: tags (tag:yaml.org,2002:python/object/apply:os.system)"),
    ("a: !mine x", "1:4: tags (!mine) are not taken: leave it out"),
    ("[" * 100_000, f"1:{yaml_schema.MAX_DEPTH + 2}: nested deeper than"),
    ("a:\n\t- b", "2:1: found character '\\t' that cannot start any token: indent with spaces"),
    (
        "a: @b",
        "1:4: found character '@' that cannot start any token: write a text that begins with it in quotes",
    ),
    ("a: b: c", "1:5: mapping values are not allowed here: write a text that holds a colon in quotes"),
    ("a: 1\n---\nb: 2", "2:1: but found another document: take out the line ---"),
    ("a: 1\nb: x\x01", "2:5: a character that YAML does not have (U+0001): take it out"),
    (b"a: 1\nb: \xff", "2:4: not UTF-8: save it as UTF-8"),
    ("a: [1", "1:6: "),
]


@pytest.mark.parametrize(("text", "sentence"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_is_named_with_its_place(path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        document(path, text)
    assert f"{path}:{sentence}" in str(caught.value)


def test_a_long_file_a_directory_and_a_pipe_are_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="more than 256 KiB"):
        document(path, "#" * (yaml_schema.MAX_BYTES + 1))
    assert document(path, "#" * yaml_schema.MAX_BYTES).root is None
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        Document(path.parent)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        Document(path.parent / "nothing")
    os.mkfifo(path.parent / "pipe")  # nobody writes into it: reading would wait forever
    with pytest.raises(ConfigurationError, match="is not a file"):
        Document(path.parent / "pipe")


def test_a_byte_order_mark_is_no_text(path: Path) -> None:
    found = document(path, b"\xef\xbb\xbfa: b")
    assert found.root is not None
    assert list(found.mapping(found.root, "it", ("a",))) == ["a"]


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file(path: Path) -> None:
    found = document(
        path,
        """\
colour: on
color: red
size: big
size: small
coat: {0: 1}
number: 010
flag: yes
list: x
names: []
text: "a\\nb"
null_: ~
none:
long: ''
""",
    )
    assert found.root is not None
    keys = ("colour", "size", "coat", "number", "flag", "list", "names", "text", "null_", "none", "long")
    nodes = found.mapping(found.root, "a thing", keys, required=("weight",))
    # Read in another order than the file's.
    for key in ("none", "null_", "text", "colour", "long"):
        assert found.text(nodes[key], f"the {key}") is None
    assert found.one_or_more(nodes["names"], "the names") == []
    assert found.items(nodes["list"], "the list") == []
    assert found.flag(nodes["flag"], "the flag") is None
    assert found.whole(nodes["number"], "the number", 1, 99) is None
    assert found.mapping(nodes["coat"], "the coat", ("a",)) == {}
    assert found.choice(nodes["size"], "the size", ("small", "large", "medium")) is None
    with pytest.raises(ConfigurationError) as caught:
        found.check()
    lines = [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]
    assert lines == [
        "1:1: a thing needs the key `weight`",
        '1:9: the colour is `on`, which YAML reads as true or false: write "on"',
        "2:1: a thing has no key `color`: did you mean `colour`?",
        "3:7: the size is `big`: use `small`, `large`, `medium`",
        "4:1: the key `size` is there twice, first in line 3: write it once",
        '5:8: a key of the coat is `0`, which YAML reads as a number: write "0"',
        "6:9: the number is `010`: write a whole number from 1 to 99",
        "7:7: the flag is `yes`: write true or false",
        "8:7: the list is a text: write a list, `- …` or [a, b]",
        "9:8: the names is an empty list: name at least one, or leave the key out",
        "10:7: the text has a line break or control character: write it in one line without",
        "11:8: the null_ is missing: write a text after the colon",
        "12:6: the none is missing: write a text after the colon",
        "13:7: the long is empty: write a text",
    ]


def test_what_is_right_is_read(path: Path) -> None:
    found = document(path, "a: 'no'\nb: 7\nc: true\nd: [x]\ne: y\nf: ''")
    assert found.root is not None
    nodes = found.mapping(found.root, "it", ("a", "b", "c", "d", "e", "f"), required=("a",))
    assert found.text(nodes["a"], "a") == "no"
    assert found.whole(nodes["b"], "b", 7, 7) == 7
    assert found.flag(nodes["c"], "c") is True
    assert [found.text(node, "d") for node in found.one_or_more(nodes["d"], "d")] == ["x"]
    assert [found.text(node, "e") for node in found.one_or_more(nodes["e"], "e")] == ["y"]
    assert found.text(nodes["f"], "f", empty=True) == ""
    assert found.where(nodes["b"]) == f"{path}:2:4"
    assert found.line(nodes["b"]) == f"{path}:2"
    found.check()


def test_many_problems_are_counted(path: Path) -> None:
    found = document(path, "\n".join(f"k{number}: 1" for number in range(80)))
    assert found.root is not None
    found.mapping(found.root, "it", ("a",))
    with pytest.raises(ConfigurationError) as caught:
        found.check()
    assert len(str(caught.value).splitlines()) == yaml_schema.MAX_PROBLEMS + 1
    assert str(caught.value).endswith("and 30 more")


TEXTS = st.text(alphabet="ab:- \n\t[]{}'\"&*!|>#%@,?0~\\\x1b", max_size=40) | st.text(max_size=20)


@given(TEXTS)
def test_whatever_stands_there_no_message_holds_a_control_character(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    said = ""
    try:
        found = document(path, text.encode("utf-8", "surrogatepass"))
        if found.root is not None:
            for node in found.mapping(found.root, "it", ("a",)).values():
                found.text(node, "a")
                found.whole(node, "a", 0, 9)
                found.flag(node, "a")
        found.check()
    except ConfigurationError as error:
        said = str(error)
    assert all(line.isprintable() for line in said.splitlines()), said
