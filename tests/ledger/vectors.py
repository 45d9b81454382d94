"""The format's test vectors, made by an independent program, as this package's types."""

import json
from pathlib import Path
from typing import Any

from spanseal_ledger.personal import commitment
from spanseal_ledger.record import Record

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("format-vectors.json").read_text("utf-8"))


def vector_record(vector: dict[str, Any]) -> Record:
    fields = dict(vector["record"])
    fields.pop("erased", None)
    given = fields.pop("personal_commitment", None)
    salt = bytes.fromhex(fields.pop("personal_salt"))
    known = (
        bytes.fromhex(given)
        if given
        else commitment(salt, fields["actor_email"], fields["actor_ip"], fields["personal"])
    )
    return Record(**fields, personal_salt=salt, personal_commitment=known)
