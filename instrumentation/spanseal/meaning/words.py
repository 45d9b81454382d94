"""Words of routes and actions: verbs and their past tense, nouns and their singular. Plain data and its look-up."""

from __future__ import annotations

import re
import unicodedata


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = {
    "accept": "accepted",
    "acknowledge": "acknowledged",
    "activate": "activated",
    "add": "created",
    "admit": "admitted",
    "all": "listed",
    "allow": "allowed",
    "apply": "applied",
    "approve": "approved",
    "archive": "archived",
    "assign": "assigned",
    "attach": "attached",
    "authorize": "authorized",
    "ban": "banned",
    "block": "blocked",
    "book": "booked",
    "cancel": "cancelled",
    "capture": "captured",
    "change": "changed",
    "charge": "charged",
    "check_in": "checked_in",
    "check_out": "checked_out",
    "claim": "claimed",
    "clear": "cleared",
    "clone": "cloned",
    "close": "closed",
    "complete": "completed",
    "confirm": "confirmed",
    "connect": "connected",
    "convert": "converted",
    "copy": "copied",
    "create": "created",
    "deactivate": "deactivated",
    "decline": "declined",
    "decrypt": "decrypted",
    "delete": "deleted",
    "demote": "demoted",
    "deny": "denied",
    "deploy": "deployed",
    "destroy": "deleted",
    "detach": "detached",
    "disable": "disabled",
    "discharge": "discharged",
    "disconnect": "disconnected",
    "dismiss": "dismissed",
    "dispatch": "dispatched",
    "downgrade": "downgraded",
    "download": "downloaded",
    "duplicate": "duplicated",
    "edit": "updated",
    "enable": "enabled",
    "enroll": "enrolled",
    "escalate": "escalated",
    "execute": "executed",
    "expire": "expired",
    "export": "exported",
    "fetch": "viewed",
    "finalize": "finalized",
    "flag": "flagged",
    "flush": "flushed",
    "follow": "followed",
    "forward": "forwarded",
    "freeze": "frozen",
    "fulfill": "fulfilled",
    "generate": "generated",
    "get": "viewed",
    "grant": "granted",
    "hide": "hidden",
    "hold": "held",
    "import": "imported",
    "install": "installed",
    "introspect": "introspected",
    "invalidate": "invalidated",
    "invite": "invited",
    "issue": "issued",
    "join": "joined",
    "launch": "launched",
    "leave": "left",
    "like": "liked",
    "list": "listed",
    "load": "viewed",
    "lock": "locked",
    "merge": "merged",
    "move": "moved",
    "mute": "muted",
    "new": "created",
    "notify": "notified",
    "open": "opened",
    "opt_in": "opted_in",
    "opt_out": "opted_out",
    "pause": "paused",
    "pay": "paid",
    "pin": "pinned",
    "prescribe": "prescribed",
    "preview": "previewed",
    "print": "printed",
    "promote": "promoted",
    "publish": "published",
    "purge": "purged",
    "reactivate": "reactivated",
    "read": "viewed",
    "rebuild": "rebuilt",
    "recalculate": "recalculated",
    "receive": "received",
    "refresh": "refreshed",
    "refund": "refunded",
    "regenerate": "regenerated",
    "register": "registered",
    "reindex": "reindexed",
    "reinstate": "reinstated",
    "reject": "rejected",
    "release": "released",
    "reload": "reloaded",
    "remind": "reminded",
    "remove": "deleted",
    "rename": "renamed",
    "renew": "renewed",
    "reopen": "reopened",
    "reorder": "reordered",
    "replace": "replaced",
    "replay": "replayed",
    "reschedule": "rescheduled",
    "resend": "resent",
    "reset": "reset",
    "resolve": "resolved",
    "restart": "restarted",
    "restore": "restored",
    "resume": "resumed",
    "retry": "retried",
    "return": "returned",
    "revert": "reverted",
    "review": "reviewed",
    "revoke": "revoked",
    "rollback": "rolled_back",
    "rotate": "rotated",
    "run": "run",
    "save": "updated",
    "schedule": "scheduled",
    "seal": "sealed",
    "search": "searched",
    "send": "sent",
    "set": "updated",
    "settle": "settled",
    "share": "shared",
    "ship": "shipped",
    "show": "viewed",
    "sign": "signed",
    "sign_off": "signed_off",
    "skip": "skipped",
    "snooze": "snoozed",
    "start": "started",
    "stop": "stopped",
    "submit": "submitted",
    "subscribe": "subscribed",
    "suspend": "suspended",
    "sync": "synced",
    "terminate": "terminated",
    "test": "tested",
    "toggle": "toggled",
    "transfer": "transferred",
    "trigger": "triggered",
    "unarchive": "unarchived",
    "unassign": "unassigned",
    "unban": "unbanned",
    "unblock": "unblocked",
    "unfollow": "unfollowed",
    "unfreeze": "unfrozen",
    "unhide": "unhidden",
    "uninstall": "uninstalled",
    "unlink": "unlinked",
    "unlock": "unlocked",
    "unmute": "unmuted",
    "unpin": "unpinned",
    "unpublish": "unpublished",
    "unregister": "unregistered",
    "unshare": "unshared",
    "unsubscribe": "unsubscribed",
    "unsuspend": "unsuspended",
    "update": "updated",
    "upgrade": "upgraded",
    "upload": "uploaded",
    "validate": "validated",
    "verify": "verified",
    "view": "viewed",
    "void": "voided",
    "vote": "voted",
    "waive": "waived",
    "watch": "watched",
    "withdraw": "withdrawn",
    "write_off": "written_off",
}
"""Names of sub-routes that are actions of their own, and their past tense."""

