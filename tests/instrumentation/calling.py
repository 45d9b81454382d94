"""Calling an application as a WSGI server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
from flask.testing import EnvironBuilder


class BoomError(Exception):
    """Of an application."""


def environ(app: flask.Flask, path: str = "/", **arguments: Any) -> dict[str, Any]:
    return EnvironBuilder(app, path, **arguments).get_environ()


def call(app: Any, request: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Call an application as a server would, up to its body."""
    begun: list[Any] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        begun.append((status, dict(headers), exc_info))
        return begun.append

    return app(request, start_response), begun


def replace_wsgi_app(app: flask.Flask, application: Any) -> None:
    """Put a middleware into an application, as Flask's documentation tells to."""
    app.wsgi_app = application  # type: ignore[method-assign]
