import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.synthetic import make_log
from tests.independent import verify_export
from tests.independent.verify_export import (
    INFORMATION,
    CannotVerify,
    Finding,
    from_json,
    main,
    parse_row,
    sha256,
    verify,
)

PROGRAM = Path(verify_export.__file__)
DOCUMENT = PROGRAM.parents[2] / "docs" / "format.md"
RECORDS, BATCH = 500, 100
END = RECORDS + 1  # seq of audit_log.stopped; checkpoints stand at 0, at each full batch, and here
MIDDLE = 250  # a client's record with personal data and without a checkpoint

Record = dict[str, Any]


@dataclass
class Export:
    """What a verifier is given. `copy` is deep enough for forgeries that replace values, not change them."""

    records: list[Record]
    lines: list[str]
    keys: list[str]

    def copy(self) -> "Export":
        return Export([dict(record) for record in self.records], list(self.lines), list(self.keys))

    def findings(self) -> list[Finding]:
        return verify(self.records, self.lines, self.keys)


def bad(findings: Iterable[Finding]) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.seq) for finding in findings if finding.kind not in INFORMATION]


def kinds(findings: Iterable[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def document_block(name: str) -> list[str]:
    """The lines of a fenced block; only U+000A ends one."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.split(f"```json {name}\n", 1)[1].split("```", 1)[0].split("\n")[:-1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("independent")
    make_log(directory / "log", RECORDS, batch=BATCH)
    command = [str(Path(sys.executable).parent / "spanseal"), "events", "--data", str(directory / "log")]
    with (directory / "export.jsonl").open("wb") as export:
        subprocess.run([*command, "--format", "records"], stdout=export, check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def original(files: Path) -> Export:
    records = [json.loads(line) for line in (files / "export.jsonl").read_text("ascii").split("\n")[:-1]]
    lines = (files / "log" / "checkpoints.jsonl").read_text("utf-8").split("\n")[:-1]
    keys = [path.read_text("utf-8").strip() for path in (files / "log" / "keys").glob("*.vkey")]
    assert [record["seq"] for record in records] == [str(seq) for seq in range(END + 1)]
    return Export(records, lines, keys)


@pytest.fixture
def export(original: Export) -> Export:
    return original.copy()


# --- logs that this module signs itself: what a forger with a key can do, and what must not be called forged ---


def tree_root(entries: list[bytes]) -> bytes:
    """The root by the recursive definition, where the program appends."""
    if len(entries) < 2:
        return sha256(b"\0", entries[0]) if entries else sha256()
    left = 1 << (len(entries) - 1).bit_length() - 1
    return sha256(b"\1", tree_root(entries[:left]), tree_root(entries[left:]))


class Signer:
    def __init__(self, name: str = "audit.example.org/test/one", seed: bytes = bytes(32)) -> None:
        self.name = name
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        data = b"\1" + self.private.public_key().public_bytes_raw()
        self.key_id = sha256(name.encode(), b"\n", data)[:4]
        self.vkey = f"{name}+{self.key_id.hex()}+{base64.b64encode(data).decode()}"

    def note(self, chain: str, size: int, root: bytes, log: str = "audit.example.org/test") -> str:
        text = f"{log}/chain/{chain}\n{size}\n{base64.b64encode(root).decode()}\n"
        signature = base64.b64encode(self.key_id + self.private.sign(text.encode())).decode()
        return f"{text}\n\u2014 {self.name} {signature}\n"


def rehash(records: list[Record], first: int, signer: Signer | None = None) -> None:
    """Makes the hashes right again from `first` on, and with a signer the checkpoints."""
    entries = [bytes.fromhex(record["hash"]) for record in records[:first]]
    for record in records[first:]:
        record["prev_hash"] = (entries[-1] if entries else bytes(32)).hex()
        row = parse_row(record)
        assert row.canonical is not None
        entries.append(sha256(row.canonical, row.prev))
        record["hash"] = entries[-1].hex()
        if signer is not None and record["checkpoint"]:
            log = signer.name.rpartition("/")[0]
            record["checkpoint"] = signer.note(record["chain_id"], len(entries), tree_root(entries), log)


def chain_of(number: int) -> str:
    return f"0192f000-0000-7000-8000-{number:012x}"


class Step(NamedTuple):
    """A record of a made-up chain: as the collector's own where an action of audit_log is given."""

    action: str
    metadata: Mapping[str, str] = MappingProxyType({})
    personal: str = ""


def made(template: list[Record], number: int, signer: Signer, *steps: Step, named: str = "[]") -> Export:
    started = {
        "audit.chain.format": "SSR1",
        "audit.chain.key": signer.vkey,
        "audit.chain.predecessors": named,
    }
    records: list[Record] = []
    tenants: dict[str, int] = {}
    for seq, step in enumerate((Step("audit_log.started", started), *steps)):
        own = step.action.startswith("audit_log.")
        record = dict(template[0])
        record |= {"chain_id": chain_of(number), "seq": str(seq), "action": step.action, "checkpoint": "due"}
        record |= {"tenant": "_collector" if own else "default", "actor_email": step.personal}
        record["tenant_seq"] = str(tenants.get(record["tenant"], 0))
        tenants[record["tenant"]] = tenants.get(record["tenant"], 0) + 1
        record["metadata"] = [list(pair) for pair in step.metadata.items()]
        record["metadata_types"] = "s" * len(step.metadata)
        if step.personal:
            record["personal_salt"] = "07" * 16
            email = len(step.personal.encode()).to_bytes(4, "little") + step.personal.encode()
            record["personal_commitment"] = sha256(b"SSP1", b"\7" * 16, email, bytes(8)).hex()
        records.append(record)
    rehash(records, 0, signer)
    lines = [json.dumps({"t": 1, "note": record["checkpoint"]}) for record in records]
    return Export(records, lines, [signer.vkey])


def together(*exports: Export, keys: list[str]) -> Export:
    return Export([r for e in exports for r in e.records], [line for e in exports for line in e.lines], keys)


def predecessor(export: Export, size: int, change: Mapping[str, Any] = MappingProxyType({})) -> str:
    root = tree_root([bytes.fromhex(record["hash"]) for record in export.records[:size]]).hex()
    return json.dumps([{"chain_id": export.records[0]["chain_id"], "size": size, "root": root, **change}])


def erase(record: Record) -> None:
    record |= {"actor_email": "", "actor_ip": "", "personal": [], "personal_salt": ""}


# --- clean ---


def test_a_real_log_is_clean(original: Export) -> None:
    assert original.findings() == []


def test_the_example_of_the_document_is_clean() -> None:
    vkey = next(
        line.split()[1] for line in DOCUMENT.read_text("utf-8").split("\n") if line.startswith("vkey ")
    )
    records = [json.loads(line) for line in document_block("export")]
    assert len(records) == 3
    assert verify(records, document_block("checkpoint-log"), [vkey]) == []


def test_without_a_checkpoint_log_the_limit_is_said(original: Export) -> None:
    findings = verify(original.records, None, original.keys)
    assert kinds(findings) == {"no_checkpoint_log"}
    assert bad(findings) == []


def test_lines_may_have_their_newlines(original: Export) -> None:
    assert verify(original.records, [line + "\n" for line in original.lines], original.keys) == []


# --- each column ---

HASHED_TEXTS = re.findall(
    r"\w+",
    """tenant_seq received_at event_time producer_seq tenant producer_id service actor_type actor_id actor_role
    session_id action outcome failure_reason resource_type resource_id request_id trace_id span_id metadata_types""",
)
COLUMN_FORGERIES: dict[str, tuple[str, Any]] = {
    "chain_id": ("missing", chain_of(9)),
    "seq": ("missing", "5000"),
    **dict.fromkeys(HASHED_TEXTS, ("record_changed", "7")),
    "record_id": ("record_changed", chain_of(9)),
    "metadata": ("record_changed", [["a", "b"]]),
    "actor_email": ("personal_changed", "a@example.org"),
    "actor_ip": ("personal_changed", "192.0.2.1"),
    "personal": ("personal_changed", []),
    "personal_salt": ("personal_changed", "07" * 16),
    "personal_commitment": ("record_changed", "07" * 32),
    "format": ("format_unknown", "SSR2"),
    "prev_hash": ("link_broken", "07" * 32),
    "hash": ("hash_changed", "07" * 32),
    "checkpoint": ("checkpoint_invalid", "signed, of course\n"),
}


def test_every_column_is_forged(original: Export) -> None:
    assert COLUMN_FORGERIES.keys() == original.records[0].keys()


@pytest.mark.parametrize("column", COLUMN_FORGERIES)
def test_a_changed_column_is_found(export: Export, column: str) -> None:
    kind, value = COLUMN_FORGERIES[column]
    assert export.records[MIDDLE][column] != value
    export.records[MIDDLE][column] = value
    found = bad(export.findings())
    assert found[0] == (kind, MIDDLE) or (kind == "missing" and (kind, MIDDLE) in found)
    if column not in {"chain_id", "seq", "personal_commitment"}:
        assert len(found) == 1, "one forgery is one finding"


@pytest.mark.parametrize("seq", [0, 1, BATCH, END])
def test_a_changed_record_is_found_wherever_it_stands(export: Export, seq: int) -> None:
    export.records[seq]["resource_id"] = "another"
    assert bad(export.findings()) == [("record_changed", seq)]


def test_the_last_stored_hash_is_known_to_be_wrong_from_its_checkpoint(export: Export) -> None:
    export.records[END]["hash"] = "07" * 32
    assert bad(export.findings()) == [("hash_changed", END)]


# --- rows and checkpoints ---


def delete_row(export: Export) -> None:
    del export.records[MIDDLE]


def delete_rows(export: Export) -> None:
    del export.records[MIDDLE : MIDDLE + 3]


def delete_first_row(export: Export) -> None:
    del export.records[0]


def delete_and_renumber(export: Export) -> None:
    del export.records[MIDDLE]
    for record in export.records[MIDDLE:]:
        record["seq"] = str(int(record["seq"]) - 1)


def insert_row(export: Export) -> None:
    export.records.insert(MIDDLE, export.records[MIDDLE] | {"action": "patient.deleted"})
    rehash(export.records[: MIDDLE + 1], MIDDLE)


def swap_lines(export: Export) -> None:
    export.records[MIDDLE], export.records[MIDDLE + 1] = export.records[MIDDLE + 1], export.records[MIDDLE]


def swap_rows(export: Export) -> None:
    swap_lines(export)
    for seq in (MIDDLE, MIDDLE + 1):
        export.records[seq]["seq"] = str(seq)


def cut_at_a_checkpoint(export: Export) -> None:
    del export.records[2 * BATCH + 1 :]


def cut_between_checkpoints(export: Export) -> None:
    del export.records[MIDDLE:]
    del export.lines[3:]


def append_after_the_end(export: Export) -> None:
    for seq in (END + 1, END + 2):
        record = export.records[MIDDLE] | {"seq": str(seq), "tenant_seq": str(seq - 2)}
        export.records.append(record)
    rehash(export.records, END + 1)


def swap_checkpoints(export: Export) -> None:
    first, second = export.records[BATCH], export.records[2 * BATCH]
    first["checkpoint"], second["checkpoint"] = second["checkpoint"], first["checkpoint"]


def remove_last_checkpoint(export: Export) -> None:
    export.records[END]["checkpoint"] = ""


def rehash_suffix(export: Export) -> None:
    export.records[MIDDLE]["action"] = "patient.deleted"
    rehash(export.records, MIDDLE)


def replace_row_and_hash(export: Export) -> None:
    export.records[MIDDLE]["action"] = "patient.deleted"
    rehash(export.records[: MIDDLE + 1], MIDDLE)


def sign_anew_with_another_key(export: Export) -> None:
    export.records[MIDDLE]["action"] = "patient.deleted"
    rehash(export.records, MIDDLE, Signer("audit.example.org/bench/collector-1"))


def write_everything_anew(export: Export) -> None:
    signer = Signer("audit.example.org/bench/collector-1")
    facts = dict(export.records[0]["metadata"]) | {"audit.chain.key": signer.vkey}
    export.records[0]["metadata"] = [list(pair) for pair in facts.items()]
    rehash(export.records, 0, signer)


def blank_all_personal(export: Export) -> None:
    erase(export.records[MIDDLE])


def blank_some_personal(export: Export) -> None:
    export.records[MIDDLE]["actor_ip"] = ""


def keep_the_salt_alone(export: Export) -> None:
    salt = export.records[MIDDLE]["personal_salt"]
    erase(export.records[MIDDLE])
    export.records[MIDDLE]["personal_salt"] = salt


def add_personal(export: Export) -> None:
    export.records[END]["actor_email"] = "a@example.org"


def another_key(export: Export) -> None:
    export.keys = [Signer().vkey]


def key_of_the_same_name(export: Export) -> None:
    export.keys = [Signer("audit.example.org/bench/collector-1").vkey]


def log_line_no_json(export: Export) -> None:
    export.lines[2] = export.lines[2][:-1]


def log_line_of_another_root(export: Export) -> None:
    note = json.loads(export.lines[2])["note"].split("\n")
    note[2] = base64.b64encode(bytes(32)).decode()
    export.lines[2] = json.dumps({"t": 1, "note": "\n".join(note)})


def log_line_of_a_stranger(export: Export) -> None:
    note = Signer("audit.example.org/bench/other").note(
        export.records[0]["chain_id"], 9000, bytes(32), "audit.example.org/bench"
    )
    export.lines[2] = json.dumps({"t": 1, "note": note})


def text_that_is_not_utf8(export: Export) -> None:
    export.records[MIDDLE]["actor_id"] = {"hex": "ff00"}


def surrogate(export: Export) -> None:
    export.records[MIDDLE]["actor_id"] = "\ud800"


def metadata_key_twice(export: Export) -> None:
    export.records[MIDDLE]["metadata"] = [*export.records[MIDDLE]["metadata"], ["http.route", "/other"]]


def personal_key_twice(export: Export) -> None:
    export.records[MIDDLE]["personal"] = [*export.records[MIDDLE]["personal"], ["user.name", "another"]]


LATER = [3 * BATCH, 4 * BATCH, 5 * BATCH, END]
ALL = [0, BATCH, 2 * BATCH, *LATER]
UNSIGNED = [("unsigned_tail", 2 * BATCH + 1)]
INVALID = [("checkpoint_invalid", seq) for seq in LATER]
REWRITTEN = [("rewritten", seq) for seq in LATER]

FORGERIES: list[tuple[Callable[[Export], None], list[tuple[str, int | None]]]] = [
    (delete_row, [("missing", MIDDLE)]),
    (delete_rows, [("missing", MIDDLE)]),
    (delete_first_row, [("missing", 0)]),
    (insert_row, [("conflicting_row", MIDDLE)]),
    (swap_lines, [("out_of_order", MIDDLE)]),
    (cut_at_a_checkpoint, [("truncated", 2 * BATCH + 1)]),
    (cut_between_checkpoints, [("unsigned_tail", 2 * BATCH + 1)]),
    (append_after_the_end, [("unsigned_tail", END + 1), ("after_end", END + 1)]),
    (swap_checkpoints, [("checkpoint_invalid", BATCH), ("checkpoint_invalid", 2 * BATCH)]),
    (remove_last_checkpoint, [("unsigned_tail", 5 * BATCH + 1)]),
    (rehash_suffix, [*INVALID, *UNSIGNED, *REWRITTEN]),
    (replace_row_and_hash, [("hash_changed", MIDDLE)]),
    (sign_anew_with_another_key, [*INVALID, *UNSIGNED, *REWRITTEN]),
    (write_everything_anew, [*(("rewritten", seq) for seq in ALL), ("key_unpinned", 0)]),
    (blank_all_personal, [("personal_missing", MIDDLE)]),
    (blank_some_personal, [("personal_changed", MIDDLE)]),
    (keep_the_salt_alone, [("personal_changed", MIDDLE)]),
    (add_personal, [("personal_changed", END)]),
    (another_key, [("key_unpinned", 0)]),
    (key_of_the_same_name, [("key_unpinned", 0)]),
    (log_line_no_json, [("checkpoint_log_damaged", None)]),
    (log_line_of_another_root, [("checkpoint_log_invalid", 2 * BATCH)]),
    (log_line_of_a_stranger, [("checkpoint_log_invalid", 8999)]),
    (text_that_is_not_utf8, [("record_changed", MIDDLE)]),
    (surrogate, [("record_changed", MIDDLE)]),
    (metadata_key_twice, [("record_changed", MIDDLE)]),
    (personal_key_twice, [("personal_changed", MIDDLE)]),
]


@pytest.mark.parametrize(("forge", "expected"), FORGERIES, ids=[forge.__name__ for forge, _ in FORGERIES])
def test_a_forgery_is_found(
    export: Export, forge: Callable[[Export], None], expected: list[tuple[str, int | None]]
) -> None:
    forge(export)
    assert sorted(bad(export.findings()), key=str) == sorted(expected, key=str)


def test_rows_that_changed_places_are_both_found(export: Export) -> None:
    swap_rows(export)
    found = bad(export.findings())
    # Which hash stood between them cannot be known any more, so that later checkpoints may be called wrong too.
    assert found[:2] == [("link_broken", MIDDLE), ("record_changed", MIDDLE)]
    assert ("record_changed", MIDDLE + 1) in found
    assert ("record_changed", MIDDLE + 2) not in found


def test_renumbered_rows_are_found_from_the_deleted_one_on(export: Export) -> None:
    delete_and_renumber(export)
    found = bad(export.findings())
    assert found[:2] == [("link_broken", MIDDLE), ("record_changed", MIDDLE)]
    assert ("truncated", END) in found


def test_a_row_that_is_there_twice_is_worth_knowing_only(export: Export) -> None:
    export.records.insert(MIDDLE, export.records[MIDDLE])
    assert [(f.kind, f.seq) for f in export.findings()] == [("repeated_row", MIDDLE)]
    assert bad(export.findings()) == []


def test_what_the_document_says_cannot_be_seen(export: Export) -> None:
    del export.lines[2]
    assert export.findings() == [], "a line of the checkpoint log is a lower bound, none need be there"
    del export.records[END:]
    del export.lines[-1]
    assert export.findings() == [], "who can write both can cut both"


# --- chains of a signer of our own ---


@pytest.fixture
def signer() -> Signer:
    return Signer()


def test_predecessors_are_met(original: Export, signer: Signer) -> None:
    first = made(original.records, 1, signer, Step("patient.viewed"), Step("patient.viewed"))
    second = made(original.records, 2, signer, named=predecessor(first, 3))
    assert together(first, second, keys=[signer.vkey]).findings() == []
    grown = made(original.records, 2, signer, named=predecessor(first, 2))
    findings = together(first, grown, keys=[signer.vkey]).findings()
    assert [(f.kind, f.chain, f.seq) for f in findings] == [("late_growth", chain_of(1), 2)]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"root": "07" * 32}, ("predecessor_mismatch", chain_of(1), 2)),
        ({"size": 4}, ("truncated", chain_of(1), 3)),
        ({"chain_id": chain_of(7)}, ("chain_missing", chain_of(7), 0)),
        ({"size": "3"}, ("predecessors_unreadable", chain_of(2), 0)),
        ({"size": -1}, ("predecessors_unreadable", chain_of(2), 0)),
        ({"root": ["a"]}, ("predecessors_unreadable", chain_of(2), 0)),
        ({"more": 1}, ("predecessors_unreadable", chain_of(2), 0)),
    ],
)
def test_a_predecessor_that_is_not_as_named_is_found(
    original: Export, signer: Signer, change: Record, finding: tuple[str, str, int]
) -> None:
    first = made(original.records, 1, signer, Step("patient.viewed"), Step("patient.viewed"))
    second = made(original.records, 2, signer, named=predecessor(first, 3, change))
    findings = together(first, second, keys=[signer.vkey]).findings()
    assert [(f.kind, f.chain, f.seq) for f in findings] == [finding]


