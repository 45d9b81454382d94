"""Words of routes and actions: singular nouns, verbs of sub-routes in the past tense. Plain data."""

from __future__ import annotations

import re

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

_SINGULAR_EXCEPTIONS = {
    "addresses": "address",
    "analyses": "analysis",
    "bonuses": "bonus",
    "buses": "bus",
    "campuses": "campus",
    "children": "child",
    "diagnoses": "diagnosis",
    "indices": "index",
    "matrices": "matrix",
    "movies": "movie",
    "people": "person",
    "statuses": "status",
    "viruses": "virus",
}
_UNCHANGED = frozenset(
    {"data", "details", "metrics", "news", "series", "settings", "species", "statistics", "stats"}
)


def singular(noun: str) -> str:
    """Turn an English plural into its singular; a word that is none stays as it is."""
    if noun in _UNCHANGED or noun.endswith(("ss", "us", "is")):
        return noun
    if noun in _SINGULAR_EXCEPTIONS:
        return _SINGULAR_EXCEPTIONS[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("sses", "xes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and len(noun) > 2 else noun


def is_plural(noun: str) -> bool:
    """Say whether a word of a route names a collection."""
    return noun in _UNCHANGED or singular(noun) != noun


def plain(text: str) -> str:
    """Reduce a segment of a route to what may stand in an action: lower case, digits, `_`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
