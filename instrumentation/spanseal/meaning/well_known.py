"""Names that many applications have in common: signing in, roles, keys, settings, exports, probes.

The vocabulary is that of docs/rules.md. A route is recognised where its words leave little doubt; what is not
recognised here gets its name from `mapping`, by its verb or its method.
"""

from __future__ import annotations

from .route_words import Plan, Words
from .words import VERBS, plain

__all__ = ["IMPERSONATED", "OWN", "PASSWORD_CHANGED", "SIGNED_IN", "SIGNED_OUT", "recognise"]

SIGNED_IN = "user.signed_in"
SIGNED_OUT = "user.signed_out"
IMPERSONATED = "user.impersonated"
PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - an action's name
_RESET_REQUESTED = "user.password_reset_requested"
_MFA_ENABLED = "user.mfa_enabled"
_MFA_DISABLED = "user.mfa_disabled"
_MFA_VERIFIED = "user.mfa_verified"
_MFA_CHALLENGED = "user.mfa_challenged"

OWN = frozenset(
    {
        SIGNED_IN,
        SIGNED_OUT,
        PASSWORD_CHANGED,
        _MFA_ENABLED,
        _MFA_DISABLED,
        _MFA_VERIFIED,
        "user.email_changed",
    }
)
"""What people do to their own account, unless the route names another one."""

_ASKING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_LOOKING = frozenset({"HEAD", "OPTIONS", "TRACE"})
"""Methods under which nothing is done, also not by applications that change things under GET."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PEOPLE = _words("account auth customer employee identity member profile registration user") | {""}
"""Whose signing in and out it is, and whose password; empty for whoever asks."""
_GROUPS = _words("company group org organisation organization project team tenant workspace")

_SIGN_IN = _words("authenticate log_in login sign_in signin")
_SIGN_OUT = _words("log_out logout logout_all sign_out signout")
_SIGN_UP = _words("register registration sign_up signup")
_AUTH = _words("auth oauth oauth2 oidc openid saml saml2 sso") | _SIGN_IN
_CALLBACKS = _words("acs authorized callback")
_OWN_CALLBACKS = _words(
    "auth_callback login_callback oauth_callback oauth2_callback oidc_callback sso_callback"
)
_TOKENS = {
    ("auth", "refresh"): "token.refreshed",
    ("oauth", "introspect"): "token.introspected",
    ("oauth", "revoke"): "token.revoked",
    ("oauth", "token"): "token.issued",
    ("oauth2", "introspect"): "token.introspected",
    ("oauth2", "revoke"): "token.revoked",
    ("oauth2", "token"): "token.issued",
    ("auth", "token"): "token.issued",
    ("token", "obtain"): "token.issued",
    ("token",): "token.issued",
    ("token", "refresh"): "token.refreshed",
    ("refresh_token",): "token.refreshed",
    ("token", "revoke"): "token.revoked",
}

_PASSWORD = _words(
    """change_password password password_change password_reset_confirm password_update reset_password
    reset_password_confirm set_password update_password"""
)
_PASSWORD_PARTS = {("password", "change"), ("password_reset", "confirm")}
_FORGOTTEN = _words(
    """forgot forgot_password forgotten_password lost_password password_forgot password_forgotten password_reset_request
    recover_password request_password_reset reset_password_request"""
)
_EMAIL = _words("confirm_email email_confirm email_confirmation email_verify verify_email")
_EMAIL_CHANGED = _words("change_email email_change update_email")
_FOLLOWED = {"activate": "activated", "confirm": "confirmed", "verify": "verified"}
"""What a link with a credential in it does, though it is followed with GET."""

_MFA = _words("mfa multi_factor otp passkey totp two_factor two_step webauthn")
_MFA_VERBS = {
    **dict.fromkeys(_words("activate add confirm enable enroll register setup"), _MFA_ENABLED),
    **dict.fromkeys(_words("deactivate delete disable remove"), _MFA_DISABLED),
    **dict.fromkeys(_words("authenticate check login validate verify"), _MFA_VERIFIED),
    **dict.fromkeys(_words("challenge resend send"), _MFA_CHALLENGED),
    "reset": "user.mfa_reset",
}

_IMPERSONATE = _words("impersonate impersonation login_as masquerade switch_user")
_END_IMPERSONATION = _words("end_impersonation exit_impersonation stop_impersonating unimpersonate")
_INVITE = _words("invitation invitations invite invite_user invites")

_GRANTS = _words("grants permission permissions role roles")
_GRANTED_TO = _words("account admin grant group member membership permission role team user") | {""}
_HOLD_ROLES = _words("account customer employee group member membership service_account team user")
_GRANTED = _words("add_permission add_role assign_role grant_admin grant_permission grant_role make_admin")
_REVOKED = _words(
    """remove_admin remove_permission remove_role revoke_admin revoke_permission revoke_role unassign_role"""
)
_ROLE_CHANGED = _words("change_role role_change set_role update_role")

_KEYS = _words("access_key access_token api_key api_token apikey personal_access_token service_account_key")
_KEY_VERBS = {
    **dict.fromkeys(_words("create generate issue new"), "created"),
    **dict.fromkeys(_words("delete disable remove revoke"), "revoked"),
    **dict.fromkeys(_words("regenerate renew reset roll rotate"), "rotated"),
}

_CONFIG = _words("config configs configuration configurations setting settings")
_OF_ONESELF = _words("account avatar email me notification notifications preferences profile theme")
"""Settings of these are a person's own affair, not how the application works."""

