"""docs/format.md: every example is recomputed from its text, and nothing that the code names is left out of it."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

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
from spanseal_ledger.verifier import ENDING_ACTIONS, LogVerifier, StoredRow, TrustedKeys
from spanseal_storage.schema import COLUMN_NAMES, COLUMNS
from tests.ledger.log_simulator import LogSimulator, blank, change, rehash, signing_key, verify, with_personal
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
    result = log.finish()
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
    paths = modules("pipeline", "service", "sealer", "lineage", "quarantine", "heartbeat")
    actions = set().union(*(constants(path, r"audit_log\.[a-z_]+") for path in paths))
    keys = set().union(*(constants(path, r"audit\.[a-z_0-9]+\.[a-z_0-9.]+") for path in paths))
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


# Section 14, written from the document alone: nothing of the project's code is used from here to `by_hand`.

Row = dict[str, Any]
ENDS = ("audit_log.stopped", "audit_log.key_rotated", "audit_log.clock_jump")
HASHED_TEXTS = [
    "record_id",
    "tenant",
    "producer_id",
    "service",
    "actor_type",
    "actor_id",
    "actor_role",
    "session_id",
    "action",
    "outcome",
    "failure_reason",
    "resource_type",
    "resource_id",
    "request_id",
    "trace_id",
    "span_id",
]


def text_bytes(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw


def map_bytes(pairs: list[list[str]]) -> bytes:
    ordered = sorted(pairs, key=lambda pair: pair[0].encode())
    return struct.pack("<I", len(pairs)) + b"".join(
        text_bytes(key) + text_bytes(value) for key, value in ordered
    )


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def canonical_by_hand(row: Row) -> bytes:
    numbers = [int(row[name]) for name in ("seq", "tenant_seq", "received_at", "event_time", "producer_seq")]
    return b"".join(
        (
            b"SSR1",
            text_bytes(row["chain_id"]),
            struct.pack("<QQqqQ", *numbers),
            *(text_bytes(row[name]) for name in HASHED_TEXTS),
            bytes.fromhex(row["personal_commitment"]),
            map_bytes(row["metadata"]),
            text_bytes(row["metadata_types"]),
        )
    )


def root_of(entries: list[bytes]) -> bytes:
    if len(entries) < 2:
        return sha256(b"\0", entries[0]) if entries else sha256()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return sha256(b"\1", root_of(entries[:k]), root_of(entries[k:]))


def parse_vkey(vkey: str) -> tuple[str, bytes, bytes]:
    """Name, key id and public key."""
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    if sha256(name.encode(), b"\n", raw)[:4].hex() != key_id or len(raw) != 33 or raw[0] != 1:
        raise ValueError(vkey)
    return name, bytes.fromhex(key_id), raw[1:]


def read_note(note: str, vkeys: Iterable[str]) -> tuple[str, int, bytes]:
    """Chain, size and root of a checkpoint that one of the keys of its log signed."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    origin, size, root, end = text.split("\n")
    log_name, _, chain_id = origin.rpartition("/chain/")
    keys = {(name, key_id): public for name, key_id, public in map(parse_vkey, vkeys)}
    signers = []
    for line in signatures.removesuffix("\n").split("\n"):
        dash, name, encoded = line.split(" ")
        raw = base64.b64decode(encoded, validate=True)
        if dash == "\u2014" and (name, raw[:4]) in keys:
            try:
                Ed25519PublicKey.from_public_bytes(keys[name, raw[:4]]).verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise ValueError(note) from error
            signers.append(name)
    if end or str(int(size)) != size or not any(name.startswith(log_name + "/") for name in signers):
        raise ValueError(note)
    return chain_id, int(size), base64.b64decode(root, validate=True)


