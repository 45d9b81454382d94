"""A route as the words and variables that it is made of, for `mapping` and `well_known`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .words import ASSETS, BULK_FORMATS, FORMATS, ME, NAMESPACES, plain, singular

__all__ = ["Plan", "Segment", "Words", "is_credential", "nearest", "noun"]

_PREFIXES = re.compile(r"api|rest|v\d*(_\d+)?")

# A value of the path that is a credential must not be recorded: `/reset-password/<token>`.
_SECRET_NAME = re.compile(
    r"token|secret(?!ar)|passw|passphrase|passcode|signature|jwt|nonce|hmac|credential|api_?key|auth_?code"
    r"|(^|_)(otp|totp|auth|pwd|pw|bearer|cookie)(_|$)"
    r"|(access|activation|confirm|confirmation|invitation|invite|login|magic|private|reset|session|verification|verify)_?(code|hash|key|link)"
    r"|^(key|code|sig|hash|pin)$"
)

# As werkzeug reads a rule: what is fixed, and `<converter(arguments):variable>`.
_TOKEN = re.compile(
    r"(?P<slash>/)|<(?:[a-zA-Z_]\w*(?:\(.*?\))?:)?(?P<variable>[a-zA-Z_]\w*)>|(?P<fixed>[^/<]+|<)", re.ASCII
)


@lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Say whether a variable of a route is a credential by its name: its value must not be recorded."""
    return _SECRET_NAME.search(plain(name)) is not None


def noun(word: str) -> str:
    """Return the type of thing that a word of a route names: `me` is a user."""
    return "user" if word in ME else singular(word)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a method on a route means, with the names of the variables whose values complete it."""

    action: str
    resource_type: str = ""
    variable: str = ""
    subject_type: str = ""
    subject_variable: str = ""
    source: str = "well-known"
    """By which of the defaults: `well-known`, `verb in the path`, `method` or `no route`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Of a route: either a fixed word or a variable."""

    word: str = ""
    variable: str = ""
    """Its name; empty for a credential's, which stands here without one."""

    @property
    def fixed(self) -> bool:
        """Whether it is a word."""
        return bool(self.word)


class Words:
    """What a route is made of."""

    def __init__(self, route: str) -> None:
        """Read a route's template, as werkzeug writes it."""
        self.bulk = False
        """Whether its end asks for a collection as a file: `/patients.csv`."""
        self.asset = False
        """Whether its end is a fixed file of a web page: `/favicon.ico`."""
        self.segments: list[Segment] = []
        for match in _TOKEN.finditer(route):
            if variable := match["variable"]:
                self.segments.append(Segment(variable="" if is_credential(variable) else variable))
            elif match["fixed"]:
                after_variable = match.start() > 0 and route[match.start() - 1] == ">"
                self._add(match["fixed"], after_variable=after_variable, last=match.end() == len(route))
        self._leave_out_format()
        self.fixed = [segment.word for segment in self.segments if segment.fixed]
        """The words without the variables."""
        self.last = self.fixed[-1] if self.fixed else ""

    def _add(self, text: str, *, after_variable: bool, last: bool) -> None:
        # `/users/<id>:disable`, `/users:batchDelete`: after a colon comes what is done.
        first, colon, verb = text.partition(":")
        stem, dot, ending = first.rpartition(".")
        if dot and stem and last and ending.lower() in FORMATS | BULK_FORMATS | ASSETS:
            self.bulk = ending.lower() in BULK_FORMATS
            self.asset = ending.lower() in ASSETS
            first = stem
        word = plain(first)
        prefix = not any(segment.fixed for segment in self.segments) and _PREFIXES.fullmatch(word)
        # `<id>.pdf`: the part's fixed end says nothing of its own.
        if word and not after_variable and not prefix:
            self.segments.append(Segment(word))
        if colon and (word := plain(verb)):
            self.segments.append(Segment(word))

    def _leave_out_format(self) -> None:
        # `/patients/export/csv` is an export as much as `/patients/export` is.
        words = [segment.word for segment in self.segments[-2:]]
        if len(words) == 2 and words[0] in ("download", "export") and words[1] in FORMATS | BULK_FORMATS:
            del self.segments[-1]

    @cached_property
    def _last_at(self) -> int:
        return max((at for at, segment in enumerate(self.segments) if segment.fixed), default=-1)

    @property
    def before(self) -> list[Segment]:
        """What stands before the last word."""
        return self.segments[: max(self._last_at, 0)]

    @property
    def after(self) -> list[Segment]:
        """The variables after the last word."""
        return self.segments[self._last_at + 1 :]

    @property
    def variable(self) -> str:
        """The first of them that is no credential; empty where there is none."""
        return next((segment.variable for segment in self.after if segment.variable), "")

    @property
    def secret(self) -> bool:
        """Whether a credential is among them."""
        return any(not segment.variable for segment in self.after)

    @cached_property
    def owner(self) -> tuple[str, str]:
        """The last thing that is named before the last word: its type, and the variable that says which one.

        `/admin` and the like name no thing.
        """
        return nearest(self.before)

    @property
    def noun(self) -> str:
        """The type of thing that the last word names."""
        return noun(self.last)

    @property
    def subject(self) -> tuple[str, str]:
        """The owner, where a variable says which one; else both empty."""
        owner, variable = self.owner
        return (owner, variable) if owner and variable else ("", "")

    def of(self, kind: str) -> str:
        """Return the variable that says which thing of a type is meant; empty where there is none."""
        pairs = zip(self.segments, self.segments[1:], strict=False)
        found = [after.variable for word, after in pairs if word.fixed and noun(word.word) == kind]
        return found[-1] if found else ""

    def ends(self, *words: str) -> bool:
        """Say whether these are the last fixed words."""
        return tuple(self.fixed[-len(words) :]) == words


def nearest(segments: Iterable[Segment]) -> tuple[str, str]:
    """Find the last thing that is named, and the variable that follows it; both empty where there is none."""
    variable = ""
    for segment in reversed(list(segments)):
        if not segment.fixed:
            variable = segment.variable or variable
        elif segment.word in NAMESPACES and not variable:
            continue
        else:
            return noun(segment.word), variable
    return "", variable