_BULK = _words("bulk_export data_export dump export_all export_data full_export takeout")
_BULK_PARTS = {("export", "all"), ("export", "bulk"), ("bulk", "export"), ("data", "export")}
_REFUNDED = _words("charge invoice order payment purchase transaction")
_UPLOADS = _words("file files upload upload_file uploads")
_FILES = _words("download downloads file files media upload uploads")
_FILE_VARIABLES = _words("file file_name file_path filename filepath fname name path")
_SENDERS = _words("integration platform provider sender service source vendor")

_HEALTH = _words("health health_check healthcheck healthz")
_PROBES = _HEALTH | _words("alive heartbeat live liveness livez ping readiness ready readyz startupz up")
_PAGES_OWN = _words("apple_touch_icon favicon manifest robots security service_worker sitemap")
_ASSET_FOLDERS = _words("assets css dist icons images img js public static well_known")


def recognise(method: str, route: Words) -> Plan | None:
    """Say what a request means by a name that many applications have; None where it has none of these.

    Args:
        method: Of HTTP, upper case; empty for one that is not known.
        route: Its words. There is at least one.
    """
    groups = (_web, _mfa, _signing_in, _accounts, _impersonation, _rights, _keys, _config, _data, _hooks)
    return next((plan for group in groups if (plan := group(method, route)) is not None), None)


def _who(route: Words) -> str:
    """Return what the last word belongs to; empty where a variable alone says that: `/<tenant>/register`."""
    return "" if route.owner_implied else route.owner[0]


def _web(method: str, route: Words) -> Plan | None:
    """What belongs to the web page or to the machine, not to what people do."""
    words, last = route.fixed, route.last
    if route.after:
        return None
    if last == "graphql":
        return None if method in _LOOKING else Plan("graphql.requested", "graphql")
    if method not in ("GET", "HEAD"):
        return None
    if words[0] in _HEALTH or (last in _PROBES and (len(words) == 1 or words[-2] in ("actuator", "status"))):
        return Plan("health.viewed", "health")
    if (route.asset or last in _PAGES_OWN) and (len(words) == 1 or words[-2] in _ASSET_FOLDERS):
        return Plan("static.viewed", "static")
    return None


def _mfa(method: str, route: Words) -> Plan | None:
    if method in _ASKING:
        return None
    words = [word.removesuffix("s") for word in route.fixed]
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    verb, _, thing = last.partition("_")
    thing = plain(thing)
    action = ""
    if last in _MFA:
        # A page of its own asks for the code; one among an account's pages sets it up.
        asked = before in _SIGN_IN or len(words) == 1
        action = _MFA_DISABLED if method == "DELETE" else _MFA_VERIFIED if asked else _MFA_ENABLED
    elif before in _MFA:
        action = _MFA_VERBS.get(last, "")
    elif thing in _MFA:
        action = _MFA_VERBS.get(verb, "")
    return Plan(action, "user", route.of("user")) if action else None