READING_VERBS = _set("""all download export fetch get list load preview print read search show verify view""")
"""The verbs that mean themselves under GET too. Any other one under GET shows a form: `.viewed`."""

NOUNS_TOO = _set(
    """all archive ban block book capture change charge check_in check_out claim clone copy download
    duplicate export flag grant hold import invite issue like list load lock merge move pin preview print
    refund register release return review rollback run schedule search set share sign start sync test
    transfer update upgrade upload view vote watch"""
)
"""The verbs that name a thing where an id follows them, or where they stand alone: `/book/<id>`."""


THINGS_VERBS = _set("add create delete destroy edit new remove save update upload")
"""In `add_note` the note is what it is about, in `send_reminder` it is whatever the reminder is for."""

ENDING_VERBS = _set("approve cancel create delete destroy disable edit enable reject remove update")
"""The verbs that mean themselves at the end of a name too: `user_delete`."""

WITH_THINGS = _set("change download export grant import list search set update upload view")
"""Of `NOUNS_TOO`, those that are verbs where a thing follows in the same name: `export_patients`."""

NOUN_ENDS = _set(
    """code codes config date dates format formats history id ids item items job jobs key keys link links list lists
    log logs model models note notes plan plans policy queue request requests result results rule rules setting
    settings status template templates ticket tickets time token tokens type types"""
)
"""What makes a name that begins with one of these a thing after all: `export_jobs`."""

MANY = _set("all batch bulk many mass multi multiple selected")
"""Words that say that something is done to several things at once."""

SINGLETONS = _set("account avatar config me myself preferences profile self settings")
"""Of these there is one: what is posted to it changes it."""

ME = _set("current_user me myself whoami")

NAMESPACES = _set(
    """admin administration backend backoffice back_office console dashboard internal manage management manager
    portal private public staff web"""
)
"""Words before a thing that only say for whom the pages are."""

FORMATS = _set("atom htm html json pdf php rss txt webmanifest xml yaml")
BULK_FORMATS = _set("csv jsonl ndjson ods parquet tsv xls xlsx zip")
ASSETS = _set("css gif ico jpeg jpg js map png svg ttf webp woff woff2")
"""Endings of routes."""

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
    {
        "data",
        "details",
        "metrics",
        "news",
        "preferences",
        "series",
        "settings",
        "species",
        "statistics",
        "stats",
    }
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