class ChainByHand:
    """Step 3 for one chain."""

    def __init__(self, rows: list[Row]) -> None:
        self.key = ""
        self.tampered: list[str] = []
        self.blank: list[int] = []
        self.entries: list[bytes] = []
        self.checkpoints: dict[int, bytes] = {}
        self.ended = False
        self.tenants: dict[str, int] = {}
        ordered = sorted(rows, key=lambda row: int(row["seq"]))
        self.rows = [row for before, row in zip([{}, *ordered], ordered, strict=False) if row != before]
        for seq, row in enumerate(self.rows):
            for step, check in (
                ("3.1", int(row["seq"]) == seq),
                ("3.2", row["format"] == "SSR1"),
                ("3.2", all(len(dict(row[name])) == len(row[name]) for name in ("personal", "metadata"))),
            ):
                self.expect(step, check=check)
            for check_row in (self.hashed, self.personal, self.started, self.placed, self.signed):
                try:
                    check_row(seq, row)
                except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
                    self.tampered.append(f"3 ({check_row.__name__}: {error!r})")
        self.expect("3.9", check=len(self.entries) in self.checkpoints)

    def expect(self, step: str, *, check: bool) -> None:
        if not check:
            self.tampered.append(step)

    def hashed(self, _: int, row: Row) -> None:
        prev = self.entries[-1] if self.entries else bytes(32)
        self.entries.append(bytes.fromhex(row["hash"]))
        self.expect("3.3", check=row["prev_hash"] == prev.hex())
        self.expect("3.3", check=sha256(canonical_by_hand(row), prev) == self.entries[-1])

    def personal(self, seq: int, row: Row) -> None:
        email, ip, others = values = row["actor_email"], row["actor_ip"], row["personal"]
        salt, known = bytes.fromhex(row["personal_salt"]), bytes.fromhex(row["personal_commitment"])
        if salt:
            made = sha256(b"SSP1", salt, text_bytes(email), text_bytes(ip), map_bytes(others))
            self.expect("3.4", check=len(salt) == 16 and any(values) and made == known)
        else:
            self.expect("3.4", check=not any(values))
            self.blank += [seq] if any(known) else []

    def started(self, seq: int, row: Row) -> None:
        if seq == 0:
            self.expect("3.5", check=(row["tenant"], row["action"]) == ("_collector", "audit_log.started"))
            self.expect("3.5", check=dict(row["metadata"])["audit.chain.format"] == "SSR1")
            self.key = dict(row["metadata"])["audit.chain.key"]
            parse_vkey(self.key)

    def placed(self, _: int, row: Row) -> None:
        number = int(row["tenant_seq"])
        self.expect("3.6", check=not self.ended and number == self.tenants.get(row["tenant"], 0))
        self.tenants[row["tenant"]] = number + 1
        self.ended = self.ended or (row["tenant"] == "_collector" and row["action"] in ENDS)

    def signed(self, seq: int, row: Row) -> None:
        if row["checkpoint"]:
            chain_id, size, root = read_note(row["checkpoint"], [self.key])
            right = (chain_id, size, root) == (row["chain_id"], seq + 1, root_of(self.entries))
            self.expect("3.8", check=right)
            self.checkpoints |= {size: root} if right else {}

    def has(self, size: int, root: bytes) -> bool:
        return size <= len(self.entries) and root_of(self.entries[:size]) == root

    def told(self, action: str) -> Iterator[dict[str, str]]:
        """The metadata of the collector's own records of an action that a right checkpoint covers."""
        for row in self.rows[: max(self.checkpoints, default=0)]:
            if row["tenant"] == "_collector" and row["action"] == action:
                yield dict(row["metadata"])


def lines_by_hand(
    chains: dict[str, ChainByHand], log: Iterable[str], pinned: list[str]
) -> tuple[set[Any], list[str]]:
    """Step 4: what the lines say, and what is wrong."""
    met, tampered = set(), []
    for line in log:
        note = json.loads(line)["note"]
        chain = chains.get(note.partition("\n")[0].rpartition("/")[2])
        try:
            chain_id, size, root = read_note(note, [*pinned, *([chain.key] if chain and chain.key else [])])
        except ValueError:
            tampered.append("4")
            continue
        met.add((chain_id, size, root))
        if chain is None or not chain.has(size, root):
            tampered.append("4")
    return met, tampered


def trust_by_hand(chains: dict[str, ChainByHand], pinned: list[str]) -> list[str]:
    """Step 6: keys that count, and erasures."""
    trusted = set(pinned)
    for _ in chains:
        for chain in chains.values():
            if chain.key in trusted:
                trusted |= {told["audit.chain.next_key"] for told in chain.told("audit_log.key_rotated")}
    tampered = ["6" for chain in chains.values() if chain.key not in trusted]
    erased = set()
    for chain in chains.values():
        for told in chain.told("audit_log.erased") if chain.key in trusted else ():
            for item in json.loads(told["audit.erasure.seqs"]):
                first, last = item if isinstance(item, list) else (item, item)
                erased |= {(told["audit.erasure.chain_id"], seq) for seq in range(first, last + 1)}
    return tampered + [
        "6" for name, chain in chains.items() for seq in chain.blank if (name, seq) not in erased
    ]


def by_hand(export: Iterable[str], log: Iterable[str], pinned: list[str]) -> list[str]:
    """Verify an export; return the steps that say tampered."""
    groups: dict[str, list[Row]] = {}
    for line in export:
        row = json.loads(line)
        groups.setdefault(row["chain_id"], []).append(row)
    chains = {chain_id: ChainByHand(rows) for chain_id, rows in groups.items()}
    met, tampered = lines_by_hand(chains, log, pinned)
    for chain in chains.values():
        tampered += chain.tampered
        for told in chain.told("audit_log.started"):
            for named in json.loads(told["audit.chain.predecessors"]):
                name, size, root = named["chain_id"], named["size"], bytes.fromhex(named["root"])
                before = chains.get(name)
                known = before is not None and (size in before.checkpoints or (name, size, root) in met)
                if before is None or not known or not before.has(size, root):
                    tampered.append("5")
    return tampered + trust_by_hand(chains, pinned)


