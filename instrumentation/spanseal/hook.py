"""What `opentelemetry-instrument` calls before it patches Flask (entry point `opentelemetry_pre_instrument`).

An exception here would end the instrumentation of everything, so none leaves it. Under gunicorn this runs in the
master: nothing is opened and no thread is started.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from .errors import ConfigurationError, NotAudited

logger = logging.getLogger("spanseal")


def pre_instrument() -> None:
    """Audit every Flask application of this process, and server spans, unless it is switched off by name."""
    if _switched_off():
        logger.warning("auditing is switched off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
        return
    try:
        from .runtime import current  # noqa: PLC0415 - an import that fails must not end all instrumentation
        from .settings import unknown  # noqa: PLC0415 - as above

        try:
            from . import flask_app  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name not in ("flask", "werkzeug"):
                raise
            logger.debug("Flask is not installed: other frameworks' requests are audited")
            flask_app = None  # type: ignore[assignment]
        # Read now, so that a wrong setting is named at the start and not at the first request.
        settings = current().settings
        for sentence in unknown():
            logger.warning("%s", sentence)
        with suppress(NotAudited):
            # Likewise. What becomes of requests is decided when they come.
            _ = current().rules
        if flask_app is not None:
            flask_app.instrument_all()
            _tell_policy()
        if settings.spans:
            from .spans.providers import instrument_global  # noqa: PLC0415 - as above

            instrument_global()
    except Exception as error:
        # A setting's error says what to do; anything else needs to be looked into.
        logger.critical(
            "Spanseal could not be set up: %s", error, exc_info=not isinstance(error, ConfigurationError)
        )
        _gate_if_told()
        _close_if_told()
        return
    logger.debug("auditing to %s, spool in %s", settings.export.shown, settings.spool_dir)


def _switched_off() -> bool:
    # By its name alone: `*` is said of tracing.
    names = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return "spanseal" in (name.strip() for name in names)


def _tell_policy() -> None:
    """Name a policy that cannot be read now, and not at the first request, which it refuses."""
    from .gate.errors import GateUnavailable  # noqa: PLC0415 - as above
    from .gate.setup import policy_of  # noqa: PLC0415 - as above
    from .runtime import current  # noqa: PLC0415 - as above

    try:
        policy_of(current())
    except GateUnavailable as error:
        what = "what is privileged by the seed is" if error.seed_only else "every request is"
        logger.critical("%s refused: %s", what, error)


def _gate_if_told() -> None:
    """What is privileged is gated, whatever could not be set up: so it is refused, as it cannot be recorded."""
    try:
        from .gate.setup import is_told  # noqa: PLC0415 - as above

        if not is_told():
            return
        from .flask_app import instrument_all  # noqa: PLC0415 - as above

        instrument_all()
        logger.critical("privileged actions are refused, since they cannot be recorded")
    except Exception:
        logger.exception("privileged actions could not be gated, so every request is refused")
        with suppress(Exception):
            from .flask_app import refuse_all  # noqa: PLC0415 - as above

            refuse_all()


def _close_if_told() -> None:
    try:
        from .flask_app import refuse_all  # noqa: PLC0415 - as above
        from .settings import refuses  # noqa: PLC0415

        if refuses():
            refuse_all()
    except ImportError as error:
        # Other frameworks' requests are seen by their spans, which cannot refuse anything.
        logger.critical("no request is refused: %s", error)
    except Exception:
        logger.exception("Spanseal could not even refuse requests")
