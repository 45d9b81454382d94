"""Words of routes and actions: singular nouns, verbs of sub-routes in the past tense. Plain data."""

from __future__ import annotations

import re
import unicodedata

VERBS = {
    "accept": "accepted",
    "activate": "activated",
    "add": "created",
    "admit": "admitted",
    "approve": "approved",
    "archive": "archived",
    "assign": "assigned",
    "attach": "attached",
    "ban": "banned",
    "block": "blocked",
    "book": "booked",
    "cancel": "cancelled",
    "capture": "captured",
    "charge": "charged",
    "clone": "cloned",
    "close": "closed",
    "complete": "completed",
    "confirm": "confirmed",
    "copy": "copied",
    "create": "created",
    "deactivate": "deactivated",
    "delete": "deleted",
    "demote": "demoted",
    "deploy": "deployed",
    "destroy": "deleted",
    "disable": "disabled",
    "discharge": "discharged",
    "dismiss": "dismissed",
    "download": "downloaded",
    "duplicate": "duplicated",
    "edit": "updated",
    "enable": "enabled",
    "enroll": "enrolled",
    "export": "exported",
    "finalize": "finalized",
    "forward": "forwarded",
    "grant": "granted",
    "import": "imported",
    "invite": "invited",
    "issue": "issued",
    "lock": "locked",
    "merge": "merged",
    "move": "moved",
    "new": "created",
    "open": "opened",
    "pause": "paused",
    "pay": "paid",
    "prescribe": "prescribed",
    "preview": "previewed",
    "print": "printed",
    "promote": "promoted",
    "publish": "published",
    "purge": "purged",
    "refund": "refunded",
    "reject": "rejected",
    "release": "released",
    "remove": "deleted",
    "rename": "renamed",
    "renew": "renewed",
    "reopen": "reopened",
    "reset": "reset",
    "restart": "restarted",
    "restore": "restored",
    "resume": "resumed",
    "retry": "retried",
    "review": "reviewed",
    "revoke": "revoked",
    "rotate": "rotated",
    "run": "run",
    "schedule": "scheduled",
    "search": "searched",
    "send": "sent",
    "share": "shared",
    "sign": "signed",
    "start": "started",
    "stop": "stopped",
    "submit": "submitted",
    "subscribe": "subscribed",
    "suspend": "suspended",
    "sync": "synced",
    "transfer": "transferred",
    "unarchive": "unarchived",
    "unassign": "unassigned",
    "unblock": "unblocked",
    "unlock": "unlocked",
    "unpublish": "unpublished",
    "unshare": "unshared",
    "unsubscribe": "unsubscribed",
    "update": "updated",
    "upload": "uploaded",
    "validate": "validated",
    "verify": "verified",
    "view": "viewed",
    "void": "voided",
    "withdraw": "withdrawn",
}
"""Names of sub-routes that are actions of their own, and their past tense."""

READING_VERBS = frozenset({"download", "export", "preview", "print", "search", "verify", "view"})
"""The verbs that mean themselves under GET too. Any other one under GET shows a form: `.viewed`."""

NOUNS_TOO = frozenset(
    {
        "archive",
        "ban",
        "block",
        "book",
        "capture",
        "charge",
        "clone",
        "copy",
        "download",
        "duplicate",
        "export",
        "grant",
        "import",
        "invite",
        "issue",
        "lock",
        "merge",
        "move",
        "preview",
        "print",
        "refund",
        "release",
        "review",
        "run",
        "schedule",
        "search",
        "share",
        "sign",
        "start",
        "sync",
        "transfer",
        "update",
        "upload",
        "view",
    }
)
"""The verbs that name a thing where an id follows them, or where they stand alone: `/book/<id>`."""

_SINGULAR_EXCEPTIONS = {
    "addresses": "address",
    "aliases": "alias",
    "analyses": "analysis",
    "apis": "api",
    "bonuses": "bonus",
    "buses": "bus",
    "caches": "cache",
    "calories": "calorie",
    "campuses": "campus",
    "children": "child",
    "cookies": "cookie",
    "crises": "crisis",
    "diagnoses": "diagnosis",
    "hypotheses": "hypothesis",
    "indices": "index",
    "kpis": "kpi",
    "matrices": "matrix",
    "menus": "menu",
    "movies": "movie",
    "people": "person",
    "prognoses": "prognosis",
    "quizzes": "quiz",
    "statuses": "status",
    "viruses": "virus",
    "wikis": "wiki",
}
_UNCHANGED = frozenset(
    {"data", "details", "metrics", "news", "series", "settings", "species", "statistics", "stats"}
)
_NAMES = {"2fa": "two_factor", "2sv": "two_step"}


def singular(noun: str) -> str:
    """Turn an English plural into its singular, by the last of its words; one that is none stays as it is."""
    first, joint, last = noun.rpartition("_")
    return f"{first}{joint}{_singular(last)}"


def _singular(noun: str) -> str:
    if noun in _SINGULAR_EXCEPTIONS:
        return _SINGULAR_EXCEPTIONS[noun]
    if noun in _UNCHANGED or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("sses", "xes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and len(noun) > 2 else noun


def is_plural(noun: str) -> bool:
    """Say whether a word of a route names a collection."""
    return noun.rpartition("_")[2] in _UNCHANGED or singular(noun) != noun


def plain(text: str) -> str:
    """Reduce a segment of a route to what may stand in an action: `[a-z][a-z0-9_]*`.

    Accents go. A name in another script becomes `resource`; one that begins with a digit gets a letter before it.

    Returns:
        Empty for a segment of punctuation only.
    """
    letters = unicodedata.normalize("NFKD", text)
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", letters)
    folded = "".join(letter for letter in spaced.casefold() if not unicodedata.combining(letter))
    word = re.sub(r"[^a-z0-9]+", "_", folded).strip("_")
    if word in _NAMES:
        return _NAMES[word]
    if not word:
        return "resource" if any(letter.isalnum() for letter in text) else ""
    return f"n_{word}" if word[0].isdigit() else word
