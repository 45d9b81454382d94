"""docs/format.md: every example is recomputed from its text, and nothing that the code names is left out of it."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import spanseal_ledger.verifier
from spanseal_collector.admission import PUBLISHED_AUDIT_KEYS
from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.checkpoint_log import encode, parse_log
from spanseal_ledger.metadata import KvList, Value, typed_text
from spanseal_ledger.note import SigningKey, VerificationKey, open_note
from spanseal_ledger.personal import commitment, pseudonym
from spanseal_ledger.proof import encode_proof, verify_proof
from spanseal_ledger.record import (
    FIELDS,
    Record,
    canonical,
    check_limits,
    encode_map,
    encode_text,
    record_hash,
)
from spanseal_ledger.tree import consistency_proof, inclusion_proof, leaf_hash, node_hash, tree_root
from spanseal_ledger.verifier import ENDING_ACTIONS, LogVerifier, StoredRow, StreamFacts, TrustedKeys
from spanseal_storage.schema import COLUMN_NAMES, COLUMNS
from tests.ledger.vectors import VECTORS

ROOT = Path(__file__).parents[2]
COLLECTOR = ROOT / "collector" / "spanseal_collector"
DOC = (ROOT / "docs" / "format.md").read_text("utf-8")
BLOCKS: dict[str, str] = dict(
    re.findall(r"^```(?:text|json) (.+?)\n(.*?)\n```$", DOC, re.MULTILINE | re.DOTALL)
)
LINES = {name: block.split("\n") for name, block in BLOCKS.items()}


def table(name: str) -> dict[str, str]:
    """The lines of a block as a word or two, two spaces or more, and the rest."""
    pairs = [re.split(r" {2,}", line, maxsplit=1) for line in LINES[name]]
    return {key: value for key, value in pairs}  # noqa: C416 - dict() takes tuples only, says mypy


def section(title: str) -> str:
    found = re.search(
        rf"^#+ (?:[0-9.]+ )?{re.escape(title)}\n(.*?)(?=^#+ |\Z)", DOC, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def stored(line: str) -> StoredRow:
    """A line of the export as the verifier's row."""
    row: dict[str, Any] = json.loads(line)
    assert tuple(row) == COLUMN_NAMES
    for column in COLUMNS:
        value = row[column.name]
        if column.type.startswith(("UInt64", "DateTime64")):
            assert value == str(int(value))
            row[column.name] = int(value)
        elif column.type.startswith("Map"):
            row[column.name] = dict(value)
        elif column.type.startswith("FixedString") or column.name == "personal_salt":
            assert value == value.lower()
            row[column.name] = bytes.fromhex(value)
    own = {name: row.pop(name) for name in ("hash", "prev_hash", "checkpoint", "format")}
    return StoredRow(record=Record(**row), **own)


ROWS = [stored(line) for line in LINES["export"]]
ENTRIES = [row.hash for row in ROWS]
KEY = SigningKey.from_seed(table("key")["name"], bytes.fromhex(table("key")["seed"]))


def test_every_block_is_recomputed_below() -> None:
    assert set(BLOCKS) == {
        *(
            "primitives",
            "types",
            "pseudonym",
            "commitment",
            "commitment-hash",
            "canonical",
            "hashes",
            "key",
            "tree",
        ),
        *(
            "inclusion 1 of 3",
            "consistency 1 to 3",
            "checkpoint",
            "signature",
            "checkpoint-log",
            "tlog-proof",
        ),
        *("quarantine", "export"),
    }


@pytest.mark.parametrize("line", LINES["primitives"])
def test_primitives(line: str) -> None:
    found = re.fullmatch(r"([a-z0-9]+)\((.*)\) +([0-9a-f]+)", line)
    assert found, line
    name, argument = found[1], json.loads(found[2])
    if name in ("u32", "u64", "i64"):
        made = struct.pack({"u32": "<I", "u64": "<Q", "i64": "<q"}[name], argument)
    else:
        made = encode_text(argument) if name == "str" else encode_map(argument)
    assert made.hex() == found[3]


def plain(any_value: dict[str, Any]) -> Value:
    if not any_value:
        return None
    ((kind, value),) = any_value.items()
    if kind == "arrayValue":
        return [plain(item) for item in value["values"]]
    if kind == "kvlistValue":
        return KvList(tuple((pair["key"], plain(pair["value"])) for pair in value["values"]))
    makers: dict[str, Any] = {"intValue": int, "doubleValue": float, "bytesValue": base64.b64decode}
    made: Value = makers.get(kind, lambda same: same)(value)
    return made