# The example and a longer log, whole and forged, through it.

VKEY = table("key")["vkey"]


def test_the_example_by_hand() -> None:
    assert by_hand(LINES["export"], LINES["checkpoint-log"], [VKEY]) == []
    assert by_hand(LINES["export"], LINES["checkpoint-log"], [VECTORS["next_vkey"]]) == ["6"]
    assert set(by_hand(LINES["export"][:2], LINES["checkpoint-log"], [VKEY])) == {"3.9", "4"}
    assert by_hand(LINES["export"][:1], LINES["checkpoint-log"], [VKEY]) == ["4"]
    assert by_hand(LINES["export"][:1], [], [VKEY]) == []
    assert by_hand([], LINES["checkpoint-log"], [VKEY]) == ["4", "4"]


@pytest.mark.parametrize("name", COLUMN_NAMES)
def test_a_changed_column_is_seen_by_hand(name: str) -> None:
    row = json.loads(LINES["export"][1])
    value = row[name]
    other: Any = [["k", "v"]] if isinstance(value, list) else ("2" if value[:1] == "1" else "1") + value[1:]
    changed = json.dumps(row | {name: other})
    assert by_hand([LINES["export"][0], changed, LINES["export"][2]], LINES["checkpoint-log"], [VKEY]) != []


def exported(log: LogSimulator) -> list[str]:
    """What section 13 says, of a simulated log."""
    lines = []
    for row in [row for rows in log.rows.values() for row in rows]:
        columns = {name: getattr(row.record, name) for name in Record.__slots__}
        columns |= {name: getattr(row, name) for name in ("hash", "prev_hash", "checkpoint", "format")}
        for name, value in columns.items():
            if isinstance(value, dict):
                columns[name] = sorted(value.items())
            elif not isinstance(value, str):
                columns[name] = value.hex() if isinstance(value, bytes) else str(value)
        lines.append(json.dumps({name: columns[name] for name in COLUMN_NAMES}))
    return lines


def steps(log: LogSimulator) -> set[str]:
    lines = [encode(line).decode() for line in log.lines]
    return {step[:3] for step in by_hand(exported(log), lines, [str(log.key.vkey)])}


@pytest.fixture(scope="module")
def simulated() -> LogSimulator:
    """Three chains: one that was killed, one with an erasure and a rotation, one under the new key."""
    log = LogSimulator()
    log.chain(3, 1, 5)
    chain = log.chain(7)
    seq = with_personal(chain.rows)
    named = {"audit.erasure.chain_id": chain.id, "audit.erasure.seqs": f"[[{seq},{seq}]]"}
    chain.seal([chain.own("audit_log.erased", **named)])
    blank(chain.rows, seq)
    new_key = signing_key(1)
    chain.seal([chain.own("audit_log.key_rotated", **{"audit.chain.next_key": str(new_key.vkey)})])
    log.chain(4, 2, key=new_key, end="audit_log.stopped")
    return log


def change_and_rehash(log: LogSimulator, chains: list[str]) -> None:
    change(log.rows[chains[0]], 2, actor_id="somebody")
    rehash(log.rows[chains[0]], 2)


FORGERIES: list[tuple[set[str], Callable[[LogSimulator, list[str]], Any]]] = [
    (set(), lambda _log, _chains: None),
    ({"3.3"}, lambda log, chains: change(log.rows[chains[0]], 2, actor_id="somebody")),
    ({"3.8", "4", "5"}, change_and_rehash),
    (
        {"3.4"},
        lambda log, chains: change(log.rows[chains[2]], 1, actor_email="x@example.org", personal_salt=b""),
    ),
    ({"6"}, lambda log, chains: blank(log.rows[chains[0]], with_personal(log.rows[chains[0]]))),
    ({"4", "5"}, lambda log, chains: log.rows.pop(chains[0])),
    ({"4"}, lambda log, chains: log.rows.pop(chains[2])),
    ({"4"}, lambda log, chains: log.rows[chains[2]].__delitem__(slice(5, None))),
    ({"3.9", "4"}, lambda log, chains: log.rows[chains[2]].__delitem__(slice(6, None))),
]


@pytest.mark.parametrize(("expected", "forge"), FORGERIES)
def test_a_forged_log_is_seen_by_hand(
    simulated: LogSimulator, expected: set[str], forge: Callable[[LogSimulator, list[str]], Any]
) -> None:
    log = simulated.copy()
    forge(log, list(log.rows))
    assert steps(log) >= expected
    assert bool(steps(log)) == bool(expected) == bool(verify(log).findings)
