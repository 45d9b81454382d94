"""Route templates of all frameworks, in the one form that the mapping reads: `/patients/<pid>`.

Django writes `patients/<int:pid>/` or `^patients/(?P<pid>[0-9]+)/$`, FastAPI `/patients/{pid}`. A span says the
template and the path, and not the variables' values: these are what stands in the path where the template has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

__all__ = ["RouteTemplate", "template"]

MAX_PATH = 1024
"""Characters of a path that is matched: a longer one gives no values."""
_MAX_ROUTE = 1024

_MANY = frozenset({"path", "re_path", "subpath"})
"""Converters whose values may hold slashes."""
_TYPES = frozenset({"alpha", "float", "int", "path", "regex", "slug", "str", "strorempty", "uuid", "ymd"})
"""What Sanic writes after a variable's name, where others write it before."""

_ANGLED = re.compile(r"<(?:(?P<first>[^<>:()]*)(?:\([^<>]*\))?:)?(?P<last>[^<>]*)>")
_BRACED = re.compile(r"\{[^\d,}]")
_NAMED_GROUP = re.compile(r"\(\?P<(?P<name>\w+)>")
_LOOKS_LIKE_REGEX = re.compile(r"\(\?|[\^$\\]")
# What a pattern can hold that has no place in a template.
_ANCHOR = re.compile(r"\^|\$|\\[AZzbB]")
_CLASS = re.compile(r"\\[dDwWsS]|\[\^?\]?(?:\\.|[^\]\\])*\]")
_REPEATED = re.compile(r"[?*+]\??|\{\d*,?\d*\}\??")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Of a template: fixed text, or a variable."""

    fixed: str = ""
    variable: str = ""
    many: bool = False
    """Whether its value may hold slashes."""


@dataclass(frozen=True, slots=True)
class RouteTemplate:
    """A route in the mapping's own form."""

    text: str
    names: tuple[str, ...]
    """Of the variables, in their order."""
    pattern: re.Pattern[str] | None
    """What a path of this route looks like; None where this cannot be told."""

    def fits(self, path: str) -> bool:
        """Say whether a path is one of this route, as far as that can be told."""
        return self.pattern is not None and len(path) <= MAX_PATH and self.pattern.fullmatch(path) is not None

    def values(self, path: str, *, encoded: bool) -> dict[str, str]:
        """Take the variables' values from a path.

        Args:
            path: A request's path without its query. Before it may stand where the application is mounted.
            encoded: Whether it is as the client wrote it, with `%20`.

        Returns:
            The values by their names; nothing where the path is not one of this route, or too long.
        """
        if self.pattern is None or len(path) > MAX_PATH or (found := self.pattern.fullmatch(path)) is None:
            return {}
        values = zip(self.names, found.groups(), strict=True)
        return {name: unquote(value) if encoded else value for name, value in values if value}


@lru_cache(maxsize=4096)
def template(route: str) -> RouteTemplate:
    """Read a route as a framework writes it. Never raises: what cannot be understood is left out."""
    pieces, exact = _read(route[:_MAX_ROUTE])
    # The ending that REST frameworks take (`.json`) is neither a thing nor one's id.
    end = len(pieces) - (bool(pieces) and pieces[-1].fixed == "/")
    if end > 1 and pieces[end - 1].variable == "format" and pieces[end - 2].fixed.endswith("."):
        pieces[end - 2 :] = [_Piece(fixed=pieces[end - 2].fixed[:-1])]
        exact = False
    text = "".join(f"<{piece.variable}>" if piece.variable else piece.fixed for piece in pieces)
    if not text.startswith("/"):
        text = f"/{text}"
        pieces.insert(0, _Piece(fixed="/"))
    names = tuple(piece.variable for piece in pieces if piece.variable)
    return RouteTemplate(text, names, _pattern(pieces) if exact and len(route) <= _MAX_ROUTE else None)


def _pattern(pieces: list[_Piece]) -> re.Pattern[str] | None:
    """Build what finds the values. It must not take long over any path, so it does not try everything."""
    many = sum(piece.many for piece in pieces)
    if many > 1:
        return None
    parts: list[str] = []
    for at, piece in enumerate(pieces):
        if not piece.variable:
            parts.append(re.escape(piece.fixed))
            continue
        after = pieces[at + 1] if at + 1 < len(pieces) else None
        if after is not None and after.variable:
            return None  # nothing says where one ends
        if piece.many:
            parts.append("(.+)")
            continue
        # A value ends where what follows it begins; the last `-` where `-` follows and there may be several.
        mark = after.fixed[0] if after is not None else "/"
        crowded = _in_segment(pieces, at) > 2 and mark != "/"
        parts.append(f"([^/{re.escape(mark)}]+)" if crowded else "([^/]+)")
    body = "".join(parts)
    # An optional slash at the end: most frameworks take both.
    body = body.removesuffix("/") + "/?"
    # Where the application is mounted: the least that will do.
    return re.compile(body if many else f"(?:/.*?)??{body}", re.DOTALL)


