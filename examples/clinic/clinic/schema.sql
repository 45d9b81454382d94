CREATE TABLE account (
    id            INTEGER PRIMARY KEY,
    username      TEXT NOT NULL UNIQUE COLLATE NOCASE,
    full_name     TEXT NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('doctor', 'nurse', 'billing', 'admin')),
    password_hash TEXT NOT NULL,
    suspended     INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1))
) STRICT;

CREATE TABLE patient (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    born      TEXT NOT NULL,
    phone     TEXT NOT NULL DEFAULT '',
    email     TEXT NOT NULL DEFAULT '',
    address   TEXT NOT NULL DEFAULT '',
    allergies TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE note (
    id         INTEGER PRIMARY KEY,
    patient_id INTEGER NOT NULL REFERENCES patient (id),
    author_id  INTEGER NOT NULL REFERENCES account (id),
    written_at TEXT NOT NULL,
    text       TEXT NOT NULL
) STRICT;
CREATE INDEX note_by_patient ON note (patient_id);

CREATE TABLE invoice (
    id            INTEGER PRIMARY KEY,
    patient_id    INTEGER NOT NULL REFERENCES patient (id),
    issued        TEXT NOT NULL,
    description   TEXT NOT NULL,
    amount_cents  INTEGER NOT NULL CHECK (amount_cents > 0),
    status        TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'paid', 'refunded')),
    refund_reason TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
