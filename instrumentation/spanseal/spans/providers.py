"""Where server spans come from: the SDK's tracer providers are given a span processor and another sampler."""

from __future__ import annotations

import functools
import logging
import os
import threading
from importlib.util import find_spec
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from spanseal.errors import ConfigurationError

from . import django_requests
from .processor import auditor
from .sampling import RecordServerSpans

__all__ = ["instrument_global", "instrument_provider"]

logger = logging.getLogger("spanseal")

_FRAMEWORKS = ("django", "falcon", "fastapi", "pyramid", "starlette", "tornado")
"""Names that are looked for to know whether somebody may miss something."""

_lock = threading.Lock()
_said = False
_watched = False


def instrument_provider(provider: TracerProvider) -> None:
    """Audit the server spans of a tracer provider, unless `SPANSEAL_SPANS` is `false`. Twice is once.

    What `opentelemetry-instrument` sets up, and what becomes the global provider after that, needs no such call. Call
    this for one that is passed by hand (`FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)`), before
    the first request.

    Args:
        provider: One of the SDK's.

    Raises:
        ConfigurationError: It is none of the SDK's.
    """
    if not isinstance(provider, TracerProvider):
        raise ConfigurationError(
            f"server spans of a {type(provider).__module__}.{type(provider).__qualname__} cannot be audited: "
            "give a TracerProvider of opentelemetry.sdk.trace"
        )
    follower = auditor()
    django_requests.install(follower.of_span)
    with _lock:
        if isinstance(provider.sampler, RecordServerSpans):
            return
        sampler = RecordServerSpans(provider.sampler, follower.wanted, follower.inside)
        provider.sampler = sampler
        # Tracers that were made before keep the sampler that they were made with.
        for tracer in list(getattr(provider, "_tracers", {}).values()):
            tracer.sampler = sampler
        provider.add_span_processor(follower)


def instrument_global() -> None:
    """Audit the server spans of the global tracer provider, also of one that is set later. Twice is once."""
    global _watched  # noqa: PLW0603 - one for each process
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _say_once("OTEL_SDK_DISABLED is true")
        return
    if not _watched:
        _watched = True
        trace.set_tracer_provider = _followed(trace.set_tracer_provider)
    _instrument_present()


def _instrument_present() -> None:
    provider: Any = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        instrument_provider(provider)
    elif not isinstance(provider, trace.ProxyTracerProvider):
        _say_once(f"the tracer provider is {type(provider).__module__}.{type(provider).__qualname__}")


def _followed(original: Any) -> Any:
    @functools.wraps(original)
    def set_tracer_provider(tracer_provider: trace.TracerProvider) -> None:
        original(tracer_provider)
        try:
            _instrument_present()
        except Exception:
            logger.exception("the server spans of the application's tracer provider cannot be audited")

    return set_tracer_provider


def _say_once(reason: str) -> None:
    global _said  # noqa: PLW0603 - one for each process
    if _said:
        return
    _said = True
    present = [name for name in _FRAMEWORKS if find_spec(name) is not None]
    logger.log(
        logging.WARNING if present else logging.DEBUG,
        "requests of other frameworks than Flask are not audited: %s, and they are known by their spans only",
        reason,
    )
