"""Where the gate stands in Flask: between the `before_request` functions, which find the user, and the view.

`before_view` is called by the patched `Flask.preprocess_request`, whose answer takes the view's place. A view under
`@spanseal.privileged` has its gate where the decorator stands: it calls `stop_at_view`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flask

from spanseal.actors.actor import ANONYMOUS, Actor
from spanseal.actors.sources import Evidence, resolve
from spanseal.actors.users import from_value
from spanseal.api.annotation import Annotation
from spanseal.errors import ConfigurationError
from spanseal.meaning import marks
from spanseal.request import AuditedRequest
from spanseal.runtime import Runtime, current
from spanseal.throttle import Throttle
from spanseal.wsgi import ENVIRON_KEY

from .approval import Attempt, Resource
from .denial import Denial
from .errors import GateUnavailable
from .gate import Denied, Passed
from .policy import SEED, Policy, Requirement, default_requirement, stated
from .setup import gate_of, is_open, policy_of

__all__ = ["MARK", "Demand", "actor_now", "audited_request", "before_view", "denying", "stop_at_view"]

logger = logging.getLogger("spanseal")

MARK = "__spanseal_privileged__"
"""Of a view whose gate stands where its decorator does; copied outwards by `functools.wraps`."""
_PASSED = "spanseal.privileged.passed"
"""What the current request has shown already, in its environ: an approval is used once, however many gates there are."""
_MOST_BODY = 1 << 20
_STATUSES = (0, 200, 201, 204, 302)
"""For which the rules are asked: what a request means may depend on how it ends, which is not known yet."""

_throttle = Throttle()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a decorator says."""

    action: str
    stated: Mapping[str, object]
    """What of the requirement it says itself; the rest is the policy's."""


def before_view() -> flask.Response | None:
    """Decide about the current request.

    Returns:
        The answer that takes the view's place, or None where the view may run.
    """
    if is_open(current()):
        return None
    context = flask.globals.request_ctx
    rule = context.request.url_rule
    if rule is None or context.request.routing_exception is not None or context.request.method == "OPTIONS":
        return None
    if getattr(context.app.view_functions.get(rule.endpoint), MARK, False):
        return None
    return denying(lambda: _check(None))


def stop_at_view(demand: Demand) -> None:
    """Decide where a decorator stands.

    Raises:
        HTTPException: The view must not run; it holds the answer, which no error handler of the application changes.
    """
    # Also for OPTIONS: Flask answers it by itself, unless the view names it, which is about to run then.
    answer = denying(lambda: _check(demand))
    if answer is not None:
        flask.abort(answer)


def denying(step: Callable[[], object]) -> flask.Response | None:
    """Run a step, and make an answer of what it is denied for; whatever goes wrong in it denies."""
    try:
        step()
    except Denied as error:
        denial = Denial.of(error)
    except Exception as error:
        if _throttle.due(f"{type(error).__name__} {error}"):
            known = isinstance(error, GateUnavailable | ConfigurationError)
            logger.critical(
                "a privileged action is refused, since it cannot be found out whether it is allowed: %s",
                str(error) or type(error).__name__,
                exc_info=None if known else error,
            )
        denial = Denial.unavailable()
    else:
        return None
    request = audited_request()
    if request is not None:
        said = request.said
        said.outcome, said.failure_reason = "failure", denial.reason
        if denial.approval is not None:
            # Not changed in place: another thread may be reading it.
            said.attributes = {**said.attributes, "approval_id": denial.approval.id}
        request.changed()
    return denial.response(request.request_id if request is not None else "")


# --- what is asked for -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Gated:
    action: str
    resource: Resource
    requirement: Requirement


def _check(demand: Demand | None) -> None:
    request = audited_request()
    runtime = request.runtime if request is not None else current()
    unknown: GateUnavailable | None = None
    try:
        policy = policy_of(runtime)
    except GateUnavailable as error:
        if not error.seed_only:
            raise
        policy, unknown = Policy(actions=SEED), error
    if policy is None and demand is None:
        return
    rule = flask.request.url_rule
    route = rule.rule if rule is not None else ""
    values = request.view_args if request is not None else {}
    wanted = _demands(policy or Policy(), demand, runtime, request, route, values)
    if wanted and unknown is not None:
        raise unknown
    if not wanted:
        return
    if request is None or request.route != route:
        raise GateUnavailable(f"this request to {route} is not audited, and what is privileged must be")
    if request.skipped:
        # A rule leaves such requests out; what is privileged is recorded.
        request.skipped = ""
        request.begin()
    for gated in wanted:
        _pass(gated, request, route, values)


