"""What the views share: one answer for browsers and for JSON clients, input, errors, CSRF."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any

from flask import Response, abort, jsonify, redirect, render_template, request, session
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask
    from flask.typing import ResponseReturnValue

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_TEXT = 4_000


def wants_html() -> bool:
    """Tell a browser from a JSON client: HTML only for who prefers it by name."""
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def page(template: str, data: Mapping[str, Any], **more: Any) -> ResponseReturnValue:
    """Answer with a page or with `data` as JSON; `more` is for the page alone."""
    if wants_html():
        return render_template(template, **data, **more)
    return jsonify(data)


def done(data: Mapping[str, Any], *, see: str, status: int = 200) -> ResponseReturnValue:
    """Answer a change: a browser is sent on to `see`, a JSON client gets `data`."""
    if wants_html():
        return redirect(see, 303)
    return jsonify(data), status


def payload() -> Mapping[str, Any]:
    """Return the fields that were sent, as a form or as a JSON object.

    Raises:
        BadRequest: the JSON is malformed or no object.
    """
    if request.mimetype == "application/json":
        sent = request.get_json()
        if not isinstance(sent, dict):
            abort(400, "The body must be a JSON object.")
        return sent
    return request.form


def text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return one text field, stripped; without a `default` it must be there and not blank.

    Raises:
        BadRequest: the field is missing, blank, no string or longer than `MAX_TEXT` characters.
    """
    value = fields.get(name, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        abort(400, f"The field {name} is missing.")
    if len(value) > MAX_TEXT:
        abort(400, f"The field {name} is longer than {MAX_TEXT} characters.")
    return value.strip()


def csrf_token() -> str:
    """Return this session's form token, made when a form first asks for it."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def check_csrf() -> None:
    """Refuse a change that another site could have sent.

    A page of another site can make a browser send a form, but not a JSON body without a preflight that
    this app never answers; so only what is not JSON needs the token.

    Raises:
        BadRequest: the token is missing or not this session's.
    """
    if request.method in SAFE_METHODS or request.mimetype == "application/json":
        return
    sent = request.form.get("csrf_token", "")
    expected = session.get("csrf", "")
    if not expected or not hmac.compare_digest(sent.encode(), expected.encode()):
        abort(400, "The form has expired. Load the page again.")


def show_error(error: HTTPException) -> ResponseReturnValue:
    """Answer every error in the client's own kind, without a word of what went wrong inside."""
    response = error.get_response()
    if not isinstance(response, Response) or response.status_code < 400:
        return error
    status = response.status_code
    if wants_html():
        return render_template(
            "error.html", status=status, name=error.name, message=error.description
        ), status
    return jsonify(error=error.name, message=error.description), status


def no_store(response: Response) -> Response:
    """Keep patients' data out of every cache between here and the reader."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.vary.add("Accept")
    return response


def init_app(app: Flask) -> None:
    app.before_request(check_csrf)
    app.after_request(no_store)
    app.register_error_handler(HTTPException, show_error)
    app.jinja_env.globals["csrf_token"] = csrf_token
