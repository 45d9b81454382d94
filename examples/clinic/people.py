"""What the clinic's people ask of the app: one request after the other, as plain data, drawn from a seed.

Nothing here sends anything; `examples.clinic.traffic` does. What a person asks next depends on the random numbers
alone, never on an answer, except for the accounts that an administrator has made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from .clinic.seed import ACCOUNTS, DEMO_PASSWORD, INVOICES, PATIENTS

__all__ = ["ROLES", "Call", "Drawer", "next_call", "sign_in", "sign_out"]

ROLES = ("doctor", "nurse", "billing", "admin")
_NOBODY = 900_000
"""A number that no patient and no invoice of the demo data has."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    """Sent as JSON; None where there is none."""
    stranger: bool = False
    """Made from a browser in which nobody is signed in."""


@dataclass(slots=True)
class Drawer:
    """What one person's requests are drawn from."""

    random: Random
    secrets: Sequence[str] = ()
    accounts: list[int] = field(default_factory=list)
    """Numbers of the accounts that this person has made."""
    planted: int = 0

    def secret(self, otherwise: str) -> str:
        """Return the next of the secrets in turn, or `otherwise` where none are to be planted."""
        if not self.secrets:
            return otherwise
        self.planted += 1
        return self.secrets[self.planted % len(self.secrets)]

    def patient(self) -> int:
        """Return the number of a patient."""
        return self.random.randint(1, PATIENTS)

    def invoice(self) -> int:
        """Return the number of an invoice."""
        return self.random.randint(1, INVOICES)


def sign_in(username: str) -> Call:
    """Sign in with the right password."""
    return Call("POST", "/login", body={"username": username, "password": DEMO_PASSWORD})


def sign_out() -> Call:
    """Sign out."""
    return Call("POST", "/logout", body={})


def next_call(role: str, drawer: Drawer) -> Call:
    """Draw what a signed-in person of a role asks next.

    Args:
        role: One of `ROLES`.
        drawer: The person's random numbers and secrets.
    """
    makers, weights = _HABITS[role]
    return drawer.random.choices(makers, weights)[0](drawer)


# --- everybody ---------------------------------------------------------------------------------------------


def _home(_: Drawer) -> Call:
    return Call("GET", "/")


def _failing_sign_in(drawer: Drawer) -> Call:
    known = drawer.random.random() < 0.6
    username = drawer.random.choice(ACCOUNTS).username if known else f"guest.{drawer.random.randint(1, 99)}"
    body = {"username": username, "password": drawer.secret("not-the-password")}
    return Call("POST", "/login", body=body, stranger=True)


def _change_password(drawer: Drawer) -> Call:
    # To the same one, so that the account stays what the next run expects; or with a wrong one, which is refused.
    current = DEMO_PASSWORD if drawer.random.random() < 0.5 else drawer.secret("the-one-before-last")
    return Call("POST", "/password", body={"current": current, "new": DEMO_PASSWORD})


# --- patients ----------------------------------------------------------------------------------------------


def _patients(drawer: Drawer) -> Call:
    if drawer.random.random() < 0.4:
        return Call("GET", "/patients", {"q": drawer.secret(drawer.random.choice(("ada", "berg", "son")))})
    return Call("GET", "/patients", {"page": str(drawer.random.randint(1, 2))})


def _patient(drawer: Drawer) -> Call:
    return Call("GET", f"/patients/{drawer.patient()}")


def _no_patient(drawer: Drawer) -> Call:
    return Call("GET", f"/patients/{_NOBODY + drawer.random.randint(0, 99)}")


def _new_patient(drawer: Drawer) -> Call:
    number = drawer.random.randint(100, 999)
    body = {
        "name": f"Nora Newcomer {number}",
        "born": f"19{number % 90 + 10}-02-03",
        "phone": f"555-{number:04}",
    }
    return Call("POST", "/patients", body=body)


def _unborn_patient(_: Drawer) -> Call:
    return Call("POST", "/patients", body={"name": "Nora Newcomer", "born": "31.12.1980"})


def _edit_patient(drawer: Drawer) -> Call:
    body = {"phone": f"555-{drawer.random.randint(0, 9999):04}"}
    return Call("PATCH", f"/patients/{drawer.patient()}", body=body)


def _notes(drawer: Drawer) -> Call:
    return Call("GET", f"/patients/{drawer.patient()}/notes")


def _write_note(drawer: Drawer) -> Call:
    words = drawer.random.choice(
        ("Slept well.", "Pain less than yesterday.", "Blood taken.", "Discharge tomorrow.")
    )
    text = f"{words} {drawer.secret('')}".strip()
    return Call("POST", f"/patients/{drawer.patient()}/notes", body={"text": text})


