"""Privileged actions: done only by somebody who has just confirmed, and where it matters, with another's approval.

`policy` says what is privileged, `gate` decides, `store` keeps approvals, `flask_gate` and `decorator` are where the
gate stands, `blueprint` and `commands` are where people approve.

This package is also the decorator: `@spanseal.privileged("user.deleted")`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__: list[str] = []


class _Decorator(ModuleType):
    """A module that can be called: the decorator has the name of the package that it lives in."""

    def __call__(self, *arguments: Any, **named: Any) -> Callable[[Any], Any]:
        """Be `decorator.privileged`."""
        from .decorator import privileged  # noqa: PLC0415 - what the package is for need not be loaded with it

        return privileged(*arguments, **named)


sys.modules[__name__].__class__ = _Decorator
