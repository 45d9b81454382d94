"""What the views share: one answer for browsers and for JSON clients, input, errors, CSRF."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any

from flask import abort, json, jsonify, redirect, render_template, request, session
from werkzeug.exceptions import HTTPException
from werkzeug.routing import IntegerConverter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask, Response
    from flask.typing import ResponseReturnValue
    from werkzeug.routing import Map
    from werkzeug.wrappers import Response as BaseResponse

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_TEXT = 4_000
MAX_PAGE = 10_000
MAX_ROW = 2**63 - 1
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class RowNumber(IntegerConverter):
    """The number of a row in a path (`<int:pid>`): one that SQLite could not hold is no route at all."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=MAX_ROW)


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
        BadRequest: the JSON is malformed, nested too deeply or no object.
    """
    if request.mimetype == "application/json":
        try:
            sent = request.get_json()
        except RecursionError:
            abort(400, "The JSON is nested too deeply.")
        if not isinstance(sent, dict):
            abort(400, "The body must be a JSON object.")
        return sent
    return request.form


def text(fields: Mapping[str, Any], name: str, default: str | None = None, *, longest: int = MAX_TEXT) -> str:
    """Return one text field, stripped; without a `default` it must be there and not blank.

    Raises:
        BadRequest: the field is missing, blank, no text or longer than `longest` characters.
    """
    value = fields.get(name, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        abort(400, f"The field {name} is missing.")
    if len(value) > longest:
        abort(400, f"The field {name} is longer than {longest} characters.")
    if not well_formed(value):
        abort(400, f"The field {name} is not well-formed text.")
    return value.strip()


def well_formed(value: str) -> bool:
    """Tell whether text can be stored and hashed: JSON can carry half a surrogate pair, UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def page_number() -> int:
    """Return the page of a list that was asked for, from 1; what is no number is the first page."""
    return min(max(request.args.get("page", 1, type=int), 1), MAX_PAGE)


def money(cents: int) -> str:
    """Write an amount as people read it."""
    return f"{cents // 100:,}.{cents % 100:02} EUR"


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


def show_error(error: HTTPException) -> HTTPException | BaseResponse:
    """Answer every error in the client's own kind, without a word of what went wrong inside."""
    if error.code is None or error.code < 400:  # a redirect to a route's canonical path is raised as well
        return error
    response = error.get_response()  # has the headers that belong to the error, such as Allow
    message = error.description
    if wants_html():
        response.content_type = "text/html; charset=utf-8"
        response.set_data(render_template("error.html", status=error.code, name=error.name, message=message))
    else:
        response.content_type = "application/json"
        response.set_data(json.dumps({"error": error.name, "message": message}))
    return response


def add_headers(response: Response) -> Response:
    """Keep patients' data out of every cache between here and the reader, and other sites' content out of the pages."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.vary.add("Accept")
    return response


def init_app(app: Flask) -> None:
    app.before_request(check_csrf)
    app.after_request(add_headers)
    app.register_error_handler(HTTPException, show_error)
    app.jinja_env.globals["csrf_token"] = csrf_token
    app.jinja_env.filters["money"] = money
    app.url_map.converters["int"] = RowNumber