def test_a_predecessor_needs_a_checkpoint_of_the_size(original: Export, signer: Signer) -> None:
    first = made(original.records, 1, signer, Step("patient.viewed"), Step("patient.viewed"))
    second = made(original.records, 2, signer, named=predecessor(first, 2))
    first.records[1]["checkpoint"] = ""
    export = together(first, second, keys=[signer.vkey])
    assert kinds(export.findings()) == {"late_growth"}, "a line of the checkpoint log is as good"
    del export.lines[1]
    assert bad(export.findings()) == [("predecessor_mismatch", 1)]


def test_a_chain_that_the_checkpoint_log_knows_is_missed(original: Export, signer: Signer) -> None:
    first, second = (made(original.records, number, signer, Step("patient.viewed")) for number in (1, 2))
    export = together(first, second, keys=[signer.vkey])
    export.records = first.records
    assert [(f.kind, f.chain, f.seq) for f in export.findings()] == [("chain_missing", chain_of(2), 0)]


def test_a_rotated_key_is_introduced_by_the_one_before_it(original: Export, signer: Signer) -> None:
    new = Signer("audit.example.org/test/two", b"\2" * 32)
    rotated = Step("audit_log.key_rotated", {"audit.chain.next_key": new.vkey})
    first, second = made(original.records, 1, signer, rotated), made(original.records, 2, new)
    assert together(second, first, keys=[signer.vkey]).findings() == []
    assert bad(together(second, first, keys=[new.vkey]).findings()) == [("key_unpinned", 0)]
    first.records[-1]["checkpoint"] = ""
    uncovered = together(first, second, keys=[signer.vkey])
    assert bad(uncovered.findings()) == [("unsigned_tail", 1), ("key_unpinned", 0)]


