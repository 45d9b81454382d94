"""Patients and the notes on them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, abort, g, render_template, request, url_for

from .auth import may, requires
from .database import db, transaction
from .web import done, page, page_number, payload, text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

PAGE_SIZE = 50
FIELDS = ("name", "born", "phone", "email", "address", "allergies")
REQUIRED = frozenset({"name", "born"})

blueprint = Blueprint("patients", __name__, url_prefix="/patients")


@blueprint.get("")
@requires("patients.read")
def index() -> ResponseReturnValue:
    search = request.args.get("q", "").strip()
    number = page_number()
    # A search is for a piece of text: LIKE's own wildcards in it mean themselves.
    pattern = "%" + search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = db().execute(
        "SELECT id, name, born, phone FROM patient WHERE name LIKE ? ESCAPE '\\' ORDER BY name, id LIMIT ? OFFSET ?",
        (pattern, PAGE_SIZE + 1, (number - 1) * PAGE_SIZE),
    )
    found = [dict(row) for row in rows]
    return page(
        "patients.html",
        {"patients": found[:PAGE_SIZE], "page": number, "more": len(found) > PAGE_SIZE},
        search=search,
    )


@blueprint.get("/new")
@requires("patients.write")
def new() -> ResponseReturnValue:
    return render_template("patient_form.html", patient=None)


@blueprint.post("")
@requires("patients.write")
def create() -> ResponseReturnValue:
    sent = payload()
    values = {name: _field(sent, name) for name in FIELDS}
    with transaction() as connection:
        pid = connection.execute(
            "INSERT INTO patient (name, born, phone, email, address, allergies) VALUES (?, ?, ?, ?, ?, ?)",
            [values[name] for name in FIELDS],
        ).lastrowid
    return done({"id": pid, **values}, see=url_for("patients.show", pid=pid), status=201)


@blueprint.get("/<int:pid>")
@requires("patients.read")
def show(pid: int) -> ResponseReturnValue:
    return page("patient.html", {"patient": dict(_patient(pid))}, notes=_notes(pid) if may("notes") else [])


@blueprint.get("/<int:pid>/edit")
@requires("patients.write")
def edit(pid: int) -> ResponseReturnValue:
    return render_template("patient_form.html", patient=_patient(pid))


# POST is for the form: HTML knows no PATCH.
@blueprint.route("/<int:pid>", methods=["PATCH", "POST"])
@requires("patients.write")
def update(pid: int) -> ResponseReturnValue:
    sent = payload()
    with transaction() as connection:
        values = dict(_patient(pid))
        values.update({name: _field(sent, name) for name in FIELDS if name in sent})
        connection.execute(
            "UPDATE patient SET name = :name, born = :born, phone = :phone, email = :email,"
            " address = :address, allergies = :allergies WHERE id = :id",
            values,
        )
    return done(values, see=url_for("patients.show", pid=pid))


@blueprint.get("/<int:pid>/notes")
@requires("notes")
def notes(pid: int) -> ResponseReturnValue:
    patient = _patient(pid)
    return page("notes.html", {"notes": _notes(pid)}, patient=patient)


@blueprint.post("/<int:pid>/notes")
@requires("notes")
def write_note(pid: int) -> ResponseReturnValue:
    words = text(payload(), "text")
    _patient(pid)
    with transaction() as connection:
        number = connection.execute(
            "INSERT INTO note (patient_id, author_id, written_at, text) VALUES (?, ?, ?, ?)",
            (pid, g.account["id"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), words),
        ).lastrowid
    return done({"id": number, "patient_id": pid}, see=url_for("patients.show", pid=pid), status=201)


@blueprint.get("/export")
@requires("patients.export")
def export() -> ResponseReturnValue:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(("id", *FIELDS))
    columns = "id, name, born, phone, email, address, allergies"
    writer.writerows(db().execute(f"SELECT {columns} FROM patient ORDER BY id"))  # noqa: S608 - a constant
    return Response(
        lines.getvalue(),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=patients.csv"},
    )


def _patient(pid: int) -> sqlite3.Row:
    row: sqlite3.Row | None = db().execute("SELECT * FROM patient WHERE id = ?", (pid,)).fetchone()
    if row is None:
        abort(404, "There is no such patient.")
    return row


def _notes(pid: int) -> list[dict[str, Any]]:
    rows = db().execute(
        "SELECT note.id, written_at, full_name AS author, text FROM note"
        " JOIN account ON account.id = author_id WHERE patient_id = ? ORDER BY note.id DESC LIMIT ?",
        (pid, PAGE_SIZE),
    )
    return [dict(row) for row in rows]


def _field(sent: Mapping[str, Any], name: str) -> str:
    value = text(sent, name, None if name in REQUIRED else "")
    if name == "born":
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            abort(400, "The date of birth must look like 1980-12-31.")
    return value