def _signing_in(method: str, route: Words) -> Plan | None:  # noqa: PLR0911 - one for each name
    words, last = route.fixed, route.last
    owner = _who(route)
    if method in _LOOKING:
        return None
    if last in _SIGN_OUT or route.ends("logout", "all"):
        return Plan(SIGNED_OUT, "user")
    # Where another service asks for the password, its answer comes with GET.
    among = not _AUTH.isdisjoint(words[:-1]) or words == ["callback"]
    if last in _OWN_CALLBACKS or (last in _CALLBACKS and among):
        return Plan(SIGNED_IN, "user")
    if last == "session" and owner in _PEOPLE and not route.after and method in ("POST", "DELETE"):
        return Plan(SIGNED_IN if method == "POST" else SIGNED_OUT, "user")
    if method != "POST":
        return None
    if last in _SIGN_IN and (last != "authenticate" or owner in _PEOPLE):
        return Plan(SIGNED_IN, "user")
    if last in _SIGN_UP and owner in _PEOPLE:
        return Plan("user.registered", "user")
    token = _TOKENS.get(tuple(words[-2:]))
    return Plan(token, "token") if token and not route.after else None


def _accounts(method: str, route: Words) -> Plan | None:  # noqa: PLR0911 - as above
    last, owner, (_, variable) = route.last, _who(route), route.owner
    if method in _LOOKING or (method in _ASKING and not route.secret):
        return None
    theirs = route.of("user")
    if last in _EMAIL or route.ends("email", "verify") or route.ends("email", "confirm"):
        return Plan("user.email_verified", "user", theirs)
    if route.secret and last in _FOLLOWED and owner in _PEOPLE:
        return Plan(f"user.{_FOLLOWED[last]}", "user", route.variable or theirs)
    if method in _ASKING:
        return None
    if last in _EMAIL_CHANGED:
        return Plan("user.email_changed", "user", theirs)
    if last in _FORGOTTEN or route.ends("password", "forgot"):
        return Plan(_RESET_REQUESTED, "user")
    resets = last == "password_reset" or route.ends("password", "reset")
    if resets and method == "POST" and not (route.after or variable):
        # The form that asks for a mail; where the mail leads to has a token, or says `confirm`.
        return Plan(_RESET_REQUESTED, "user")
    followed = last == "reset" and route.secret and owner in _PEOPLE
    finished = tuple(route.fixed[-2:]) in _PASSWORD_PARTS or route.ends("password", "reset", "confirm")
    if resets or followed or finished or last in _PASSWORD:
        return Plan(PASSWORD_CHANGED, "user", theirs)
    return None


def _impersonation(method: str, route: Words) -> Plan | None:
    words, last = route.fixed, route.last
    if method in _LOOKING:
        return None
    stopped = "impersonate" in words[:-1] and last in ("end", "exit", "leave", "stop")
    if last in _END_IMPERSONATION or stopped or (last in _IMPERSONATE and method == "DELETE"):
        return Plan("user.impersonation_ended", "user")
    # Often a link: it is done under GET too.
    if last in _IMPERSONATE and not (last == "impersonation" and method == "GET"):
        return Plan(IMPERSONATED, "user", route.variable or route.of("user"))
    return None


def _rights(method: str, route: Words) -> Plan | None:
    """Who may what."""
    last, (owner, variable) = route.last, route.owner
    if method in _ASKING:
        return None
    which = variable or route.variable
    if last in _INVITE and method == "POST" and not route.after and owner in _PEOPLE | _GROUPS:
        subject = route.subject if owner in _GROUPS else ("", "")
        return Plan("user.invited", "user", variable if owner == "user" else "", *subject)
    if last in _GRANTED or last in _REVOKED:
        verb = "granted" if last in _GRANTED else "revoked"
        return Plan(f"admin.permission_{verb}", owner or "user", which)
    one_role = last == "role" and variable and not route.after and method != "DELETE"
    all_roles = last == "roles" and variable and not route.after and method in ("PUT", "PATCH")
    moved = last in ("demote", "promote") and owner in ("account", "member", "user")
    if last in _ROLE_CHANGED or moved or ((one_role or all_roles) and owner in _HOLD_ROLES):
        return Plan("admin.role_changed", owner or "user", which)
    held = last in _GRANTS and variable and (owner in _HOLD_ROLES or not last.startswith("role"))
    if held or (last in ("grant", "revoke") and owner in _GRANTED_TO):
        verb = "revoked" if last == "revoke" or method == "DELETE" else "granted"
        return Plan(f"admin.permission_{verb}", owner or "permission", variable)
    return None