ERASURES = {
    "[1]": [],
    "[0,[1,9]]": [],
    "[2]": [("personal_missing", 1)],
    "[[1]]": [("personal_missing", 1)],
    '["1"]': [("personal_missing", 1)],
    "1": [("personal_missing", 1)],
    "[" * 100_000: [("personal_missing", 1)],
}


@pytest.mark.parametrize("seqs", ERASURES, ids=lambda seqs: seqs[:12])
def test_erasure_is_excused_by_a_record_that_names_it(original: Export, signer: Signer, seqs: str) -> None:
    erased = Step(
        "audit_log.erased", {"audit.erasure.chain_id": chain_of(1), "audit.erasure.seqs": seqs[:60_000]}
    )
    export = made(original.records, 1, signer, Step("patient.viewed", personal="a@example.org"), erased)
    erase(export.records[1])
    assert bad(export.findings()) == ERASURES[seqs]


def test_erasure_is_not_excused_by_a_client_or_by_an_untrusted_chain(
    original: Export, signer: Signer
) -> None:
    names = {"audit.erasure.chain_id": chain_of(1), "audit.erasure.seqs": "[1]"}
    viewed = Step("patient.viewed", personal="a@example.org")
    export = made(original.records, 1, signer, viewed, Step("audit_log.erased", names))
    erase(export.records[1])
    export.records[2] |= {"tenant": "default", "tenant_seq": "1"}
    rehash(export.records, 0, signer)
    assert ("personal_missing", 1) in bad(export.findings())
    stranger = Signer("audit.example.org/test/two", b"\2" * 32)
    victim = made(original.records, 1, signer, viewed)
    erase(victim.records[1])
    other = made(original.records, 2, stranger, Step("audit_log.erased", names))
    found = bad(together(victim, other, keys=[signer.vkey]).findings())
    assert found == [("key_unpinned", 0), ("personal_missing", 1)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"action": "audit_log.heartbeat"}, [("not_started", 0)]),
        ({"tenant": "default"}, [("not_started", 0), ("tenant_gap", 1)]),
        ({"tenant_seq": "1"}, [("tenant_gap", 0)]),
        ({"metadata": []}, [("format_unknown", 0), ("key_unpinned", 0), ("predecessors_unreadable", 0)]),
    ],
)
def test_what_the_signer_did_against_the_rules_is_found(
    original: Export, signer: Signer, change: Record, expected: list[tuple[str, int]]
) -> None:
    export = made(original.records, 1, signer, Step("patient.viewed"))
    export.records[0] |= change
    rehash(export.records, 0, signer)
    export.lines = []
    assert bad(export.findings()) == expected


