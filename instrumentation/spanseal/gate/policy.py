"""Which actions are privileged, and what each of them takes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spanseal.errors import ConfigurationError

__all__ = [
    "DEFAULT_CONFIRM",
    "SEED",
    "Policy",
    "Requirement",
    "default_requirement",
    "duration",
    "load_function",
]

MINUTE, HOUR, DAY = 60, 3600, 86400
_UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_LONGEST = 30 * DAY

DEFAULT_CONFIRM = 15 * MINUTE
DEFAULT_APPROVAL = HOUR
DEFAULT_USE_WITHIN = HOUR
SESSION_KEY = "mfa_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one action takes. Times are whole seconds; 0 is "not needed"."""

    confirm: int = 0
    """How old the actor's confirmation with a second factor may be."""
    approval: int = 0
    """How long a request for approval waits."""
    use_within: int = DEFAULT_USE_WITHIN
    """How long an approval that was granted can be used."""
    bind_body: bool = False
    """Whether an approval is for the bytes of the request's body too."""


SEED: Mapping[str, Requirement] = MappingProxyType(
    {
        "admin.permission_granted": Requirement(confirm=DEFAULT_CONFIRM),
        "admin.role_changed": Requirement(confirm=DEFAULT_CONFIRM),
        "user.deleted": Requirement(confirm=DEFAULT_CONFIRM, approval=DEFAULT_APPROVAL),
        "user.impersonated": Requirement(confirm=DEFAULT_CONFIRM),
        "api_key.created": Requirement(confirm=DEFAULT_CONFIRM),
        "data.bulk_exported": Requirement(confirm=DEFAULT_CONFIRM, approval=DEFAULT_APPROVAL),
        "config.changed": Requirement(confirm=DEFAULT_CONFIRM),
    }
)
"""The actions that `seed: true` gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All of it, as one application says it.

    Functions are named, and loaded when they are first called: the file is read before the application is there.
    """

    actions: Mapping[str, Requirement] = field(default_factory=dict)
    session_key: str = SESSION_KEY
    """Where the session says when its user confirmed; not read where there is a `confirmation` function."""
    confirmation: str = ""
    """`module:function` that returns when the current user last confirmed; empty for the session."""
    approvers: str = ""
    """`module:function` that is asked (actor, action, resource) whether that actor may approve."""
    approver_roles: frozenset[str] = frozenset()
    """Roles that may approve; empty for everybody who is signed in, unless `approvers` decides."""
    store: Path | None = None
    """The file that holds approvals; None for the default beside the spool."""
    store_factory: str = ""
    """`module:function` that returns a `Store` of the application's own."""


def default_requirement(action: str, policy: Policy) -> Requirement:
    """What an action takes where nothing else is said of it: as in the policy, the seed, or a confirmation."""
    return policy.actions.get(action) or SEED.get(action) or Requirement(confirm=DEFAULT_CONFIRM)


def stated(base: Requirement, **said: Any) -> Requirement:
    """Return a requirement with what is said (not None) put in place."""
    return replace(base, **{name: value for name, value in said.items() if value is not None})


def duration(text: str) -> int:
    """Read a duration such as `90s`, `15m`, `1h` or `7d`.

    Returns:
        Seconds, from 1 to 30 days.

    Raises:
        ValueError: It is none; the message says what to write.
    """
    match = _DURATION.fullmatch(text)
    value = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= value <= _LONGEST:
        raise ValueError("write a number with its unit, from 1s to 30d, such as 15m or 1h")
    return value


def load_function(name: str, what: str) -> Callable[..., Any]:
    """Import a function that the policy names.

    Args:
        name: `module:function`.
        what: Where it is named, for the error's message.

    Raises:
        ConfigurationError: It cannot be imported, or cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        # Importing an application's module may raise anything.
        raise ConfigurationError(
            f"{what} is {name!r}, which cannot be imported ({type(error).__name__}: {error}): write module:function"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{what} is {name!r}, which is not callable: write module:function")
    return found  # type: ignore[no-any-return]  # getattr gives Any