def _empty_note(drawer: Drawer) -> Call:
    return Call("POST", f"/patients/{drawer.patient()}/notes", body={"text": "  "})


def _export(_: Drawer) -> Call:
    return Call("GET", "/patients/export")


# --- invoices ----------------------------------------------------------------------------------------------


def _invoices(drawer: Drawer) -> Call:
    since = {"since": f"2024-0{drawer.random.randint(1, 6)}-01"} if drawer.random.random() < 0.3 else {}
    return Call("GET", "/invoices", since)


def _invoices_since_when(_: Drawer) -> Call:
    return Call("GET", "/invoices", {"since": "last week"})


def _invoice(drawer: Drawer) -> Call:
    return Call("GET", f"/invoices/{drawer.invoice()}")


def _no_invoice(drawer: Drawer) -> Call:
    return Call("GET", f"/invoices/{_NOBODY + drawer.random.randint(0, 99)}")


def _new_invoice(drawer: Drawer) -> Call:
    cents = drawer.random.randint(20, 400) * 100
    body = {"patient_id": drawer.patient(), "description": "Consultation", "amount_cents": cents}
    return Call("POST", "/invoices", body=body)


def _free_invoice(drawer: Drawer) -> Call:
    body = {"patient_id": drawer.patient(), "description": "Consultation", "amount_cents": 0}
    return Call("POST", "/invoices", body=body)


def _refund(drawer: Drawer) -> Call:
    return Call("POST", f"/invoices/{drawer.invoice()}/refund", body={"reason": "Charged twice"})


def _report(_: Drawer) -> Call:
    return Call("GET", "/invoices/report", {"year": "2024"})


def _mistyped_report(drawer: Drawer) -> Call:
    return Call("GET", "/invoices/report", {"year": drawer.secret("this year")})


# --- accounts ----------------------------------------------------------------------------------------------


def _users(_: Drawer) -> Call:
    return Call("GET", "/users")


def _new_user(drawer: Drawer) -> Call:
    body = {
        "username": f"temp.{drawer.random.getrandbits(32):08x}",
        "full_name": "Temporary Help",
        "role": drawer.random.choice(ROLES),
        "password": f"temporary-{drawer.secret(str(drawer.random.getrandbits(32)))}",
    }
    return Call("POST", "/users", body=body)


def _change_user(drawer: Drawer) -> Call:
    verb, role = drawer.random.choice(("roles", "suspend", "reinstate")), drawer.random.choice(ROLES)
    place = drawer.random.random()
    if not drawer.accounts:
        # The people of the demo data are left alone: they are at work in the other threads.
        return _new_user(drawer)
    account = drawer.accounts[int(place * len(drawer.accounts))]
    return Call("POST", f"/users/{account}/{verb}", body={"role": role} if verb == "roles" else {})


Habits = dict[Callable[[Drawer], Call], int]

# In percent of what is asked between signing in and out. A tenth is a read that the role does not allow, a twentieth
# a sign-in that fails.
_EVERYBODY: Habits = {_failing_sign_in: 5, _home: 2, _change_password: 1}
_DOCTOR: Habits = _EVERYBODY | {
    _patients: 17,
    _patient: 28,
    _notes: 8,
    _write_note: 13,
    _edit_patient: 7,
    _new_patient: 2,
    _export: 1,
    _invoice: 10,  # forbidden
    _no_patient: 4,
    _unborn_patient: 4,
}
_NURSE: Habits = _EVERYBODY | {
    _patients: 20,
    _patient: 30,
    _notes: 10,
    _write_note: 16,
    _invoices: 6,  # forbidden
    _export: 4,  # forbidden
    _no_patient: 4,
    _empty_note: 4,
}
_BILLING: Habits = _EVERYBODY | {
    _invoices: 20,
    _invoice: 27,
    _new_invoice: 14,
    _refund: 7,
    _report: 4,
    _mistyped_report: 3,
    _patient: 11,  # forbidden
    _no_invoice: 4,
    _invoices_since_when: 2,
    _free_invoice: 2,
}
_ADMIN: Habits = _EVERYBODY | {
    _users: 14,
    _new_user: 5,
    _change_user: 13,
    _patients: 12,
    _patient: 8,
    _export: 5,
    _invoices: 9,
    _invoice: 8,
    _report: 2,
    _mistyped_report: 2,
    _notes: 10,  # forbidden
    _no_patient: 3,
    _invoices_since_when: 3,
}
_HABITS: dict[str, tuple[Sequence[Callable[[Drawer], Call]], Sequence[int]]] = {
    role: (tuple(habits), tuple(habits.values()))
    for role, habits in zip(ROLES, (_DOCTOR, _NURSE, _BILLING, _ADMIN), strict=True)
}