def test_a_chain_cannot_be_signed_for_by_another_collector(original: Export, signer: Signer) -> None:
    other = Signer("audit.example.org/test/two", b"\2" * 32)
    export = made(original.records, 1, signer, Step("patient.viewed"))
    export.records[1]["checkpoint"] = other.note(
        chain_of(1), 2, tree_root([bytes.fromhex(record["hash"]) for record in export.records])
    )
    export.keys.append(other.vkey)
    assert bad(export.findings()) == [("checkpoint_invalid", 1), ("unsigned_tail", 1)]


NOTES: dict[str, Callable[[str], str]] = {
    "an extension line": lambda note: note.replace("\n\n", "\nmore\n\n", 1),
    "a leading zero": lambda note: note.replace("\n2\n", "\n02\n", 1),
    "a carriage return": lambda note: note.replace("\n2\n", "\n2\r\n", 1),
    "no last newline": lambda note: note[:-1],
    "no signature": lambda note: note.split("\u2014")[0],
    "another spelling of base64": lambda note: note.replace("=\n\n", "==\n\n", 1),
    "a second wrong line of the key": lambda note: note + note.split("\n")[-2][:-8] + "AAAAAAA=\n",
    "another origin": lambda note: note.replace("/test/chain", "/other/chain", 1),
    "too long": lambda note: note + "\u2014 witness AAAAAAAA\n" * 20_000,
}


