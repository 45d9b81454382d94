"""Every vector of format-vectors.json is reproduced."""

from itertools import pairwise
from typing import Any

import pytest

from spanseal_ledger.checkpoint import Checkpoint, origin, sign_checkpoint
from spanseal_ledger.note import SigningKey, VerificationKey, open_note
from spanseal_ledger.personal import pseudonym
from spanseal_ledger.record import canonical, check_limits, record_hash
from spanseal_ledger.tree import (
    consistency_proof,
    inclusion_proof,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tests.ledger.vectors import VECTORS, vector_record

RECORDS = VECTORS["records"]
ENTRIES = [bytes.fromhex(vector["hash"]) for vector in RECORDS]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
KEY = SigningKey.from_seed(VECTORS["key_name"], bytes.fromhex(VECTORS["signing_seed"]))


@pytest.mark.parametrize("vector", RECORDS, ids=lambda v: v["record"]["action"])
def test_record(vector: dict[str, Any]) -> None:
    record = vector_record(vector)
    assert record.personal_commitment.hex() == vector["personal_commitment"]
    raw = canonical(record)
    assert raw.hex() == vector["canonical"]
    assert record_hash(raw, bytes.fromhex(vector["prev_hash"])).hex() == vector["hash"]
    check_limits(record)


def test_records_are_linked() -> None:
    assert RECORDS[0]["prev_hash"] == "00" * 32
    for before, after in pairwise(RECORDS):
        assert after["prev_hash"] == before["hash"]


def test_pseudonym() -> None:
    vector = VECTORS["pseudonym"]
    assert pseudonym(bytes.fromhex(vector["key"]), vector["value"]) == vector["column"]


def test_keys() -> None:
    assert str(KEY.vkey) == VECTORS["vkey"]
    assert VerificationKey.parse(VECTORS["vkey"]) == KEY.vkey
    assert str(VerificationKey.parse(VECTORS["next_vkey"])) == VECTORS["next_vkey"]


def test_roots() -> None:
    for size, root in enumerate(ROOTS):
        assert tree_root(ENTRIES[:size]) == root


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']}-of-{v['size']}")
def test_inclusion(vector: dict[str, Any]) -> None:
    index, size = vector["index"], vector["size"]
    path = inclusion_proof(ENTRIES, index, size)
    assert [node.hex() for node in path] == vector["path"]
    verify_inclusion(ENTRIES[index], index, size, path, ROOTS[size])


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old']}-to-{v['size']}")
def test_consistency(vector: dict[str, Any]) -> None:
    old, size = vector["old"], vector["size"]
    path = consistency_proof(ENTRIES, old, size)
    assert [node.hex() for node in path] == vector["path"]
    verify_consistency(old, ROOTS[old], size, ROOTS[size], path)


@pytest.mark.parametrize("note", VECTORS["checkpoints"], ids=lambda note: note.split("\n")[1])
def test_checkpoint(note: str) -> None:
    text, signers = open_note(note, [KEY.vkey])
    assert signers == [KEY.vkey]
    checkpoint = Checkpoint.parse(text)
    chain_id = RECORDS[0]["record"]["chain_id"]
    assert checkpoint.origin == VECTORS["origin"] == origin(VECTORS["log_name"], chain_id)
    assert (checkpoint.chain_id, checkpoint.log_name) == (chain_id, VECTORS["log_name"])
    assert checkpoint.root == ROOTS[checkpoint.size]
    assert sign_checkpoint(KEY, VECTORS["log_name"], chain_id, checkpoint.size, checkpoint.root) == note
