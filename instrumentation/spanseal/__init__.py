"""Audit records from the requests of a Flask application, without a change of its code."""

from __future__ import annotations

from .__about__ import __version__

__all__ = ["__version__"]