@pytest.mark.parametrize("form", NOTES)
def test_a_note_of_another_form_is_refused(original: Export, signer: Signer, form: str) -> None:
    export = made(original.records, 1, signer, Step("patient.viewed"))
    note = NOTES[form](export.records[1]["checkpoint"])
    assert note != export.records[1]["checkpoint"]
    export.records[1]["checkpoint"] = note
    assert bad(export.findings()) == [("checkpoint_invalid", 1), ("unsigned_tail", 1)]
    export.lines[1] = json.dumps({"t": 1, "note": note})
    assert "checkpoint_log_invalid" in kinds(export.findings())


def test_lines_of_unknown_keys_are_passed_over(original: Export, signer: Signer) -> None:
    export = made(original.records, 1, signer, Step("patient.viewed"))
    witnesses = "".join(f"\u2014 witness-{number} AAAAAAAA\n" for number in range(15))
    export.records[1]["checkpoint"] += witnesses
    export.lines[1] = json.dumps({"t": 1, "note": export.records[1]["checkpoint"]})
    assert export.findings() == []


# --- hostile input ---

HOSTILE: list[Any] = [
    None,
    True,
    7,
    1.5,
    "",
    "\ud800",
    "\n",
    "-1",
    "01",
    "18446744073709551615",
    "18446744073709551616",
    "9" * 5000,
    "\u0661",
    "F" * 64,
    [],
    {},
    [None],
    [["a"]],
    [["a", 1]],
    ["ab"],
    {"ab": 1},
    {"hex": "ff"},
    {"hex": None},
    {"hex": json.loads("[" * 900 + "]" * 900)},
    [[{"hex": "ff"}, "a"]],
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_no_value_of_a_column_stops_the_program(original: Export, signer: Signer, value: Any) -> None:
    export = made(original.records, 1, signer, Step("patient.viewed", personal="a"), Step("patient.viewed"))
    for column in export.records[1]:
        forged = export.copy()
        # That a checkpoint before the last was taken out is nothing to find: the later ones say the same.
        same = forged.records[1][column] == value or (column, value) == ("checkpoint", "")
        forged.records[1][column] = value
        assert bool(bad(forged.findings())) != same, column


@pytest.mark.parametrize("record", [None, 7, [], {}, {"seq": "1"}, "text"])
def test_a_record_without_its_columns_is_a_finding(export: Export, record: Any) -> None:
    export.records.append(record)
    assert bad(export.findings()) == [("line_malformed", None)]


@pytest.mark.parametrize(
    "line", ["", "7", "[]", "{}", '{"t":1}', '{"t":"1","note":""}', '{"t":1,"t":1,"note":""}', "[" * 100_000]
)
def test_a_line_of_the_checkpoint_log_without_its_form_is_a_finding(export: Export, line: str) -> None:
    export.lines.append(line)
    assert bad(export.findings()) == [("checkpoint_log_damaged", None)]


@pytest.mark.parametrize("keys", [[], ["nonsense"], ["a+00000000+AQ=="]])
def test_without_a_readable_key_nothing_is_verified(original: Export, keys: list[str]) -> None:
    with pytest.raises(CannotVerify):
        verify(original.records, original.lines, keys)


def test_a_name_twice_in_one_object_is_not_read() -> None:
    assert from_json('{"a":1,"a":1}') is None


# --- the command ---


def command(files: Path, export: Path, *more: str) -> list[str]:
    vkey = next((files / "log" / "keys").glob("*.vkey")).read_text("utf-8").strip()
    checkpoints = files / "log" / "checkpoints.jsonl"
    return ["--records", str(export), "--checkpoints", str(checkpoints), "--key", vkey, *more]


def test_the_program_runs_on_its_own(files: Path, tmp_path: Path) -> None:
    # Isolated and elsewhere, so that nothing of this project can be imported by accident.
    arguments = [sys.executable, "-I", str(PROGRAM), *command(files, files / "export.jsonl")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "CLEAN\n", "")


def test_the_command_says_what_it_found(
    files: Path, tmp_path: Path, original: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (files / "export.jsonl").read_bytes().split(b"\n")
    lines[MIDDLE] = b"\xff" + lines[MIDDLE]
    (tmp_path / "forged.jsonl").write_bytes(b"\n".join(lines))
    assert main(command(files, tmp_path / "forged.jsonl")) == 1
    malformed, missing, verdict = capsys.readouterr().out.splitlines()
    assert malformed.startswith(f"line_malformed - - line {MIDDLE + 1} ")
    assert missing.startswith(f"missing {original.records[0]['chain_id']} {MIDDLE} ")
    assert verdict == "TAMPERED 2"


def test_the_last_line_of_the_checkpoint_log_without_newline_is_ignored(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (files / "log" / "checkpoints.jsonl").read_bytes()
    (tmp_path / "checkpoints.jsonl").write_bytes(whole + b'{"t":1,"no')
    more = ("--checkpoints", str(tmp_path / "checkpoints.jsonl"))
    assert main(command(files, files / "export.jsonl", *more)) == 0
    assert capsys.readouterr().out == "CLEAN\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n", b"# not an export\n"])
def test_what_is_no_export_is_not_called_clean(
    files: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "export.jsonl").write_bytes(content)
    vkey = command(files, files)[-1]
    assert main(["--records", str(tmp_path / "export.jsonl"), "--key", vkey]) == 2
    assert main(["--records", str(tmp_path / "none.jsonl"), "--key", vkey]) == 2
    assert "CLEAN" not in capsys.readouterr().out
