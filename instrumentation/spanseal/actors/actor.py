"""Who did it, as a record says it."""

from __future__ import annotations

from dataclasses import dataclass

from spanseal.errors import InvalidRecord

__all__ = ["ACTOR_TYPES", "ANONYMOUS", "MAX_TEXT", "Actor"]

MAX_TEXT = 4096
"""Characters of an actor's id, role, e-mail address or name."""

ACTOR_TYPES = ("user", "service", "system", "anonymous")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with the role held at that moment."""

    id: str = ""
    type: str = "user"
    """`user`, `service`, `system` or `anonymous`."""
    role: str = ""
    """Several roles are joined with commas."""
    email: str = ""
    """Personal: can be erased later."""
    name: str = ""
    """The user's short name, for people who read the trail; personal as well."""
    on_behalf_of: str = ""
    """Whose rights are used, where the actor acts as somebody else: the id of that one."""

    def __post_init__(self) -> None:
        """Refuse what the collector would not admit.

        Raises:
            InvalidRecord: An unknown type, or a value that is not text or too long.
        """
        if self.type not in ACTOR_TYPES:
            raise InvalidRecord(f"actor type {self.type!r} is not one of {', '.join(ACTOR_TYPES)}")
        for name in ("id", "role", "email", "name", "on_behalf_of"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InvalidRecord(f"the actor's {name} must be text, not {type(value).__name__}")
            if len(value) > MAX_TEXT:
                raise InvalidRecord(f"the actor's {name} has {len(value)} characters, the most is {MAX_TEXT}")


ANONYMOUS = Actor(type="anonymous")