def _keys(method: str, route: Words) -> Plan | None:
    """Credentials for programs, and sessions."""
    if method in _ASKING:
        return None
    words = [word.removesuffix("s") for word in route.fixed]
    last = words[-1]
    owner, variable = route.owner
    if last in _KEYS:
        past = "revoked" if method == "DELETE" else "created" if method == "POST" and not route.after else ""
        return Plan(f"api_key.{past}", "api_key", route.variable, *route.subject) if past else None
    if len(words) > 1 and words[-2] in _KEYS and last in _KEY_VERBS:
        return Plan(f"api_key.{_KEY_VERBS[last]}", "api_key", route.variable or variable)
    verb, _, thing = last.partition("_")
    if thing in _KEYS and verb in _KEY_VERBS:
        return Plan(f"api_key.{_KEY_VERBS[verb]}", "api_key", route.variable, *route.subject)
    if route.last == "sessions" and method == "DELETE" and owner in _PEOPLE:
        return Plan("session.revoked", "session", route.variable, *route.subject)
    return None


def _config(method: str, route: Words) -> Plan | None:
    """A change of how the application works, but not of how one person sees it."""
    words = route.fixed
    owner, variable = route.owner
    if method in _ASKING or not _OF_ONESELF.isdisjoint(words):
        return None
    if words[-1] in _CONFIG:
        return (
            None
            if owner in _PEOPLE - {""}
            else Plan("config.changed", "config", route.variable, *route.subject)
        )
    if len(words) < 2 or words[-2] not in _CONFIG or _PEOPLE - {""} & set(words):
        return None
    section = words[-1]
    if section in ("change", "edit", "save", "update"):
        return Plan("config.changed", "config", route.variable or variable)
    # Things that are kept among the settings, or something that is done with them.
    if section.endswith("s") or route.after or method == "DELETE" or section.partition("_")[0] in VERBS:
        return None
    return Plan("config.changed", "config")


def _data(method: str, route: Words) -> Plan | None:  # noqa: PLR0911 - as above
    """Files and exports, refunds."""
    words, last = route.fixed, route.last
    owner, variable = route.owner
    if method not in ("GET", "POST"):
        return None
    if last in _BULK or tuple(words[-2:]) in _BULK_PARTS:
        return Plan("data.bulk_exported", "data", "", *(route.subject if owner != "data" else ("", "")))
    if route.bulk and method == "GET" and not route.after and last not in VERBS:
        return Plan(f"{route.noun}.exported", route.noun, "", *route.subject)
    if len(words) > 1 and words[-2] == "export" and route.before[-1].fixed and last not in VERBS:
        return Plan(f"{route.noun}.exported", route.noun, route.variable)
    if method == "GET":
        if (route.variable in _FILE_VARIABLES and last in _FILES) or (
            last == "download" and route.after and not owner
        ):
            return Plan("file.downloaded", "file", route.variable, *route.subject)
        return None
    if last in _UPLOADS and not route.after and route.owner_implied and owner != "file":
        return Plan("file.uploaded", "file", "", *route.subject)
    if last in _UPLOADS and not route.after and owner in ("", "file"):
        return Plan("file.uploaded", "file", variable)
    if last == "refunds" and owner in _REFUNDED and variable:
        return Plan(f"{owner}.refunded", owner, variable)
    return None


def _hooks(method: str, route: Words) -> Plan | None:
    """What another service tells; not the hooks that users make."""
    words, last = route.fixed, route.last
    if method != "POST":
        return None
    hook = last in ("hook", "webhook") or (len(words) > 1 and words[-2] in ("hooks", "webhook", "webhooks"))
    named = last in ("hooks", "webhooks") and (route.secret or route.variable in _SENDERS)
    if named or (hook and last not in VERBS and not route.subject[1]):
        return Plan("webhook.received", "webhook")
    return None
