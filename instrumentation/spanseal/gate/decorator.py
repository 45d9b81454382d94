"""`@spanseal.privileged`: the gate in front of one view, where its user is known only inside of other decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from spanseal.errors import ConfigurationError
from spanseal.meaning import marks

from .policy import duration

__all__ = ["privileged"]

_View = TypeVar("_View", bound=Callable[..., Any])


def privileged(
    action: str,
    *,
    confirm: str | None = None,
    approval: str | None = None,
    use_within: str | None = None,
    resource_type: str = "",
    resource_id: str = "",
    bind_body: bool | None = None,
) -> Callable[[_View], _View]:
    """Let a view run only for a known actor who has confirmed, and where it is asked for, with somebody's approval.

    It must stand beneath `route()`, and beneath decorators that find the user (`login_required`).

    Args:
        action: What the view does: `<resource>.<verb>`. The request's record says so too.
        confirm: How old the confirmation with a second factor may be, such as `15m`. What is not given here is as the
            rules file says for that action, or else as its default: `15m`, and an approval for `user.deleted` and
            `data.bulk_exported`.
        approval: How long a request for approval waits, such as `1h`.
        use_within: How long an approval can be used.
        resource_type: To what kind of thing; that of the action where empty.
        resource_id: The name of a variable of the route, or several in a template: `{order}/{line}`.
        bind_body: Whether an approval is for exactly this body of the request.

    Raises:
        InvalidRecord: The action or resource is none that a record can hold; at once, when the view is defined.
        ConfigurationError: A duration is none.
    """
    mark = marks.action(action, resource_type=resource_type, resource_id=resource_id)
    said: dict[str, object] = {} if bind_body is None else {"bind_body": bind_body}
    for name, text in (("confirm", confirm), ("approval", approval), ("use_within", use_within)):
        if text is not None:
            try:
                said[name] = duration(text)
            except ValueError as error:
                raise ConfigurationError(f"@privileged: {name} is {text!r}: {error}") from None

    def decorate(view: _View) -> _View:
        # Here, since the command `spanseal` shares this package and does not need Flask.
        from .flask_gate import MARK, Demand, stop_at_view  # noqa: PLC0415

        demand = Demand(action=action, stated=said)
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def guarded(*arguments: Any, **named: Any) -> Any:
                stop_at_view(demand)
                return await view(*arguments, **named)

        else:

            @functools.wraps(view)
            def guarded(*arguments: Any, **named: Any) -> Any:
                stop_at_view(demand)
                return view(*arguments, **named)

        setattr(guarded, MARK, True)
        return mark(cast("_View", guarded))

    return decorate
