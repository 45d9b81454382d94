"""Where people see and decide about approvals: a Flask blueprint, for browsers and for programs."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import flask
from flask.sessions import NullSession

from spanseal.actors.actor import Actor
from spanseal.request import AuditedRequest

from .approval import SECOND, Approval, Person, State, iso, same_person
from .denial import wants_json
from .errors import GateUnavailable, UnknownApproval
from .flask_gate import actor_now, audited_request, denying
from .gate import Denied, Gate
from .setup import gate_of

__all__ = ["approvals_blueprint"]

NAME = "spanseal_approvals"
_TOKEN = "_spanseal_approvals"  # noqa: S105 - where the session keeps it
_FIELD = "approvals_token"
_HEADER = "X-Approvals-Token"
_MOST = 200
_MOST_REASON = 1000


def approvals_blueprint(url_prefix: str = "/approvals") -> flask.Blueprint:
    """Make a blueprint that lists requests for approval and lets others decide about them.

    Answers are HTML or JSON, as the client's Accept header prefers.

    | route | |
    |---|---|
    | `GET /approvals/` | those that the actor may see; `?state=all` for those that are over too |
    | `GET /approvals/<id>` | one |
    | `POST /approvals/<id>/approve`, `…/deny` | with an optional `reason`, as a form or JSON |

    Args:
        url_prefix: Where it stands.
    """
    blueprint = flask.Blueprint(
        NAME, __name__, url_prefix=url_prefix, template_folder="templates", static_folder=None
    )

    @blueprint.record_once
    def registered(state: flask.blueprints.BlueprintSetupState) -> None:
        prefix = f"{state.name_prefix}." if state.name_prefix else ""
        state.app.extensions[NAME] = f"{prefix}{state.name}"

    @blueprint.get("/")
    def index() -> flask.typing.ResponseReturnValue:
        return _answer(_index)

    @blueprint.get("/<uuid:identifier>")
    def show(identifier: object) -> flask.typing.ResponseReturnValue:
        return _answer(lambda request, actor, gate: _show(request, actor, gate, str(identifier)))

    @blueprint.post("/<uuid:identifier>/approve")
    def approve(identifier: object) -> flask.typing.ResponseReturnValue:
        return _answer(
            lambda request, actor, gate: _decide(request, actor, gate, str(identifier), grant=True)
        )

    @blueprint.post("/<uuid:identifier>/deny")
    def deny(identifier: object) -> flask.typing.ResponseReturnValue:
        return _answer(
            lambda request, actor, gate: _decide(request, actor, gate, str(identifier), grant=False)
        )

    return blueprint


Answer = flask.typing.ResponseReturnValue
Step = Callable[[AuditedRequest, Actor, Gate], Answer]


def _answer(step: Step) -> Answer:
    """Run a step for somebody known; what is denied or goes wrong becomes an answer."""
    made: list[Answer] = []

    def run() -> None:
        request = audited_request()
        if request is None:
            raise GateUnavailable("this request is not audited, and who approves what must be")
        actor = actor_now(request)
        if actor is None or actor.type == "anonymous" or not actor.id.strip():
            raise Denied("actor unknown", "Sign in first: nobody unknown sees or decides this.")
        try:
            made.append(step(request, actor, gate_of(request.runtime)))
        except UnknownApproval as error:
            raise Denied("approval unknown", "There is no such approval.", status=404) from error

    denied = denying(run)
    response = flask.make_response(denied if denied is not None else made[0])
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # A form of another site sends `Origin: null` where this one's pages forbid referrers.
    response.headers["Referrer-Policy"] = "same-origin"
    response.vary.update(("Accept", "Cookie"))
    return response


def _index(request: AuditedRequest, actor: Actor, gate: Gate) -> Answer:
    everything = flask.request.args.get("state") == "all"
    states = tuple(State) if everything else (State.PENDING, State.GRANTED)
    found = gate.listed(actor, states, runtime=request.runtime, request=request, limit=_MOST)
    if wants_json():
        return {"approvals": [_described(one, actor, gate) for one in found], "token": _token()}
    return _page("list.html", approvals=found, actor=actor, gate=gate, everything=everything)


def _show(request: AuditedRequest, actor: Actor, gate: Gate, identifier: str) -> Answer:
    gate.listed(actor, (), runtime=request.runtime, request=request, limit=0)  # what is over by now
    approval = _visible(request, actor, gate, identifier)
    if wants_json():
        return {"approval": _described(approval, actor, gate), "token": _token()}
    return _page("show.html", approval=approval, actor=actor, gate=gate)


def _decide(request: AuditedRequest, actor: Actor, gate: Gate, identifier: str, *, grant: bool) -> Answer:
    data = flask.request.get_json(silent=True) if flask.request.is_json else flask.request.form
    given = data if isinstance(data, dict) else flask.request.form
    _check_origin(str(given.get(_FIELD, "")))
    _visible(request, actor, gate, identifier)
    approval = gate.decide(
        actor,
        identifier,
        grant=grant,
        reason=str(given.get("reason") or "")[:_MOST_REASON],
        session=flask.session._get_current_object(),  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way
        runtime=request.runtime,
        request=request,
    )
    if wants_json():
        return {"approval": _described(approval, actor, gate)}
    return flask.redirect(flask.url_for(".show", identifier=approval.id), 303)


def _visible(request: AuditedRequest, actor: Actor, gate: Gate, identifier: str) -> Approval:
    approval = gate.find(identifier, request.tenant)
    if not gate.sees(actor, approval):
        # Not whether there is such a one either.
        raise UnknownApproval(identifier)
    return approval


def _described(approval: Approval, actor: Actor, gate: Gate) -> dict[str, object]:
    times = {
        name: iso(value)
        for name in ("requested_at", "expires_at", "decided_at", "used_at")
        if (value := getattr(approval, name))
    }
    return {
        "id": approval.id,
        "state": str(approval.state),
        "action": approval.action,
        "resource": {"type": approval.resource.type, "id": approval.resource.id},
        "method": approval.method,
        "route": approval.route,
        "service": approval.service,
        "requester": {"id": approval.requester.id, "email": approval.requester.email},
        "approver": {"id": approval.approver.id, "email": approval.approver.email},
        "reason": approval.reason,
        "use_within": approval.use_within,
        **times,
        "may_decide": _open_to(approval, actor, gate),
    }


def _open_to(approval: Approval, actor: Actor, gate: Gate) -> bool:
    return (
        approval.state is State.PENDING
        and not same_person(Person.of(actor), approval.requester)
        and gate.may_decide(actor, approval)
    )


# --- pages -------------------------------------------------------------------------------------------------


def _page(name: str, *, actor: Actor, gate: Gate, **values: object) -> flask.Response:
    nonce = secrets.token_urlsafe(16)
    now = gate.clock()
    text = flask.render_template(
        f"{NAME}/{name}",
        actor=actor,
        nonce=nonce,
        token=_token(),
        field=_FIELD,
        iso=lambda at: iso(at)[:19].replace("T", " ") + " UTC",
        left=lambda at: _span((at - now) // SECOND),
        span=_span,
        open_to=lambda approval: _open_to(approval, actor, gate),
        **values,
    )
    response = flask.make_response(text)
    # Nobody is to click "approve" in a frame of another page.
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["X-Frame-Options"] = "DENY"
    return response


def _span(seconds: int) -> str:
    """Say a length of time in its largest unit."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{max(seconds, 0)} seconds"


# --- forged requests ---------------------------------------------------------------------------------------


def _has_session() -> bool:
    return not isinstance(flask.session._get_current_object(), NullSession)  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way


def _token() -> str:
    """Return the session's token for forms; empty where there are no sessions."""
    if not _has_session():
        return ""
    if _TOKEN not in flask.session:
        flask.session[_TOKEN] = secrets.token_urlsafe(32)
    return str(flask.session[_TOKEN])


def _check_origin(given: str) -> None:
    """See that a page of this site has sent this, or no browser at all.

    Raises:
        Denied: Another site's page may have.
    """
    headers = flask.request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site != "same-origin":
        raise Denied("cross-site request", "This was sent by another site's page.")
    if origin is not None and urlsplit(origin).netloc.lower() != flask.request.host.lower():
        raise Denied("cross-site request", "This was sent by another site's page.")
    # A program that brings its own credentials has no session. Whoever has one must have read a page of it.
    if _has_session() and (flask.session or site is not None or origin is not None):
        kept = str(flask.session.get(_TOKEN, ""))
        token = given or headers.get(_HEADER, "")
        if not kept or not hmac.compare_digest(kept.encode(), token.encode()):
            raise Denied(
                "form token missing", "Open the approval's page again: this form is not of your session."
            )