def _in_segment(pieces: list[_Piece], at: int) -> int:
    """Count the variables that share a path segment with the one at this place."""

    def reach(step: int) -> int:
        count, place = 0, at + step
        while 0 <= place < len(pieces) and "/" not in pieces[place].fixed:
            count += bool(pieces[place].variable)
            place += step
        return count

    return 1 + reach(-1) + reach(1)


# --- reading ---------------------------------------------------------------------------------------------


def _read(route: str) -> tuple[list[_Piece], bool]:
    """Take a route apart; say whether nothing had to be left out."""
    regex = _LOOKS_LIKE_REGEX.search(route) is not None
    pieces: list[_Piece] = []
    fixed: list[str] = []
    exact = True
    at = 0

    def flush() -> None:
        if fixed:
            pieces.append(_Piece(fixed="".join(fixed)))
            fixed.clear()

    while at < len(route):
        found = _variable(route, at, regex=regex)
        if found is not None:
            flush()
            piece, at = found
            pieces.append(piece)
            if regex and (repeated := _REPEATED.match(route, at)):
                exact, at = False, repeated.end()
            continue
        if regex:
            skipped, is_exact = _no_text(route, at, fixed)
            exact = exact and is_exact
            if skipped > at:
                at = skipped
                continue
            if route[at] == "\\" and at + 1 < len(route):
                at += 1
        fixed.append(route[at])
        at += 1
    flush()
    return pieces, exact


def _variable(route: str, at: int, *, regex: bool) -> tuple[_Piece, int] | None:
    """Read the variable that begins here, if one does; return it with the place after it."""
    if route[at] == "<" and (angled := _ANGLED.match(route, at)):
        first, last = angled["first"] or "", angled["last"]
        if first and last in _TYPES and first not in _TYPES:
            first, last = last, first
        return _Piece(variable=_name(last), many=first in _MANY), angled.end()
    if regex and (group := _NAMED_GROUP.match(route, at)):
        end = _closing(route, at, "(", ")")
        inside = route[group.end() : end - 1]
        return _Piece(variable=_name(group["name"]), many=_takes_slashes(inside)), end
    if _BRACED.match(route, at):
        end = _closing(route, at, "{", "}")
        name, _, kind = route[at + 1 : end - 1].partition(":")
        return _Piece(variable=_name(name), many=kind in _MANY or _takes_slashes(kind)), end
    return None


def _no_text(route: str, at: int, fixed: list[str]) -> tuple[int, bool]:
    """Go past what is no text in a pattern; return the place after it, and whether nothing is lost by that."""
    if anchor := _ANCHOR.match(route, at):
        return anchor.end(), True
    if route[at] == "(":
        end = _closing(route, at, "(", ")")
        repeated = _REPEATED.match(route, end)
        return (repeated.end() if repeated else end), False
    if bracketed := _CLASS.match(route, at):
        repeated = _REPEATED.match(route, bracketed.end())
        return (repeated.end() if repeated else bracketed.end()), False
    if repeated := _REPEATED.match(route, at):
        # `/?` at the end is what most patterns end in.
        return repeated.end(), bool(fixed) and fixed[-1] == "/" and repeated.end() >= len(route.rstrip("$"))
    return at, True


def _closing(route: str, at: int, opening: str, closing: str) -> int:
    """Return the place after the bracket that closes the one here; the route's end where none does."""
    depth = 0
    while at < len(route):
        if route[at] == "\\":
            at += 1
        elif opening == "(" and (bracketed := _CLASS.match(route, at)):
            at = bracketed.end() - 1
        elif route[at] == opening:
            depth += 1
        elif route[at] == closing:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return len(route)


def _takes_slashes(pattern: str) -> bool:
    return ".*" in pattern or ".+" in pattern


def _name(text: str) -> str:
    """Make a variable's name that the mapping reads."""
    name = re.sub(r"\W", "_", text.strip(), flags=re.ASCII) or "value"
    return f"_{name}" if name[0].isdigit() else name
