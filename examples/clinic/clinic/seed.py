"""Demo data: made-up people, the same in every installation."""

from __future__ import annotations

import random
import secrets
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.security import generate_password_hash

if TYPE_CHECKING:
    import sqlite3

DEMO_PASSWORD = "clinic-demo-2024"
PATIENTS = 48
INVOICES = 240
NOTES = 90


class Account(NamedTuple):
    username: str
    full_name: str
    role: str


ACCOUNTS = (
    Account("a.osei", "Dr. Ama Osei", "doctor"),
    Account("j.lindqvist", "Dr. Jonas Lindqvist", "doctor"),
    Account("m.tanaka", "Mika Tanaka", "nurse"),
    Account("s.abara", "Sade Abara", "nurse"),
    Account("l.moreau", "Luc Moreau", "billing"),
    Account("p.ferreira", "Paula Ferreira", "admin"),
)

_FIRST = ("Ada", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hana", "Ivo", "Jana", "Kofi", "Lena")
_LAST = ("Almeida", "Berg", "Castillo", "Duarte", "Eriksen", "Fontaine", "Grünwald", "Hughes")
_STREETS = ("Mill Lane", "Harbour Road", "Station Street", "Elm Avenue", "Church Walk")
_ALLERGIES = ("", "", "", "penicillin", "latex", "nuts", "pollen")
_SERVICES = (
    ("Consultation", 6_500),
    ("Blood panel", 4_200),
    ("X-ray, two views", 11_800),
    ("Vaccination", 3_900),
    ("Physiotherapy, 30 min", 5_400),
    ("Minor surgery", 24_000),
)
_NOTES = (
    "Blood pressure 128/82, no change of medication.",
    "Reports mild headaches since last week. Review in 14 days.",
    "Wound healing well, stitches removed.",
    "Referred to physiotherapy, six sessions.",
    "Vaccination given, observed for 15 minutes, no reaction.",
    "Laboratory results discussed by phone.",
)


def fill(connection: sqlite3.Connection, *, password_method: str) -> None:
    """Write the demo data into an empty schema, within the caller's transaction."""
    rng = random.Random("clinic")  # noqa: S311 - made-up names need no cryptography
    today = date(2024, 6, 3)
    connection.execute(
        "INSERT INTO setting (name, value) VALUES ('secret_key', ?)", (secrets.token_urlsafe(32),)
    )
    connection.executemany(
        "INSERT INTO account (username, full_name, role, password_hash) VALUES (?, ?, ?, ?)",
        [(*account, generate_password_hash(DEMO_PASSWORD, password_method)) for account in ACCOUNTS],
    )
    connection.executemany(
        "INSERT INTO patient (name, born, phone, email, address, allergies) VALUES (?, ?, ?, ?, ?, ?)",
        [_patient(number, rng, today) for number in range(PATIENTS)],
    )
    connection.executemany(
        "INSERT INTO invoice (patient_id, issued, description, amount_cents, status) VALUES (?, ?, ?, ?, ?)",
        [
            (
                rng.randint(1, PATIENTS),
                (today - timedelta(days=rng.randint(0, 180))).isoformat(),
                *rng.choice(_SERVICES),
                rng.choice(("open", "paid", "paid")),
            )
            for _ in range(INVOICES)
        ],
    )
    writers = [number for number, account in enumerate(ACCOUNTS, 1) if account.role in {"doctor", "nurse"}]
    connection.executemany(
        "INSERT INTO note (patient_id, author_id, written_at, text) VALUES (?, ?, ?, ?)",
        [
            (
                rng.randint(1, PATIENTS),
                rng.choice(writers),
                f"{today - timedelta(days=rng.randint(0, 180))}T{rng.randint(8, 17):02}:{rng.randint(0, 59):02}:00Z",
                rng.choice(_NOTES),
            )
            for _ in range(NOTES)
        ],
    )


def _patient(number: int, rng: random.Random, today: date) -> tuple[str, str, str, str, str, str]:
    first = _FIRST[number % len(_FIRST)]
    last = _LAST[(number // len(_FIRST) + number) % len(_LAST)]
    born = today - timedelta(days=rng.randint(365, 365 * 90))
    return (
        f"{first} {last}",
        born.isoformat(),
        f"555-01{number:02}",
        f"{first}.{last}@example.com".lower().replace("ü", "ue"),
        f"{rng.randint(1, 120)} {rng.choice(_STREETS)}",
        rng.choice(_ALLERGIES),
    )
