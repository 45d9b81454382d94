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
    "discard": "discarded",
    "discharge": "discharged",
    "disconnect": "disconnected",
    "dismiss": "dismissed",
    "dispatch": "dispatched",
    "downgrade": "downgraded",
    "downvote": "downvoted",
    "download": "downloaded",
    "duplicate": "duplicated",
    "edit": "updated",
    "enable": "enabled",
    "enroll": "enrolled",
    "erase": "erased",
    "escalate": "escalated",
    "execute": "executed",
    "expire": "expired",
    "export": "exported",
    "extend": "extended",
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
    "kick": "kicked",
    "launch": "launched",
    "leave": "left",
    "like": "liked",
    "list": "listed",
    "load": "viewed",
    "lock": "locked",
    "merge": "merged",
    "moderate": "moderated",
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
    "reconnect": "reconnected",
    "recover": "recovered",
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
    "reply": "replied",
    "rerun": "rerun",
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
    "translate": "translated",
    "trigger": "triggered",
    "unarchive": "unarchived",
    "unassign": "unassigned",
    "unban": "unbanned",
    "unblock": "unblocked",
    "undelete": "undeleted",
    "unfollow": "unfollowed",
    "unfreeze": "unfrozen",
    "unhide": "unhidden",
    "unlike": "unliked",
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
    "upvote": "upvoted",
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
    refund register release reply return review rollback run schedule search set share sign start sync test
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
_SINGLETON_ENDS = _set("config configuration preferences settings")
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
_UNCHANGED = _set("series species")
"""Plurals that are their own singular."""

_NO_PLURALS = _set(
    """alias analytics atlas aws basics bias canvas chaos cms cors credits data details diagnostics dns economics
    electronics ergonomics ethics gas genetics gps graphics headquarters https ios kubernetes kudos lens logistics
    mathematics mechanics metrics news opds pandas physics politics pos preferences rss savings settings sms statistics
    stats terms tls tos"""
)
"""What ends like a plural, but is no list of things that are there one by one."""

_THINGS = _set(
    """account address album alert annotation answer appointment article asset attachment author award backup badge
    bill booking bookmark bot branch brand bucket budget building bundle calendar campaign card cart
    case category certificate challenge channel chapter chart chat city claim class client clinic collection comment
    company complaint condition contract conversation country coupon course credential customer dashboard dataset
    deal delivery department deposit device diagnosis discussion doctor document domain donation draft employee
    encounter engine entry episode estimate event exam expense experiment family feature flag flight folder form forum
    game goal grade group guest hint hospital host hotel house idea image incident ingredient instance institution
    integration interaction invitation invoice issue item job journal key label lead lesson letter library license line
    link list listing loan location lot machine match meal medication meeting member membership menu message milestone
    model module movie note notification object offer office opportunity option order organisation
    organization owner package page participant partner patient payment permission person pet photo picture pipeline
    place plan player playlist plugin policy poll post prescription procedure product profile project promotion
    property proposal purchase question quiz quote rating reaction receipt recipe record referral release reminder
    repo repository request reservation resource restaurant result review ride role room rule run sale sample schedule
    school secret seller sensor server service session share shelf shift shipment shop site skill slot snapshot song
    staff station stock story student subject submission subscriber subscription supplier survey table tag task
    teacher team template tenant test thread ticket todo token topic transaction transfer trip unit user vaccination
    vehicle vendor version video visit vote voucher warehouse webhook widget workflow workspace"""
)
"""Nouns in the singular under which applications keep many: `POST /patient` makes one."""

_NAMES = {"2fa": "two_factor", "2sv": "two_step"}


def singular(noun: str) -> str:
    """Turn an English plural into its singular, by the last of its words; one that is none stays as it is."""
    first, joint, last = noun.rpartition("_")
    return f"{first}{joint}{_singular(last)}"


def _singular(noun: str) -> str:
    if noun in _SINGULAR_EXCEPTIONS:
        return _SINGULAR_EXCEPTIONS[noun]
    if noun in _UNCHANGED | _NO_PLURALS or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("sses", "xes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and len(noun) > 2 else noun


def is_singleton(noun: str) -> bool:
    """Say whether a word names something of which there is one: `profile`, `mail_preferences`."""
    return noun in SINGLETONS or noun.rpartition("_")[2] in _SINGLETON_ENDS


def is_thing(noun: str) -> bool:
    """Say whether a word in the singular names, by its last part, a thing of which there are many."""
    return noun.rpartition("_")[2] in _THINGS


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
