"""What a rules file says, from requests to real servers to what is stored and asked in SQL."""

from __future__ import annotations

from pathlib import Path

import requests

from examples.clinic.clinic.seed import DEMO_PASSWORD
from tests.end_to_end.system import System

RULES = Path(__file__).parents[2] / "examples" / "clinic" / "rules.yaml"


def test_what_rules_say_is_stored(tmp_path: Path) -> None:
    with System(tmp_path, env={"SPANSEAL_RULES": str(RULES)}) as system:
        url = system.clinic.url
        client = requests.Session()
        client.headers["Accept"] = "application/json"
        client.post(f"{url}/login", json={"username": "a.osei", "password": "wrong"}, timeout=30)
        client.post(f"{url}/login", json={"username": "a.osei", "password": DEMO_PASSWORD}, timeout=30)
        note = client.post(f"{url}/patients/3/notes", json={"text": "well"}, timeout=30)
        assert note.status_code == 201
        answers = [client.get(f"{url}{path}", timeout=30) for path in ("/patients/3", "/healthz", "/nothing")]
        assert [answer.status_code for answer in answers] == [200, 200, 404]
        system.stop()
        stored = system.rows(
            "SELECT action, outcome, failure_reason, resource_type, resource_id, metadata['audit.data_classes'], "
            "metadata['audit.retention_class'], metadata['audit.subject.id'] "
            "FROM audit.events WHERE request_id != '' ORDER BY event_time"
        )
        assert stored == [
            (
                "user.signed_in",
                "failure",
                "unknown user name, wrong password or suspended",
                "user",
                "",
                "",
                "",
                "",
            ),
            ("user.signed_in", "success", "", "user", stored[1][4], "", "", ""),
            ("note.created", "success", "", "note", str(note.json()["id"]), "phi,pii", "hipaa", "3"),
            ("patient_record.viewed", "success", "", "patient", "3", "phi,pii", "hipaa", ""),
            ("request.unmatched", "failure", "Not Found", "", "", "", "", ""),
        ]
        assert stored[1][4] != ""
        assert system.rows("SELECT count() FROM audit.quarantine") == [(0,)]
