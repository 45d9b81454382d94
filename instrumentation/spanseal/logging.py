"""The current request's id in an application's own log."""

from __future__ import annotations

import logging

from .api.units import request_id

__all__ = ["RequestIdFilter"]


class RequestIdFilter(logging.Filter):
    """Gives each log record the attribute `request_id`, for formats with `%(request_id)s`. Lets every record pass.

    It belongs on handlers: those see what all loggers say. What an application gave as `extra={"request_id": ...}`
    stays.
    """

    def __init__(self, default: str = "-") -> None:
        """Make a filter.

        Args:
            default: What stands there outside of requests and jobs.
        """
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete a log record."""
        if not hasattr(record, "request_id"):
            record.request_id = request_id() or self._default
        return True
