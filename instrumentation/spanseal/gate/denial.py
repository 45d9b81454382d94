"""The answer to whoever is not let through: for programs and for people."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from string import Template

import flask
from werkzeug.routing import BuildError

from .approval import Approval, State, iso
from .gate import Denied

__all__ = ["Denial", "approval_url", "wants_json"]

UNAVAILABLE = "gate unavailable"


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a view was not run."""

    status: int
    reason: str
    """For the record: a few fixed words. With `_` for spaces, it is the answer's `error`."""
    message: str
    approval: Approval | None = None

    @classmethod
    def of(cls, error: Denied) -> Denial:
        """Make it of what the gate says."""
        return cls(error.status, error.reason, error.message, error.approval)

    @classmethod
    def unavailable(cls) -> Denial:
        """Make one for what cannot be found out: its reason stands in the service's log."""
        return cls(
            503,
            UNAVAILABLE,
            "It cannot be found out now whether this is allowed, so it is not. Try again later.",
        )

    def response(self, request_id: str) -> flask.Response:
        """Make the answer, in the form that the client prefers."""
        approval = self.approval
        where = approval_url(approval) if approval is not None else ""
        headers = {"Cache-Control": "no-store", "Vary": "Accept, Cookie"}
        if where:
            headers["Location"] = where
        if self.status == 503:
            headers["Retry-After"] = "5"
        if wants_json():
            body: dict[str, object] = {
                "error": self.reason.replace(" ", "_"),
                "message": self.message,
                "request_id": request_id,
            }
            if approval is not None:
                body["approval"] = {
                    "id": approval.id,
                    "action": approval.action,
                    "state": str(approval.state),
                    "expires_at": iso(approval.expires_at),
                    **({"url": where} if where else {}),
                }
            return flask.Response(json.dumps(body) + "\n", self.status, headers, mimetype="application/json")
        headers |= {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
        }
        return flask.Response(self._page(request_id, where), self.status, headers, mimetype="text/html")

    def _page(self, request_id: str, where: str) -> str:
        # Not through the application's templates, whose context processors may fail, or show what is not to be seen.
        more = ""
        if self.approval is not None:
            shown = f"Approval <code>{html.escape(self.approval.id)}</code>"
            if where:
                shown = f'<a href="{html.escape(where)}">{shown}</a>'
            waits = self.approval.state is State.PENDING and self.reason in (
                "approval required",
                "approval expired",
            )
            what = "After it is granted, repeat what you did." if waits else ""
            more = f"<p>{shown}, {html.escape(str(self.approval.state))}. {what}</p>"
        return _template().substitute(
            reason=html.escape(self.reason),
            message=html.escape(self.message),
            more=more,
            request_id=html.escape(request_id),
        )


def wants_json() -> bool:
    """Say whether the current request's client prefers JSON; also where it takes anything."""
    return flask.request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html"


def approval_url(approval: Approval) -> str:
    """Return where an approval can be seen; empty where no blueprint shows them."""
    adapter = flask.globals.request_ctx.url_adapter
    endpoint = flask.current_app.extensions.get("spanseal_approvals", "")
    if not endpoint or adapter is None:
        return ""
    try:
        return str(adapter.build(f"{endpoint}.show", {"identifier": approval.id}))
    except BuildError:  # its prefix has variables, or its host is not this one's
        return ""


@lru_cache(maxsize=1)
def _template() -> Template:
    return Template(files(__package__).joinpath("templates/denied.html").read_text("utf-8"))
