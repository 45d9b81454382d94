"""Audit records from the requests of a Flask application, without a change of its code.

With this package installed, `opentelemetry-instrument gunicorn app:app` is all. The names below are for what
HTTP does not show, and for applications that are instrumented by hand.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .__about__ import __version__

if TYPE_CHECKING:
    from .actor import Actor
    from .decorator import audited
    from .differences import changes, changes_of
    from .errors import ConfigurationError, InvalidRecord, NotAudited, SpansealError
    from .flask_app import instrument_app
    from .marks import action
    from .privileged.blueprint import approvals_blueprint
    from .privileged.decorator import privileged
    from .providers import instrument_provider
    from .records import annotate, record
    from .units import request_id
    from .work import actor, set_actor

__all__ = [
    "Actor",
    "ConfigurationError",
    "InvalidRecord",
    "NotAudited",
    "SpansealError",
    "__version__",
    "action",
    "actor",
    "annotate",
    "approvals_blueprint",
    "audited",
    "changes",
    "changes_of",
    "instrument_app",
    "instrument_provider",
    "privileged",
    "record",
    "request_id",
    "set_actor",
]

_HOMES = {
    "Actor": "actor",
    "ConfigurationError": "errors",
    "InvalidRecord": "errors",
    "NotAudited": "errors",
    "SpansealError": "errors",
    "action": "marks",
    "actor": "work",
    "annotate": "records",
    "approvals_blueprint": "privileged.blueprint",
    "audited": "decorator",
    "changes": "differences",
    "changes_of": "differences",
    "instrument_app": "flask_app",
    "instrument_provider": "providers",
    "privileged": "privileged.decorator",
    "record": "records",
    "request_id": "units",
    "set_actor": "work",
}

# `spanseal.actor` is a name of the table above. Loading the module of that name would put the module in its place:
# so that happens now, and is undone.
importlib.import_module(".actor", __name__)
globals().pop("actor", None)


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command `spanseal` shares this package and needs neither Flask nor OpenTelemetry.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
