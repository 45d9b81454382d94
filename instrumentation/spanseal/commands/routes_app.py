"""Loading an application to look at its routes, as `flask --app` and gunicorn name it; without auditing it."""

from __future__ import annotations

import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from spanseal.errors import SpansealError

if TYPE_CHECKING:
    import flask

__all__ = ["AppNotLoaded", "load_app"]


class AppNotLoaded(SpansealError):
    """There is no application of that name, or it fails while it is imported."""


def load_app(target: str) -> flask.Flask:
    """Import a Flask application. What it prints goes to standard error; what it records goes nowhere.

    Args:
        target: `module:app`, `module:factory()` with literal arguments, `module:factory`, or a module alone, in which
            `app`, `application`, `create_app` and `make_app` are looked for. The working directory is searched first.

    Raises:
        AppNotLoaded: It cannot be found or imported; the message says why, and where.
    """
    try:
        from flask.cli import NoAppException, ScriptInfo  # noqa: PLC0415 - the other commands need no Flask
    except ModuleNotFoundError as error:
        raise AppNotLoaded(
            f"{error.name} is not installed here: run this where the application runs"
        ) from None
    from spanseal.testing import capture_audit  # noqa: PLC0415 - as above

    try:
        with capture_audit(), redirect_stdout(sys.stderr):
            return ScriptInfo(app_import_path=target, set_debug_flag=False).load_app()
    except NoAppException as error:
        text = str(error.message)
        if "Traceback (most recent call last)" in text:
            # Of an import inside of the application; its last line says what is missing.
            text = f"while {target} was imported: {text.strip().splitlines()[-1]}"
        raise AppNotLoaded(text) from error
    except SystemExit as error:
        raise AppNotLoaded(
            f"while {target} was imported, it ended the process with {error.code!r}: "
            "let it do so only where it is run as a program"
        ) from error
    except Exception as error:
        raise AppNotLoaded(
            f"while {target} was imported: {type(error).__name__}: {error}{_place(error)}"
        ) from error


def _place(error: BaseException) -> str:
    """Name the innermost line of the working directory's own code, or else of all."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path.cwd())
    own = [
        frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename
    ]
    if not (own or frames):
        return ""
    last = (own or frames)[-1]
    return f" ({last.filename}, line {last.lineno})"
