"""Invoices and refunds."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from flask import Blueprint, abort, request, url_for

from .auth import requires
from .database import db, transaction
from .web import done, page, page_number, payload, text

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

PAGE_SIZE = 50
MAX_CENTS = 100_000_000

blueprint = Blueprint("invoices", __name__, url_prefix="/invoices")


@blueprint.get("")
@requires("invoices.read")
def index() -> ResponseReturnValue:
    number = page_number()
    try:
        since = date.fromisoformat(request.args.get("since") or "0001-01-01")
    except ValueError:
        abort(400, "The date since when must look like 2024-01-31.")
    rows = db().execute(
        "SELECT invoice.id, patient_id, patient.name AS patient, issued, description, amount_cents, status"
        " FROM invoice JOIN patient ON patient.id = patient_id WHERE issued >= ?"
        " ORDER BY invoice.id DESC LIMIT ? OFFSET ?",
        (since.isoformat(), PAGE_SIZE + 1, (number - 1) * PAGE_SIZE),
    )
    found = [dict(row) for row in rows]
    return page(
        "invoices.html",
        {"invoices": found[:PAGE_SIZE], "page": number, "more": len(found) > PAGE_SIZE},
        since=request.args.get("since", ""),
    )


@blueprint.post("")
@requires("invoices.write")
def create() -> ResponseReturnValue:
    sent = payload()
    description = text(sent, "description")
    pid = _whole(sent.get("patient_id"), "patient_id", 2**62)
    cents = _whole(sent.get("amount_cents"), "amount_cents", MAX_CENTS)
    issued = datetime.now(UTC).date().isoformat()
    with transaction() as connection:
        if connection.execute("SELECT 1 FROM patient WHERE id = ?", (pid,)).fetchone() is None:
            abort(404, "There is no such patient.")
        iid = connection.execute(
            "INSERT INTO invoice (patient_id, issued, description, amount_cents) VALUES (?, ?, ?, ?)",
            (pid, issued, description, cents),
        ).lastrowid
    return done({"id": iid, "status": "open"}, see=url_for("invoices.index"), status=201)


@blueprint.get("/report")
@requires("invoices.read")
def report() -> ResponseReturnValue:
    # A year that is no number is answered with 500, as it happens in applications: the ValueError's message
    # contains what was typed. Left so to show what becomes of such a message; see the README.
    year = int(request.args.get("year") or datetime.now(UTC).year)
    rows = db().execute(
        "SELECT substr(issued, 1, 7) AS month, count(*) AS invoices, sum(amount_cents) AS invoiced_cents,"
        " sum(iif(status = 'refunded', amount_cents, 0)) AS refunded_cents"
        " FROM invoice WHERE substr(issued, 1, 4) = ? GROUP BY month ORDER BY month",
        (f"{year:04}",),
    )
    return page("report.html", {"year": year, "months": [dict(row) for row in rows]})


@blueprint.get("/<int:iid>")
@requires("invoices.read")
def show(iid: int) -> ResponseReturnValue:
    row = (
        db()
        .execute(
            "SELECT invoice.*, patient.name AS patient FROM invoice JOIN patient ON patient.id = patient_id"
            " WHERE invoice.id = ?",
            (iid,),
        )
        .fetchone()
    )
    if row is None:
        abort(404, "There is no such invoice.")
    return page("invoice.html", {"invoice": dict(row)})


@blueprint.post("/<int:iid>/refund")
@requires("invoices.write")
def refund(iid: int) -> ResponseReturnValue:
    reason = text(payload(), "reason")
    with transaction() as connection:
        row = connection.execute("SELECT status FROM invoice WHERE id = ?", (iid,)).fetchone()
        if row is None:
            abort(404, "There is no such invoice.")
        if row["status"] == "refunded":
            abort(409, "This invoice has been refunded already.")
        connection.execute(
            "UPDATE invoice SET status = 'refunded', refund_reason = ? WHERE id = ?", (reason, iid)
        )
    return done({"id": iid, "status": "refunded"}, see=url_for("invoices.show", iid=iid))


def _whole(sent: object, name: str, largest: int) -> int:
    """Return a positive whole number that came as JSON or as a form's text."""
    if isinstance(sent, str) and sent.isascii() and sent.isdigit() and len(sent) < 20:
        sent = int(sent)
    if not isinstance(sent, int) or isinstance(sent, bool) or not 0 < sent <= largest:
        abort(400, f"The field {name} must be a whole number from 1 to {largest}.")
    return sent
