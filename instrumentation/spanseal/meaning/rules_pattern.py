"""Which routes a rule is about: a route's template, with `*` for any one segment and `**` for any rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["UNMATCHED", "RoutePattern", "variables", "without_converters"]

UNMATCHED = "unmatched"
"""What a rules file calls requests for which no route was found."""

# As werkzeug reads a rule. A converter's arguments may hold slashes.
_PART = re.compile(r"/|<(?:[a-zA-Z_]\w*(?:\(.*?\))?:)?[a-zA-Z_]\w*>|[^/<]+|<", re.ASCII)
_VARIABLE = re.compile(r"<(?:[a-zA-Z_]\w*(?:\(.*?\))?:)?([a-zA-Z_]\w*)>", re.ASCII)
_WITH_CONVERTER = re.compile(r"<[a-zA-Z_]\w*(?:\(.*?\))?:([a-zA-Z_]\w*)>", re.ASCII)


def variables(route: str) -> tuple[str, ...]:
    """Name the variables of a route's template."""
    return tuple(_VARIABLE.findall(route))


def _segments(route: str) -> tuple[str, ...]:
    """Split at slashes, but not inside of `<…>`. What stands before the first slash comes first: empty."""
    segments = [""]
    for part in _PART.findall(route):
        if part == "/":
            segments.append("")
        else:
            segments[-1] += part
    return tuple(segments)


def without_converters(route: str) -> str:
    """Return a route's template, or a part of it, with `<pid>` for `<int:pid>`."""
    return _WITH_CONVERTER.sub(r"<\1>", route)


@dataclass(frozen=True, slots=True)
class RoutePattern:
    """A pattern for routes' templates.

    `<pid>` in it stands for `<int:pid>` and every other converter too; `<int:pid>` for itself alone.
    """

    text: str
    segments: tuple[str, ...] = ()
    """Without a closing `**`; empty for `unmatched`."""
    open_end: bool = False

    @classmethod
    def parse(cls, text: str) -> RoutePattern:
        """Read a pattern.

        Raises:
            ValueError: It is none; the text says what to write.
        """
        if text == UNMATCHED:
            return cls(text)
        if not text.startswith("/"):
            raise ValueError(f"it begins with a slash, or is the word {UNMATCHED}")
        segments = _segments(text)
        open_end = segments[-1] == "**"
        if open_end:
            segments = segments[:-1]
        for segment in segments:
            if segment == "**":
                raise ValueError(
                    "** stands for the rest of a route: write it at the end, or * for one segment"
                )
            if "*" in _VARIABLE.sub("", segment) and segment != "*":
                raise ValueError("* stands for a whole segment: write it alone between slashes")
        return cls(text, segments, open_end)

    @property
    def fixed(self) -> bool:
        """Whether it is one route's template, without `*`."""
        return self.text != UNMATCHED and not self.open_end and "*" not in self.segments

    def matches(self, route: str | None) -> bool:
        """Say whether a route's template is one of these; None is a request without a route."""
        if route is None or self.text == UNMATCHED:
            return route is None and self.text == UNMATCHED
        return self._holds(_segments(route), open_end=False)

    def covers(self, other: RoutePattern) -> bool:
        """Say whether every route that the other one matches is matched by this one."""
        if UNMATCHED in (self.text, other.text):
            return self.text == other.text
        return self._holds(other.segments, open_end=other.open_end)

    def _holds(self, segments: tuple[str, ...], *, open_end: bool) -> bool:
        if len(segments) < len(self.segments) or (
            not self.open_end and (open_end or len(segments) != len(self.segments))
        ):
            return False
        return all(
            wanted == segment or (wanted == "*" and segment != "") or wanted == without_converters(segment)
            for wanted, segment in zip(self.segments, segments, strict=False)
        )
