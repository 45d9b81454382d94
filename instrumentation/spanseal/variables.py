"""What an environment variable is: its name, how its text is read, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from .errors import ConfigurationError

__all__ = ["Variable", "choice", "number", "seconds", "text", "variable", "variables_of", "yes_or_no"]

_T = TypeVar("_T")

_METADATA = "spanseal.variable"


@dataclass(frozen=True, slots=True)
class Variable(Generic[_T]):
    """One environment variable."""

    name: str
    default: str
    """What it is as if set to where it is not set, as a person would write it; empty for nothing."""
    meaning: str
    """One line of Markdown, for tables."""
    parse: Callable[[str], _T]
    """Reads its text, which is stripped and not empty; raises `ValueError` whose text says what to write."""
    otherwise: Callable[[Mapping[str, str]], _T] | None = None
    """Gives the value where nothing is set; where this is None, `default` is parsed."""

    def read(self, environ: Mapping[str, str]) -> _T:
        """Return the value that an environment gives it.

        Raises:
            ConfigurationError: Its text cannot be used.
        """
        given = environ.get(self.name, "").strip()
        if not given and self.otherwise is not None:
            return self.otherwise(environ)
        try:
            return self.parse(given or self.default)
        except ValueError as error:
            raise ConfigurationError(f"{self.name} is {given!r}: {error}") from None


def variable(
    name: str,
    default: str,
    meaning: str,
    parse: Callable[[str], Any],
    otherwise: Callable[[Mapping[str, str]], Any] | None = None,
) -> Any:
    """Make a dataclass field that is read from an environment variable. Arguments as of `Variable`."""
    return field(metadata={_METADATA: Variable(name, default, meaning, parse, otherwise)})


def variables_of(settings: type) -> dict[str, Variable[Any]]:
    """Return the variables of a dataclass by the names of its fields, in their order."""
    found = {item.name: item.metadata.get(_METADATA) for item in fields(settings)}
    return {name: item for name, item in found.items() if item is not None}


# --- how texts are read ----------------------------------------------------------------------------------


def text(given: str) -> str:
    """Take any text."""
    return given


def choice(*allowed: str) -> Callable[[str], str]:
    """Take one of some words, in any case."""

    def parse(given: str) -> str:
        if given.lower() not in allowed:
            raise ValueError(f"use {' or '.join(allowed)}")
        return given.lower()

    return parse


def yes_or_no(given: str) -> bool:
    """Take `true` or `false`."""
    return choice("false", "true")(given) == "true"


def number(least: int = 0) -> Callable[[str], int]:
    """Take a whole number from `least` on."""

    def parse(given: str) -> int:
        try:
            value = int(given)
        except ValueError:
            value = least - 1
        if value < least:
            raise ValueError(f"write a whole number, {least} or more")
        return value

    return parse


def seconds(given: str) -> float:
    """Take a number of seconds below an hour."""
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value < 3600:
        raise ValueError("write a number of seconds below 3600")
    return value
