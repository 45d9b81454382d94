"""What changed: the fields that an application names, before and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from spanseal.errors import InvalidRecord

from .values import REDACTED, is_secret, plain

__all__ = ["Fields", "Watched", "changes", "changes_of"]

PREFIX = "change."
LIST = "change.fields"
"""The names of the fields that changed: sorted, joined with commas."""

_MOST_FIELDS = 100
_UNREADABLE = "[unreadable]"


class _Absent:
    """Stands for a field that is not there: not the same as one that is None."""


_ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields are compared, and which values are shown."""

    names: tuple[str, ...]
    redacted: frozenset[str]

    @classmethod
    def of(cls, fields: Iterable[str], redact: Iterable[str] = (), show: Iterable[str] = ()) -> Fields:
        """Take the names that an application gave; what the arguments mean is said at `changes`.

        Raises:
            InvalidRecord: There is none, there are too many, or one is no name.
        """
        if any(isinstance(given, str) for given in (fields, redact, show)):
            raise InvalidRecord("fields, redact and show are lists of names, not one text")
        names, hidden, shown = tuple(dict.fromkeys(fields)), frozenset(redact), frozenset(show)
        if not all(isinstance(name, str) for name in (*names, *hidden, *shown)):
            raise InvalidRecord("the names of fields are texts")
        if not 0 < len(names) <= _MOST_FIELDS:
            raise InvalidRecord(f"name between 1 and {_MOST_FIELDS} fields to compare")
        for name in names:
            if not name or "," in name or len(name) > 200:
                raise InvalidRecord(f"a field's name is a text without commas, not {ascii(name)[:80]}")
        unknown = sorted((hidden | shown) - set(names))
        if unknown:
            raise InvalidRecord(
                f"{', '.join(unknown)[:200]} is to be redacted or shown and is not among the fields"
            )
        secret = {name for name in names if is_secret(name)}
        return cls(names, hidden | (secret - shown))

    def read(self, source: object, *, keep: bool = False) -> dict[str, object]:
        """Read the fields of a mapping or an object as they are now; what is not there is left out.

        Args:
            source: The mapping or object; None has no fields.
            keep: Whether lists and mappings among the values may be changed in place before they are compared:
                they are then taken as the text that a record shows of them.
        """
        if source is None:
            return {}
        found = ((name, _field(source, name)) for name in self.names)
        return {name: _kept(value) if keep else value for name, value in found if value is not _ABSENT}

    def compare(self, before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
        """Return the attributes that tell what `read` found changed."""
        attributes: dict[str, object] = {}
        changed = []
        for name in self.names:
            values = (("before", before.get(name, _ABSENT)), ("after", after.get(name, _ABSENT)))
            if _equal(values[0][1], values[1][1]):
                continue
            changed.append(name)
            for when, value in values:
                if value is not _ABSENT:
                    shown = REDACTED if name in self.redacted else plain(value)
                    attributes[f"{PREFIX}{name}.{when}"] = shown
        return {LIST: ",".join(sorted(changed)), **attributes}


def changes(
    before: object,
    after: object,
    *,
    fields: Collection[str],
    redact: Collection[str] = (),
    show: Collection[str] = (),
) -> dict[str, object]:
    """Tell what changed between two states of a thing, for `record()`, `annotate()` and `attributes=` anywhere.

    Args:
        before: A mapping, or an object whose attributes are read; None for what was not there before. An object that
            is changed in place must be read before: give `{"status": invoice.status}`.
        after: The same afterwards; None for what is gone.
        fields: The names to compare. Nothing else is read.
        redact: Those of which the record says only that they changed. A name that looks like a secret's (`password`,
            `token`, `ssn`, `iban`, …) is redacted by itself,
        show: unless it is named here.

    Returns:
        Attributes of a record: `change.fields`, the sorted names of what changed joined with commas, and for each of
        these `change.<name>.before` and `change.<name>.after`: text of at most 1,000 characters, a number, a bool or
        None; lists and mappings as JSON text. What was not there has none.

    Raises:
        InvalidRecord: No field is named, or none of the two has it.
    """
    chosen = Fields.of(fields, redact, show)
    old, new = chosen.read(before), chosen.read(after)
    missing = [name for name in chosen.names if name not in old and name not in new]
    if missing and not (before is None and after is None):
        raise InvalidRecord(f"neither state has a field {', '.join(missing)[:200]}")
    return chosen.compare(old, new)


@dataclass(frozen=True, slots=True)
class Watched:
    """What `@audited` compares before and after a call."""

    source: str | Callable[..., object]
    fields: Fields


def changes_of(
    source: str | Callable[..., object],
    *,
    fields: Collection[str],
    redact: Collection[str] = (),
    show: Collection[str] = (),
) -> Watched:
    """Let `@audited(changes=...)` tell what a call changed.

    Args:
        source: The name of the parameter whose object the function changes, or a function that is called with the
            same arguments, before and after, and returns the object or None.
        fields: As of `changes`.
        redact: As of `changes`.
        show: As of `changes`.

    Raises:
        InvalidRecord: No field is named.
    """
    return Watched(source, Fields.of(fields, redact, show))


def _field(source: object, name: str) -> object:
    try:
        if isinstance(source, Mapping):
            return source.get(name, _ABSENT)
        return getattr(source, name, _ABSENT)
    except Exception:  # noqa: BLE001 - what a property or a database session does is the application's
        return _UNREADABLE


def _kept(value: object) -> object:
    return plain(value) if isinstance(value, Mapping | list | set | bytearray) else value


def _equal(one: object, other: object) -> bool:
    if one is _ABSENT or other is _ABSENT:
        return one is other
    try:
        return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)
    except Exception:  # noqa: BLE001 - an application's own comparison
        return plain(one) == plain(other)