def _demands(
    policy: Policy,
    demand: Demand | None,
    runtime: Runtime,
    request: AuditedRequest | None,
    route: str,
    values: Mapping[str, str],
) -> list[_Gated]:
    """What this request would do that is privileged: usually nothing, or one thing."""
    method = "GET" if flask.request.method == "HEAD" else flask.request.method
    found: dict[str, _Gated] = {}
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    mark = marks.of(view, method)
    said = request.said if request is not None else Annotation()
    for status in _STATUSES if policy.actions or demand is not None else ():
        ruled = runtime.rules.meaning(method, route, values, status)
        marked = mark.over(ruled, values) if mark is not None else ruled
        resource = Resource(
            said.resource_type or marked.resource_type, said.resource_id or marked.resource_id
        )
        if demand is not None and demand.action not in found:
            requirement = stated(default_requirement(demand.action, policy), **demand.stated)
            found[demand.action] = _Gated(demand.action, resource, requirement)
        candidates = [(said.action or marked.action, resource)]
        if not runtime.rules.resolved(method, route, status).sources["action"].startswith("default"):
            # Whoever wrote the rule has not asked the view what it calls itself.
            candidates.append((ruled.action, Resource(ruled.resource_type, ruled.resource_id)))
        for action, whole in candidates:
            if action in policy.actions and action not in found:
                found[action] = _Gated(action, whole, policy.actions[action])
    return list(found.values())


def _pass(gated: _Gated, request: AuditedRequest, route: str, values: Mapping[str, str]) -> None:
    asked = flask.request
    runtime = request.runtime
    passed: dict[tuple[object, ...], Passed] = asked.environ.setdefault(_PASSED, {})
    key = (gated.action, gated.resource, gated.requirement)
    if key in passed:
        return
    shown = gate_of(runtime).check(
        actor_now(request),
        Attempt(
            action=gated.action,
            resource=gated.resource,
            method=asked.method,
            route=route,
            host=asked.host.lower(),
            path=asked.root_path + asked.path,
            values=tuple(sorted(values.items())),
            query=asked.query_string,
            body=_body() if gated.requirement.bind_body else None,
            tenant=request.tenant,
            service=str(runtime.settings.resource.get("service.name", "")),
        ),
        gated.requirement,
        session=flask.session._get_current_object(),  # type: ignore[attr-defined]  # noqa: SLF001 - a proxy's own way
        runtime=runtime,
        request=request,
        may_claim=asked.method != "HEAD",
    )
    passed[key] = shown
    request.said.attributes = {**request.said.attributes, **shown.attributes}
    request.changed()


def _body() -> bytes:
    """Read the request's body; the view finds it as if it had not been read."""
    length = flask.request.content_length
    if length is None:
        if "chunked" in flask.request.headers.get("Transfer-Encoding", "").lower():
            raise Denied("body without length", "This needs an approval of its body: send Content-Length.")
        return b""
    if length > _MOST_BODY:
        raise Denied("body too large", f"An approval can be for a body of up to {_MOST_BODY >> 20} MiB.")
    body = flask.request.get_data(cache=True, parse_form_data=False)
    if len(body) != length:
        # Of a form that was parsed before nothing is left to be seen here: any other form would do as well.
        raise GateUnavailable(
            "an approval is for the request's body, but a before_request function or a middleware has read that: "
            "it must leave the body alone, or read it with request.get_data() first"
        )
    return body


# --- who asks ----------------------------------------------------------------------------------------------


def audited_request() -> AuditedRequest | None:
    """Return the current request as the audit knows it; None where it is not audited."""
    found = flask.request.environ.get(ENVIRON_KEY)
    return found if isinstance(found, AuditedRequest) and not found.ended else None


def actor_now(request: AuditedRequest) -> Actor | None:
    """Find who acts at this moment; stricter than the audit, which records whom it has seen last.

    Flask-Login's user is loaded where the application has not done so. A configured resolver that fails leaves it to
    nobody else.

    Raises:
        Exception: Whatever the resolver or Flask-Login raise.
    """
    if request.explicit_actor is not None:
        return request.explicit_actor
    runtime = request.runtime
    if (resolver := runtime.resolver) is not None:
        value: Any = resolver()
        actor = from_value(getattr(value, "_get_current_object", lambda: value)())
        if actor is not None:
            return actor
    _load_login_user()
    context = flask.globals.request_ctx
    settings = runtime.settings
    evidence = Evidence(
        g=flask.g._get_current_object(),  # noqa: SLF001 - a proxy's own way
        session=context.session,
        environ=context.request.environ,
        config=context.app.config,
        peer=request.peer,
        header=settings.proxy_header,
    )
    found = resolve(None, settings.actor_sources, evidence)
    if found is None or found.actor == ANONYMOUS:
        return None
    request.recognise(found)
    return found.actor


def _load_login_user() -> None:
    """Flask-Login loads its user when somebody asks for it, and its decorators do so inside the view."""
    login = sys.modules.get("flask_login")
    if login is not None and hasattr(flask.current_app, "login_manager"):
        login.utils._get_user()  # noqa: SLF001 - what `current_user` calls
