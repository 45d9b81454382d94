"""A route as the words and variables that it is made of, for `mapping` and `well_known`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .variable_names import is_id, is_parameter, is_spoken, kind_of, noun_of
from .words import (
    ASSETS,
    BULK_FORMATS,
    FORMATS,
    ME,
    NAMESPACES,
    NOUNS_TOO,
    READING_VERBS,
    VERBS,
    is_thing,
    plain,
    singular,
)

__all__ = ["Plan", "Segment", "Words", "is_credential", "nearest", "noun"]

_GLUED = re.compile(
    r"(?P<verb>add|cancel|change|create|delete|edit|forgot|get|new|remove|reset|save|update|upload|view)(?P<thing>[a-z]{3,})"
)

_PREFIXES = re.compile(r"ajax|api|rest|v\d*(_\d+)?")

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
    implied: bool = False
    """Whether the word does not stand in the route, but follows from the name of the variable after it."""

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
        self.segments = _with_implied(self.segments)
        self.fixed = [segment.word for segment in self.segments if segment.fixed and not segment.implied]
        """The words that stand in it, without the variables."""
        named = [segment for segment in self.segments if segment.fixed]
        self.last = named[-1].word if named else ""
        """The last word; what a variable is of stands before it as a word: `/<bill_id>` is `/bill/<bill_id>`."""
        self.last_implied = bool(named) and named[-1].implied

    def _add(self, text: str, *, after_variable: bool, last: bool) -> None:
        # `/users/<id>:disable`, `/users:batchDelete`: after a colon comes what is done.
        first, colon, verb = text.partition(":")
        stem, dot, ending = first.rpartition(".")
        if dot and stem and last and ending.lower() in FORMATS | BULK_FORMATS | ASSETS:
            self.bulk = ending.lower() in BULK_FORMATS
            self.asset = ending.lower() in ASSETS
            first = stem
        word = _unglued(plain(first))
        prefix = not any(segment.fixed for segment in self.segments) and _PREFIXES.fullmatch(word)
        # `<id>.pdf`: the part's fixed end says nothing of its own.
        if word and not after_variable and not prefix:
            self.segments.append(Segment(word))
        if colon and (word := plain(verb)):
            self.segments.append(Segment(word))

    def _leave_out_format(self) -> None:
        # `/patients/export/csv` is an export as much as `/patients/export` is.
        words = [segment.word for segment in self.segments[-2:]]
        if (
            len(words) == 2
            and words[0] in ("download", "export", "import")
            and words[1] in FORMATS | BULK_FORMATS
        ):
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
        """The one of them that says which thing; empty where there is none."""
        return _which(self.last, self.after)

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

    @cached_property
    def owner_implied(self) -> bool:
        """Whether the owner is named by a variable only."""
        words = [segment for segment in self.before if segment.fixed]
        return bool(words) and words[-1].implied

    @property
    def noun(self) -> str:
        """The type of thing that the last word names."""
        return noun(self.last)

    @cached_property
    def holder(self) -> tuple[str, str]:
        """What the owner belongs to, where the owner is a collection without an id; else both empty."""
        words = [at for at, segment in enumerate(self.before) if segment.fixed]
        if self.owner[1] or not words:
            return "", ""
        kind, variable = nearest(self.before[: words[-1]])
        return (kind, variable) if kind and variable else ("", "")

    @property
    def subject(self) -> tuple[str, str]:
        """The owner, where a variable says which one; else both empty."""
        owner, variable = self.owner
        return (owner, variable) if owner and variable else ("", "")

    def of(self, kind: str) -> str:
        """Return the variable that says which thing of a type is meant; empty where there is none."""
        pairs = zip(self.segments, self.segments[1:], strict=False)
        found = [after.variable for word, after in pairs if word.fixed and noun(word.word) == kind]
        named = [segment.variable for segment in self.segments if kind_of(segment.variable) == kind]
        return next((variable for variable in reversed([*named, *found]) if variable), "")

    def ends(self, *words: str) -> bool:
        """Say whether these are the last fixed words."""
        return tuple(self.fixed[-len(words) :]) == words


def nearest(segments: Iterable[Segment]) -> tuple[str, str]:
    """Find the last thing that is named, and the variable that says which one; both empty where there is none."""
    following: list[Segment] = []
    for segment in reversed(list(segments)):
        if not segment.fixed:
            following.insert(0, segment)
        elif segment.word in NAMESPACES and not _which("", following):
            following = []
        else:
            return noun(segment.word), _which(segment.word, following)
    return "", _which("", following)


@lru_cache(maxsize=1024)
def _unglued(word: str) -> str:
    """Part a verb from a thing that is well known: `deletebook` is `delete_book`."""
    found = _GLUED.fullmatch(word)
    parted = found and (
        is_thing(singular(found["thing"])) or found["thing"] in ("email", "file", "files", "password")
    )
    return f"{found['verb']}_{found['thing']}" if found and parted else word


def _which(word: str, following: Iterable[Segment]) -> str:
    """Choose among the variables after a word: the one that is named like it, else the first.

    Without a word, the first that is no mere parameter.
    """
    names = [segment.variable for segment in following if segment.variable]
    wanted = (name for name in names if (noun_of(name) == noun(word) if word else not is_parameter(name)))
    return next(wanted, names[0] if names else "")


def _with_implied(segments: list[Segment]) -> list[Segment]:
    """Put a word before each variable that has none and says of what it is.

    `/<project_id>/bills` is `/project/<project_id>/bills`; the letter of `/p/<project_id>` says nothing of its own.
    """
    found: list[Segment] = []
    word, first, implied = (
        "",
        "",
        False,
    )  # the last word, the first variable after it, and whether that says the word
    for at, segment in enumerate(segments):
        if segment.fixed:
            before_variable = at + 1 < len(segments) and not segments[at + 1].fixed
            if len(segment.word) == 1 and before_variable:
                word, first, implied = noun_of(segments[at + 1].variable) or "record", "", True
                found.append(Segment(word, implied=True))
            else:
                word, first, implied = segment.word, "", False
                found.append(segment)
            continue
        kind = _after_implied(word, first, segment.variable) if implied and first else ""
        kind = kind or _implied(word, first, segment.variable)
        if kind:
            found.append(Segment(kind, implied=True))
            word, first, implied = kind, "", True
        found.append(segment)
        first = first or segment.variable
    return found


def _after_implied(word: str, first: str, variable: str) -> str:
    """The same for a variable after one that has no word either: `/<username>/<repo>`."""
    if not variable or is_parameter(variable):
        return ""
    if is_id(variable):
        return "" if is_spoken(variable) and plain(first).endswith("id") else "record"
    return noun_of(variable) if noun_of(variable) != word else ""


def _implied(word: str, first: str, variable: str) -> str:
    """Return the type of a variable where the word before it is not that; empty where the word is, or none is known.

    Args:
        word: The last word before it; empty where there is none.
        first: The first variable after that word, where it is another one.
        variable: Its name.
    """
    if not variable:
        return ""
    if not word:
        return noun_of(variable)
    kind = kind_of(variable)
    if not kind or kind == noun(word) or (word in VERBS and (word not in NOUNS_TOO or word in READING_VERBS)):
        return ""
    if first:
        # `/users/<user_id>/<post_id>`, but not `/repositories/<owner>/<repository_name>`.
        return kind if (kind_of(first) or is_id(first)) and noun(word).rpartition("_")[2] != kind else ""
    return kind if word in NAMESPACES else ""
