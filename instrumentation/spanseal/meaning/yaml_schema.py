"""A YAML file as nodes that know their places, and a list of everything that is wrong with it.

Not objects: YAML 1.1 reads `no` as false, `12:30` as 750 and `1_0` as ten, and forgets where each stood. Here a
reader asks each node for what it needs, gets that or nothing, and goes on; `Document.check` then names all that was
wrong at once, each as `file:line:column`.

What a configuration does not need is refused before it can do harm: more than 256 KiB, aliases (a few of them in each
other are gigabytes), explicit tags, nesting beyond 20 levels.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection
from pathlib import Path

import yaml

from spanseal.errors import ConfigurationError

__all__ = ["Document", "Node"]

Node = yaml.Node

MAX_BYTES = 256 << 10
MAX_DEPTH = 20
MAX_PROBLEMS = 50
"""More are counted, not shown."""

_TEXT = "tag:yaml.org,2002:str"
_KINDS = {
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:timestamp": "a date",
}


_HINTS = {
    "'\\t'": ": indent with spaces",
    "mapping values are not allowed": ": write a text that holds a colon in quotes",
    "cannot start any token": ": write a text that begins with it in quotes",
    "found another document": ": take out the line ---",
}
"""What to do about an error of YAML itself, by a part of its sentence."""


class Document:
    """A YAML file, or as much of it as can be read.

    The methods that read a node return what they read, or None (an empty list or dict) where it is wrong: that is then
    among the problems, so that the caller need not say so again. `what` names the node in messages: "the action".
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Args:
            path: Where it is. It is shown in messages as it is given.

        Raises:
            ConfigurationError: It cannot be read, or is no YAML that is taken here.
        """
        self.path = path
        self.problems: list[str] = []
        self.root: Node | None = None
        try:
            self.root = _compose(self._read())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            sentence = str(error.problem or error.context)
            hint = next((hint for part, hint in _HINTS.items() if part in sentence), "")
            self.problems.append(f"{path}{place}: {sentence}{hint}")
        self.check()

    def _read(self) -> str:
        try:
            # Not to wait for whoever writes into a pipe of that name.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ConfigurationError(f"{self.path} is not a file")
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"{self.path} cannot be read: {reason}") from error
        if len(data) > MAX_BYTES:
            raise ConfigurationError(f"{self.path} has more than {MAX_BYTES >> 10} KiB")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
            raise ConfigurationError(f"{self.path}:{line}:{column}: not UTF-8: save it as UTF-8") from None

    # --- places and problems ---------------------------------------------------------------------------

    def where(self, node: Node) -> str:
        """Name a node's place: `file:line:column`."""
        return f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def line(self, node: Node) -> str:
        """Name a node's line: `file:line`."""
        return f"{self.path}:{node.start_mark.line + 1}"

    def shown(self, node: Node) -> str:
        """Show a node in a sentence: a short text in backquotes, anything else by its kind."""
        if isinstance(node, yaml.ScalarNode) and len(node.value) <= 60 and node.value.isprintable():
            return f"`{node.value}`" if node.value else "empty"
        return _kind(node)

    def wrong(self, node: Node, sentence: str) -> None:
        """Add a problem: what is wrong, and what to write."""
        self.problems.append(f"{self.where(node)}: {sentence}")

    def check(self) -> None:
        """Go on only if nothing was wrong.

        Raises:
            ConfigurationError: Something was; all of it is named, in the file's order.
        """
        if not self.problems:
            return
        shown = sorted(dict.fromkeys(self.problems), key=self._place)
        more = len(shown) - MAX_PROBLEMS
        if more > 0:
            shown[MAX_PROBLEMS:] = [f"and {more} more"]
        raise ConfigurationError("\n".join(shown))

    def _place(self, problem: str) -> tuple[int, int]:
        numbers = problem.removeprefix(f"{self.path}:").split(":", 2)[:2]
        line, column = [*(int(number) for number in numbers if number.isdecimal()), 0, 0][:2]
        return line, column

    # --- what a node holds -----------------------------------------------------------------------------

    def mapping(
        self, node: Node, what: str, keys: Collection[str], required: Collection[str] = ()
    ) -> dict[str, Node]:
        """Read a mapping with known keys.

        Returns:
            The nodes of the values by their keys: those that are known, each once.
        """
        found: dict[str, Node] = {}
        for key_node, key, value in self.pairs(node, what):
            if key in keys:
                found[key] = value
            else:
                self.wrong(key_node, f"{what} has no key `{key}`: {_instead(key, keys)}")
        if isinstance(node, yaml.MappingNode):
            for key in required:
                if key not in found:
                    self.wrong(node, f"{what} needs the key `{key}`")
        return found

    def pairs(self, node: Node, what: str) -> list[tuple[Node, str, Node]]:
        """Read a mapping whose keys are any text: the key's node, the key, the value's node, in their order."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} is {_kind(node)}: write keys with values, `key: value`")
            return []
        found: dict[str, tuple[Node, str, Node]] = {}
        for key_node, value in node.value:
            key = self.text(key_node, f"a key of {what}")
            if key is None:
                continue
            if key in found:
                first = found[key][0].start_mark.line + 1
                self.wrong(key_node, f"the key `{key}` is there twice, first in line {first}: write it once")
            else:
                found[key] = key_node, key, value
        return list(found.values())

    def items(self, node: Node, what: str) -> list[Node]:
        """Read a list."""
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} is {_kind(node)}: write a list, `- …` or [a, b]")
            return []
        return list(node.value)

    def one_or_more(self, node: Node, what: str) -> list[Node]:
        """Read a list that is not empty; a single value is a list of itself."""
        if not isinstance(node, yaml.SequenceNode):
            return [node]
        if not node.value:
            self.wrong(node, f"{what} is an empty list: name at least one, or leave the key out")
        return list(node.value)

    def text(self, node: Node, what: str, *, empty: bool = False) -> str | None:
        """Read a text; an empty one only if that is allowed."""
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(node, f"{what} is {_kind(node)}: write a text")
        elif node.tag != _TEXT:
            if node.value in ("", "~"):
                self.wrong(node, f"{what} is missing: write a text after the colon")
            else:
                self.wrong(
                    node, f'{what} is `{node.value}`, which YAML reads as {_kind(node)}: write "{node.value}"'
                )
        elif not node.value.strip() and not (empty and not node.value):
            self.wrong(node, f"{what} is empty: write a text")
        elif not node.value.isprintable():
            self.wrong(node, f"{what} has a line break or control character: write it in one line without")
        else:
            return str(node.value)
        return None

    def choice(self, node: Node, what: str, allowed: Collection[str]) -> str | None:
        """Read one of some words."""
        value = self.text(node, what)
        if value is None or value in allowed:
            return value
        self.wrong(node, f"{what} is `{value}`: {_instead(value, allowed)}")
        return None

    def flag(self, node: Node, what: str) -> bool | None:
        """Read `true` or `false`, and none of YAML's other words for them."""
        if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and node.value in ("true", "false"):
            return bool(node.value == "true")
        given = self.shown(node)
        self.wrong(node, f"{what} is {given}: write true or false")
        return None

    def whole(self, node: Node, what: str, least: int, most: int) -> int | None:
        """Read a whole number in decimal digits."""
        text = node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""
        plain = text.isascii() and text.isdecimal() and len(text) < 20 and (text == "0" or text[0] != "0")
        if plain and least <= int(text) <= most:
            return int(text)
        given = self.shown(node)
        wanted = f"a whole number from {least} to {most}" if least < most else str(least)
        self.wrong(node, f"{what} is {given}: write {wanted}")
        return None


def _instead(word: str, known: Collection[str]) -> str:
    meant = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return f"did you mean `{meant[0]}`?" if meant else f"use {', '.join(f'`{one}`' for one in known)}"


def _kind(node: Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return _KINDS.get(node.tag, "a text")


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses what could be more than it looks."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # so in PyYAML's types
        if isinstance(event, yaml.AliasEvent):
            self._refuse("aliases (*name) are not taken: write it out", event)
        if getattr(event, "tag", None) not in (None, "!"):
            self._refuse(
                f"tags ({event.tag}) are not taken: leave it out, or write the value in quotes", event
            )
        if self.depth > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels", event)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    @staticmethod
    def _refuse(sentence: str, event: yaml.Event) -> None:
        raise yaml.MarkedYAMLError(problem=sentence, problem_mark=event.start_mark)  # type: ignore[arg-type]  # PyYAML's types name two marks


def _compose(text: str) -> Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), error.position - before.rfind("\n") - 1
        raise yaml.MarkedYAMLError(
            problem=f"a character that YAML does not have (U+{ord(text[error.position]):04X}): take it out",
            problem_mark=yaml.Mark("", 0, line, column, None, 0),
        ) from None
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()
