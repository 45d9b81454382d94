"""What an application says through the Python API, as the log holds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from examples.demo.processes import Collector, run_spanseal
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory
from spanseal_storage.rows import query

_PROGRAM = """
import flask
import spanseal

app = flask.Flask("billing")
app.secret_key = "a made-up key"
spanseal.instrument_app(app)
changed = spanseal.changes(
    {"status": "open", "amount": 5, "token": "planted-old", "note": None, "gone": 1},
    {"status": "paid", "amount": 7.5, "token": "planted-new", "note": ["a"], "made": True},
    fields=["status", "amount", "token", "note", "gone", "made"],
)

@app.put("/invoices/<iid>")
@spanseal.action("invoice.paid", attributes={"by": "mark"})
def pay(iid):
    spanseal.annotate(changes=changed, attributes={"audit.severity": "high"})
    spanseal.record("invoice.checked", resource_id=iid, changes=changed)
    export(iid)
    rows = stream()
    next(rows)
    rows.close()
    return spanseal.request_id()

@spanseal.audited("invoice.exported", resource_id="iid", attributes=["iid"], changes=spanseal.changes_of(
    lambda iid: {"exported": bool(exported)}, fields=["exported"]))
def export(iid):
    exported.append(iid)

@spanseal.audited("row.exported")
def stream():
    yield 1

exported = []
client = app.test_client()
print(client.put("/invoices/8", headers={"baggage": "spanseal.request_id=planted-parent"}, buffered=True).text)
with spanseal.actor("cron", type="system"):
    spanseal.record("job.run")
    print(spanseal.request_id())
"""


def test_everything_is_admitted_and_becomes_metadata(tmp_path: Path) -> None:
    data = tmp_path / "log"
    collector = Collector(data, tmp_path / "collector.txt")
    with collector:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={
                **os.environ,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_SERVICE_NAME": "billing",
                "SPANSEAL_SPOOL_DIR": str(tmp_path / "spool"),
                "SPANSEAL_SHUTDOWN_TIMEOUT": "30",
                "SPANSEAL_BAGGAGE": "true",
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    request, job = done.stdout.split()
    with open_reader(DataDirectory(data), "test") as client:
        assert query(client, "SELECT reason FROM audit.quarantine", {}) == []
        rows = query(
            client,
            "SELECT action, request_id, outcome, actor_id, resource_id, metadata, metadata_types FROM audit.records "
            "WHERE tenant = 'default' AND NOT startsWith(action, 'producer.') ORDER BY seq",
            {},
        )
    found = {row[0]: row[1:] for row in rows}
    assert {action: row[0] for action, row in found.items()} == {
        "invoice.paid": request,
        "invoice.checked": request,
        "invoice.exported": request,
        "row.exported": request,
        "job.run": job,
    }
    assert found["job.run"][2] == "cron"
    changed = {
        "change.fields": "amount,gone,made,note,status,token",
        "change.amount.after": "7.5",
        "change.amount.before": "5",
        "change.gone.before": "1",
        "change.made.after": "true",
        "change.note.after": '["a"]',
        "change.note.before": "",
        "change.status.after": "paid",
        "change.status.before": "open",
        "change.token.after": "[redacted]",
        "change.token.before": "[redacted]",
    }
    for action in ("invoice.paid", "invoice.checked"):
        metadata, types = found[action][4:]
        assert {key: value for key, value in metadata.items() if key.startswith("change.")} == changed
        letters = dict(zip(sorted(metadata), types, strict=True))
        assert [letters[f"change.{name}"] for name in ("amount.after", "amount.before", "made.after")] == [
            "d",
            "i",
            "b",
        ]
    paid = found["invoice.paid"][4]
    assert (paid["by"], paid["audit.severity"], paid["spanseal.parent.request_id"]) == (
        "mark",
        "high",
        "planted-parent",
    )
    _, outcome, _, resource, metadata, _ = found["invoice.exported"]
    assert (outcome, resource, metadata["iid"]) == ("success", "8", "8")
    assert metadata["audit.capture"] == "call"
    assert (metadata["change.exported.before"], metadata["change.exported.after"]) == ("false", "true")
    assert found["row.exported"][1] == "unknown"
    assert found["row.exported"][4]["spanseal.call.incomplete"] == "true"
    assert not any("planted-old" in str(row) or "planted-new" in str(row) for row in rows)
    verified = run_spanseal("verify", "--data", str(data), "--json")
    assert (verified.returncode, json.loads(verified.stdout)["findings"]) == (0, [])
