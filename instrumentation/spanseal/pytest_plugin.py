"""A fixture for pytest; installed with the package, so that there is nothing to import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import Records

__all__ = ["audit_records"]


@pytest.fixture
def audit_records(request: pytest.FixtureRequest) -> Iterator[Records]:
    """Capture the audit records of a test; see `spanseal.testing.capture_audit`.

    Where the test has a fixture `app` that is a Flask application, that one is audited.
    """
    # Loaded by every run of pytest where this package is installed: it costs those nothing that do not use it.
    from .testing import capture_audit  # noqa: PLC0415

    app = request.getfixturevalue("app") if "app" in request.fixturenames else None
    with capture_audit(app if _is_flask(app) else None) as records:
        yield records


def _is_flask(app: object) -> bool:
    return any(f"{kind.__module__}.{kind.__qualname__}" == "flask.app.Flask" for kind in type(app).__mro__)
