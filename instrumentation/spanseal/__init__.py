"""Audit records from the requests of a Flask application, without a change of its code.

With this package installed, `opentelemetry-instrument gunicorn app:app` is all. The names below are for what
HTTP does not show, and for applications that are instrumented by hand.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .__about__ import __version__

if TYPE_CHECKING:
    from .actors.actor import Actor
    from .api.decorator import audited
    from .api.differences import changes, changes_of
    from .api.records import annotate, record
    from .api.units import request_id
    from .api.work import actor, set_actor
    from .errors import ConfigurationError, InvalidRecord, NotAudited, SpansealError
    from .flask_app import instrument_app
    from .gate.blueprint import approvals_blueprint
    from .gate.decorator import privileged
    from .meaning.marks import action
    from .spans.providers import instrument_provider

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
    "Actor": "actors.actor",
    "ConfigurationError": "errors",
    "InvalidRecord": "errors",
    "NotAudited": "errors",
    "SpansealError": "errors",
    "action": "meaning.marks",
    "actor": "api.work",
    "annotate": "api.records",
    "approvals_blueprint": "gate.blueprint",
    "audited": "api.decorator",
    "changes": "api.differences",
    "changes_of": "api.differences",
    "instrument_app": "flask_app",
    "instrument_provider": "spans.providers",
    "privileged": "gate.decorator",
    "record": "api.records",
    "request_id": "api.units",
    "set_actor": "api.work",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command `spanseal` shares this package and needs neither Flask nor OpenTelemetry.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
