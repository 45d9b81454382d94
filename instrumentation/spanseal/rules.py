"""What requests mean to one application: its own rules, and where they are silent, the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .mapping import Meaning, map_request

__all__ = ["DEFAULTS", "Rules", "load_rules"]


class Rules:
    """The rules of one application."""

    def meaning(
        self,
        method: str,
        route: str | None,
        view_args: Mapping[str, object] | None = None,
        status: int = 0,  # noqa: ARG002 - the defaults do not ask
    ) -> Meaning:
        """Say what a request meant.

        Args:
            method: Of HTTP, upper case.
            route: The route's template, None where no route was found.
            view_args: The values of its variables.
            status: Of the answer, 0 where there is none yet.
        """
        return map_request(method, route, view_args)

    def skips(self, method: str, route: str | None) -> str:  # noqa: ARG002 - there are no rules yet
        """Say why a request is not to be recorded; empty where it is."""
        return ""


DEFAULTS = Rules()


def load_rules(path: Path | None) -> Rules:  # noqa: ARG001 - as above
    """Read a rules file; None for the defaults alone.

    Raises:
        ConfigurationError: It cannot be read, or something in it is wrong; the line is named.
    """
    return DEFAULTS
