from __future__ import annotations

import json
from hashlib import sha256

from spanseal_collector.heartbeat import Heartbeat
from spanseal_collector.sealer import Sealer
from spanseal_ledger.note import SigningKey
from spanseal_ledger.record import check_limits


def sealer_with(counts: dict[str, int]) -> Sealer:
    sealer = Sealer(SigningKey.from_seed("audit.example.org/c", bytes(32)), "audit.example.org", "c")
    sealer.counts |= counts
    return sealer


def named(heartbeat: Heartbeat, sealer: Sealer) -> dict[str, int]:
    found: dict[str, int] = {}
    for draft in heartbeat.drafts(sealer, 0, {}):
        check_limits(draft.record)
        part = json.loads(draft.record.metadata["audit.heartbeat.tenants"])
        assert not found.keys() & part.keys()
        found |= part
    return found


def test_it_says_what_changed_since_the_last_one_that_was_stored() -> None:
    heartbeat = Heartbeat(3600)
    sealer = sealer_with({"acme": 3, "default": 5, "_collector": 7})
    assert named(heartbeat, sealer) == {"acme": 3, "default": 5}
    sealer.counts["acme"] = 4
    assert named(heartbeat, sealer) == {"acme": 4, "default": 5}, "the first was not stored"
    sealer.counts["late"] = 1
    heartbeat.sealed()
    assert named(heartbeat, sealer) == {"late": 1}, "it came after the last one was made"
    heartbeat.new_chain()
    assert named(heartbeat, sealer_with({"acme": 4})) == {"acme": 4}


def test_any_number_of_tenants_with_any_names_fits() -> None:
    counts = {f"tenant-{n}": n for n in range(20_000)} | {"\x00" * 255 + str(n): n for n in range(5)}
    endless = "x" * 60_000
    found = named(Heartbeat(3600), sealer_with(counts | {endless: 1}))
    digest = sha256(endless.encode()).hexdigest()
    expected = {
        k if len(k) <= 255 else f"sha256:{sha256(k.encode()).hexdigest()}": v for k, v in counts.items()
    }
    assert found == expected | {f"sha256:{digest}": 1}