@pytest.mark.parametrize("line", LINES["types"])
def test_typed_text(line: str) -> None:
    any_value, letter, *text = re.split(r" {2,}", line)
    assert typed_text(plain(json.loads(any_value))) == ("".join(text), letter)
    assert f"| `{letter}` |" in section("Types of metadata")


def test_pseudonym() -> None:
    block = table("pseudonym")
    key = bytes.fromhex(block["key"])
    assert hmac.digest(key, block["value"].encode(), "sha256").hex() == block["HMAC"]
    assert pseudonym(key, block["value"]) == block["column"]


def annotated(name: str) -> tuple[bytes, list[str]]:
    """Bytes of a block of offset, name and hex, and the names in order, each once."""
    raw, names = b"", []
    for line in LINES[name]:
        found = re.fullmatch(r" *(\d+)  (\w+) +([0-9a-f]+)(?: ([0-9a-f]+))?", line)
        assert found, line
        assert int(found[1]) == len(raw), line
        if found[4]:
            assert struct.pack("<I", len(found[4]) // 2).hex() == found[3], line
        raw += bytes.fromhex(found[3] + (found[4] or ""))
        names.append(found[2])
    return raw, list(dict.fromkeys(names))


def test_canonical_bytes() -> None:
    raw, names = annotated("canonical")
    assert raw == canonical(ROWS[1].record)
    assert names == ["tag", *FIELDS]
    assert f"canonical bytes of record 1, {len(raw)} in all" in DOC


def test_commitment() -> None:
    raw, names = annotated("commitment")
    record = ROWS[1].record
    assert names == ["tag", "salt", "actor_email", "actor_ip", "personal"]
    assert raw[4:20] == record.personal_salt
    assert f"These {len(raw)} bytes give" in DOC
    assert hashlib.sha256(raw).hexdigest() == BLOCKS["commitment-hash"] == record.personal_commitment.hex()
    made = commitment(record.personal_salt, record.actor_email, record.actor_ip, record.personal)
    assert made == record.personal_commitment


def test_hashes_and_links() -> None:
    prev = bytes(32)
    for seq, (line, row) in enumerate(zip(LINES["hashes"], ROWS, strict=True)):
        raw = canonical(row.record)
        assert (
            line.split() == f"seq {seq} {len(raw)} bytes prev_hash {prev.hex()} hash {row.hash.hex()}".split()
        )
        assert row.prev_hash == prev
        assert record_hash(raw, prev) == row.hash
        check_limits(row.record)
        prev = row.hash


def test_the_first_two_records_are_those_of_the_vectors() -> None:
    for row, vector in zip(ROWS, VECTORS["records"][:2], strict=False):
        assert canonical(row.record).hex() == vector["canonical"]
        assert row.hash.hex() == vector["hash"]
    assert ROWS[0].checkpoint == VECTORS["checkpoints"][0]
    assert str(KEY.vkey) == VECTORS["vkey"]


def test_tree_and_proofs() -> None:
    block = table("tree")
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    known = {f"leaf {i}": leaf for i, leaf in enumerate(leaves)}
    known |= {f"root {size}": tree_root(ENTRIES[:size]) for size in range(4)}
    for name, line in block.items():
        value, _, formula = line.partition("   = ")
        assert value == known[name].hex()
        if formula:
            parts = [known[part] for part in re.findall(r"(?:leaf|root) \d", formula)]
            assert (node_hash(*parts) if len(parts) == 2 else parts[0]) == known[name]
    assert set(block) == set(known)
    assert [node.hex() for node in inclusion_proof(ENTRIES, 1, 3)] == LINES["inclusion 1 of 3"]
    assert [node.hex() for node in consistency_proof(ENTRIES, 1, 3)] == LINES["consistency 1 to 3"]


def test_key() -> None:
    block = table("key")
    hashed = bytes.fromhex(block["hashed"])
    assert hashed == block["name"].encode() + b"\n\x01" + bytes.fromhex(block["public key"])
    assert hashlib.sha256(hashed).digest()[:4].hex() == block["key id"] == KEY.key_id.hex()
    assert block["public key"] == KEY.vkey.public.hex()
    assert VerificationKey.parse(block["vkey"]) == KEY.vkey
    assert str(KEY.vkey) == block["vkey"]


def test_checkpoint() -> None:
    note = BLOCKS["checkpoint"] + "\n"
    text, signers = open_note(note, [KEY.vkey])
    assert signers == [KEY.vkey]
    assert Checkpoint.parse(text).root == tree_root(ENTRIES)
    assert KEY.sign(text) == note == ROWS[2].checkpoint
    raw = base64.b64decode(note.split(" ")[-1])
    assert table("signature") == {"key id": raw[:4].hex(), "signature": raw[4:].hex()}


def test_checkpoint_log() -> None:
    data = (BLOCKS["checkpoint-log"] + "\n").encode()
    lines, problems = parse_log(data)
    assert not problems
    assert b"".join(map(encode, lines)) == data
    assert [(line.received_at, line.note) for line in lines] == [
        (row.record.received_at, row.checkpoint) for row in ROWS if row.checkpoint
    ]


def test_proof_of_one_record() -> None:
    text = BLOCKS["tlog-proof"] + "\n"
    proved = verify_proof(text, [KEY.vkey])
    assert proved.record == ROWS[1].record
    assert encode_proof(ROWS[1].record, ROWS[0].hash, inclusion_proof(ENTRIES, 1), ROWS[2].checkpoint) == text


def test_quarantine_digest() -> None:
    block = table("quarantine")
    digest = hashlib.sha256(bytes.fromhex(block["salt"]) + bytes.fromhex(block["raw"])).hexdigest()
    assert digest == block["digest"] == ROWS[2].record.metadata["audit.quarantine.digest"]


def test_nothing_is_found_in_the_example() -> None:
    lines, _ = parse_log((BLOCKS["checkpoint-log"] + "\n").encode())
    log = LogVerifier(keys=TrustedKeys([VerificationKey.parse(table("key")["vkey"])]), checkpoint_log=lines)
    chain = log.chain(ROWS[0].record.chain_id)
    for row in ROWS:
        chain.row(row)
    log.add(chain.finish())
    result = log.finish(StreamFacts(streams=(), now=0))
    assert not result.findings
    assert not result.information
    assert (result.records, result.checkpoints, result.log_lines) == (3, 2, 2)
    assert [str(rule) for rule, _ in result.not_checked] == re.findall(
        r"^(\d+)\. \*Not checked yet", DOC, re.MULTILINE
    )


# What the code names is in the document, and the other way round.


def first_cells(text: str) -> list[str]:
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def constants(path: Path, pattern: str) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    texts = [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {text for text in texts if re.fullmatch(pattern, text)}


def test_columns() -> None:
    assert first_cells(section("Record")) == list(COLUMN_NAMES)
    export = section("Export as JSON lines")
    assert f"all {len(COLUMNS)} columns" in export
    exact = {c.name for c in COLUMNS if c.type not in ("String", "LowCardinality(String)")} | {
        "personal_salt"
    }
    assert set(first_cells(export)) == exact


def verifier_modules() -> list[Path]:
    return sorted(Path(spanseal_ledger.verifier.__file__).parent.glob("*.py"))


def kinds() -> Iterator[str]:
    """Kinds of findings: those of the rules' statement, and those that are made anywhere in the verifier."""
    yield from re.findall(r"(?<!`)`([a-z_]+)`", spanseal_ledger.verifier.__doc__ or "")
    for path in verifier_modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name in ("add", "on_row", "in_streak", "Finding"):
                    yield str(node.args[0].value)


def test_kinds_of_findings() -> None:
    # The command that reads the checkpoint log's file has one of its own.
    assert set(first_cells(section("What a verifier does"))) == {*kinds(), "checkpoint_log_damaged"}


def modules(*names: str) -> Iterable[Path]:
    return [*verifier_modules(), *(COLLECTOR / f"{name}.py" for name in names)]


def test_the_collectors_own_records() -> None:
    life = section("Life of a chain")
    named = set(re.findall(r"`([a-z_.0-9]+)`", life))
    paths = modules("pipeline", "service", "sealer", "lineage", "quarantine", "heartbeat", "failures")
    actions = set().union(*(constants(path, r"audit_log\.[a-z_]+") for path in paths))
    keys = set().union(*(constants(path, r"audit\.[a-z_0-9]+\.[a-z_0-9.]+") for path in paths))
    producers = {key for key in keys if key.startswith("audit.producer.")}
    assert producers
    assert producers <= set(re.findall(r"`(audit\.producer\.[a-z_.]+)`", section("Reserved metadata keys")))
    keys -= producers
    assert actions >= ENDING_ACTIONS
    assert len(keys) > 15
    assert actions | keys <= named
    assert {key for key in named if key.startswith("audit.")} == keys
    assert set(first_cells(life)) == actions
    for metadata in (ROWS[0].record.metadata, ROWS[2].record.metadata):
        assert set(metadata) <= keys


def published_keys() -> set[str]:
    return set(PUBLISHED_AUDIT_KEYS)


def test_metadata_keys_of_clients() -> None:
    published, added = section("Reserved metadata keys").split("The collector adds", 1)
    assert set(first_cells(published)) == published_keys()
    of_collector = constants(COLLECTOR / "admission.py", r"audit\.(?:event_time|record_id)")
    assert set(first_cells(added)) == of_collector
