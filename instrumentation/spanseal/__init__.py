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
    from .api import record, request_id, set_actor
    from .errors import ConfigurationError, InvalidRecord, NotAudited, SpansealError
    from .flask_app import instrument_app
    from .providers import instrument_provider

__all__ = [
    "Actor",
    "ConfigurationError",
    "InvalidRecord",
    "NotAudited",
    "SpansealError",
    "__version__",
    "instrument_app",
    "instrument_provider",
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
    "instrument_app": "flask_app",
    "instrument_provider": "providers",
    "record": "api",
    "request_id": "api",
    "set_actor": "api",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command `spanseal` shares this package and needs neither Flask nor OpenTelemetry.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
