"""The code in docs/api.md is right: it runs, it does what the page says, and it has the types that it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import spanseal
from spanseal import testing
from spanseal.testing import Records, capture_audit

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
CODE = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the page's code, in its order; gives the module that it makes."""
    made: Any = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", made)
    exec(compile(CODE, "docs/api.md", "exec"), vars(made))  # noqa: S102 - our own page
    return made


def changes(records: Records) -> dict[str, Any]:
    (record,) = records
    return {key: value for key, value in record.attributes.items() if key.startswith("change.")}


def test_the_page_says_what_happens(page: Any) -> None:
    client = page.app.test_client()
    with capture_audit(page.app) as updated:
        client.put("/invoices/4711")
    assert changes(updated) == {
        "change.fields": "iban,status",
        "change.status.before": "open",
        "change.status.after": "paid",
        "change.iban.before": "[redacted]",
        "change.iban.after": "[redacted]",
    }
    with capture_audit(page.app) as imported:
        identifier = client.post("/import").text
    assert [one.resource_id for one in imported[:2]] == ["1", "2"]
    assert {one.request_id for one in imported} == {identifier}
    with capture_audit(page.app) as hooked:
        client.post("/hook")
    assert [one.actor.id for one in hooked] == ["importer", "payments"]
    with capture_audit() as job:
        identifier = page.nightly()
        with pytest.raises(ValueError, match="nothing to send"):
            page.send(page.Invoice(5), "mail", "")
        list(page.export())
    assert job.actions == ["report.made", "invoice.sent", "invoice.sent", "invoice.exported"]
    assert [one.request_id for one in job] == [identifier, identifier, "", ""]
    sent, failed = job[1:3]
    assert (sent.actor.id, sent.resource_id, sent.attributes["channel"]) == ("nightly", "4711", "mail")
    assert (failed.outcome, failed.failure_reason) == ("failure", "ValueError")
    with capture_audit(page.app) as records:
        page.test_import(records)


def test_every_name_of_the_package_is_on_the_page() -> None:
    missing = [
        name
        for name in (*spanseal.__all__, *testing.__all__)
        if not re.search(rf"\b{re.escape(name)}\b", PAGE)
    ]
    # Setting up is the README's subject, and privileged actions have a page of their own.
    elsewhere = {"__version__", "approvals_blueprint", "instrument_app", "instrument_provider", "privileged"}
    assert set(missing) <= elsewhere | {"Record", "Records"}


def test_every_link_within_the_page_leads_to_a_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert links
    assert [link for link in links if link not in headings] == []


def test_the_page_has_the_right_types(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", tmp_path / "page.py"],
        cwd=ROOT,
        env={**os.environ, "MYPY_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
