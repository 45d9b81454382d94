"""Verify an exported Spanseal log.

Written from docs/format.md alone. It imports nothing of the project on purpose: where this program and the project
agree about a log, the document says enough. "Step" means a step of section 14, "rule" one of section 12.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UNSIGNED = "0|[1-9][0-9]{0,19}"
TIME = "0|-?[1-9][0-9]{0,18}"
NOTE = rf"([^\s+]+)/chain/({UUID})\n({UNSIGNED})\n([A-Za-z0-9+/]{{43}}=)\n"
HASHED = re.findall(  # section 4 hashes these columns in the table's order
    r"\w+",
    """chain_id seq tenant_seq received_at event_time producer_seq record_id tenant producer_id service actor_type
    actor_id actor_role session_id action outcome failure_reason resource_type resource_id request_id trace_id span_id""",
)
DIGESTS = ("personal_salt", "prev_hash", "hash", "personal_commitment")
FORMS = {
    **dict.fromkeys(("chain_id", "record_id"), UUID),
    **dict.fromkeys(("seq", "tenant_seq", "producer_seq"), UNSIGNED),
    **dict.fromkeys(("received_at", "event_time"), TIME),
    **dict.fromkeys(DIGESTS[1:], "[0-9a-f]{64}"),
    "personal_salt": "(?:[0-9a-f]{2})*",
}
TEXTS = {*HASHED, *FORMS, "actor_email", "actor_ip", "metadata_types", "format", "checkpoint"}
ENDS = ("audit_log.stopped", "audit_log.key_rotated", "audit_log.clock_jump")
# These do not make a log bad. `no_checkpoint_log` and, of findings, `line_malformed` are words of this program.
INFORMATION = {"repeated_row", "erasure_unreadable", "roots_unchecked", "late_growth", "no_checkpoint_log"}


class CannotVerify(Exception):
    """There is nothing to verify, or nothing to verify it with."""


class Malformed(ValueError):
    """Something does not have its form."""


class Finding(NamedTuple):
    kind: str
    chain: str | None
    seq: int | None
    message: str


class Findings(dict[tuple[str, str, int | None], Finding]):
    def say(self, kind: str, chain: str | None, seq: int | None, message: str) -> None:
        # Many lines may tell of one cut: it is said once. What names no chain differs by its message.
        self.setdefault((kind, chain or message, seq), Finding(kind, chain, seq, message))


class Key(NamedTuple):
    name: str
    key_id: bytes
    public: bytes


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text)
    except ValueError:
        data = b""
    if base64.b64encode(data).decode() != text:
        raise Malformed("not canonical base64")
    return data


def from_json(text: str) -> Any:
    """The value, or None, which none of the callers accepts."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None


def parse_vkey(vkey: str) -> Key:
    name, key_id, encoded = (*vkey.split("+", 2), "", "")[:3]
    data = from_base64(encoded)
    if not re.fullmatch(r"[^\s\ud800-\udfff]+", name) or len(data) != 33 or data[0] != 1:
        raise Malformed("not the vkey of an Ed25519 key")
    if sha256(name.encode(), b"\n", data)[:4].hex() != key_id:
        raise Malformed("the key id is not this key's")
    return Key(name, bytes.fromhex(key_id), data[1:])


class Note(NamedTuple):
    log: str
    chain: str
    size: int
    root: bytes
    text: bytes
    signatures: list[tuple[str, bytes]]

    def check_signed(self, keys: Iterable[Key]) -> None:
        """Some known key of the origin's log signed, and no line of such a key is wrong."""
        # A pinned key comes last and so stands before one of the data that was made to share its id.
        known = {(key.name, key.key_id): key.public for key in keys if key.name.startswith(self.log + "/")}
        lines = [(known.get((name, data[:4])), data[4:]) for name, data in self.signatures]
        try:
            for public, signature in lines:
                if public is not None:
                    Ed25519PublicKey.from_public_bytes(public).verify(signature, self.text)
        except (InvalidSignature, ValueError):
            raise Malformed("a signature is wrong") from None
        if not any(public for public, _ in lines):
            raise Malformed("not signed by a key that counts")


def parse_note(note: str) -> Note:
    if len(note) > 262_144 or any(unicodedata.category(c) in {"Cc", "Cs"} for c in note.replace("\n", "")):
        raise Malformed("too long, a control character, or not UTF-8")
    end = note.rfind("\n\n") + 1
    found, lines = re.fullmatch(NOTE, note[:end]), note[end + 1 :].split("\n")
    if found is None or lines.pop() or not 1 <= len(lines) <= 64:
        raise Malformed("not a checkpoint of a chain with signatures")
    signed = [re.fullmatch("\u2014 ([^ ]+) ([^ ]{8,})", line) for line in lines]
    signatures = [(line[1], from_base64(line[2])) for line in signed if line is not None]
    if len(signatures) < len(signed):
        raise Malformed("a signature line has another form")
    return Note(found[1], found[2], int(found[3]), from_base64(found[4]), note[:end].encode(), signatures)


def string(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise Malformed("not UTF-8") from None
    return len(data).to_bytes(4, "little") + data


def mapping(pairs: list[tuple[str, str]]) -> bytes:
    # The order of section 1 is that of the keys' bytes, without the length before them.
    framed = sorted(((string(k), string(v)) for k, v in pairs), key=lambda pair: pair[0][4:])
    if len(dict(framed)) != len(framed):
        raise Malformed("a key twice")
    return len(framed).to_bytes(4, "little") + b"".join(key + value for key, value in framed)


class Row(NamedTuple):
    """A line whose columns have their types; nothing in it is believed yet."""

    columns: dict[str, str]
    maps: dict[str, list[tuple[str, str]]]
    seq: int
    prev: bytes
    hash: bytes
    salt: bytes
    commitment: bytes
    canonical: bytes | None  # None: beyond 64 bits, not UTF-8, or a key twice

    def own(self, prev: bytes) -> bytes | None:
        return None if self.canonical is None else sha256(self.canonical, prev)

    @property
    def sound(self) -> bool:
        return self.own(self.prev) == self.hash

    @property
    def some_personal(self) -> bool:
        return bool(self.columns["actor_email"] or self.columns["actor_ip"] or self.maps["personal"])

    def opens_commitment(self) -> bool:
        try:
            texts = string(self.columns["actor_email"]) + string(self.columns["actor_ip"])
            return sha256(b"SSP1", self.salt, texts, mapping(self.maps["personal"])) == self.commitment
        except Malformed:
            return False

    def is_own(self, *actions: str) -> bool:
        return self.columns["tenant"] == "_collector" and self.columns["action"] in actions


def plain(value: Any, form: str = "(?s:.*)") -> str:
    if isinstance(value, dict) and value.keys() == {"hex"} and isinstance(value["hex"], str):
        value = f"\ud800{value['hex']}"  # as impossible to encode as what it stands for
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise Malformed("a column does not have its form")
    return value


def parse_row(record: Any) -> Row:
    if not isinstance(record, dict) or record.keys() != TEXTS | {"personal", "metadata"}:
        raise Malformed("not an object of the 33 columns")
    maps = {}
    for name in ("personal", "metadata"):
        pairs: list[Any] = record[name] if isinstance(record[name], list) else [None]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise Malformed(f"{name} is not a list of pairs")
        maps[name] = [(plain(key), plain(value)) for key, value in pairs]
    columns = {name: plain(record[name], FORMS.get(name, "(?s:.*)")) for name in TEXTS}
    salt, prev, stored, commitment = (bytes.fromhex(columns[name]) for name in DIGESTS)
    try:
        numbers = {n: int(columns[n]).to_bytes(8, "little", signed=FORMS[n] == TIME) for n in HASHED[1:6]}
        head = b"".join(numbers[name] if name in numbers else string(columns[name]) for name in HASHED)
        tail = mapping(maps["metadata"]) + string(columns["metadata_types"])
        canonical = b"SSR1" + head + commitment + tail
    except (Malformed, OverflowError):
        canonical = None
    return Row(columns, maps, int(columns["seq"]), prev, stored, salt, commitment, canonical)


@dataclass(eq=False)
class Chain:
    chain_id: str
    rows: dict[int, Row]
    size: int
    findings: Findings
    start: Row | None = None  # where it is what was signed
    key: Key | None = None
    changed: set[int] = field(default_factory=set)  # rows that are not what was signed
    right: set[int] = field(default_factory=lambda: {0})  # sizes whose checkpoint is right by step 3.8
    vouched: int = 0  # as the last of these, but also where the root could not be recomputed
    edge: list[bytes] = field(default_factory=list)  # roots of the complete subtrees (section 6)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: sha256()})  # at the sizes where it is known

    def found(self, kind: str, seq: int, message: str) -> None:
        self.findings.say(kind, self.chain_id, seq, message)

    def facts(self, action: str) -> Iterator[tuple[int, dict[str, str]]]:
        """Metadata of the collector's own records, of those that are proved."""
        for row in self.rows.values():
            if row.is_own(action) and row.seq < max(self.right) and row.seq not in self.changed:
                yield row.seq, dict(row.maps["metadata"])

    def grown(self, entry: bytes) -> tuple[list[bytes], bytes]:
        """Edge and root of the tree with one entry more."""
        edge, node, size = list(self.edge), sha256(b"\0", entry), len(self.roots) - 1
        while size & 1:
            node, size = sha256(b"\1", edge.pop(), node), size >> 1
        edge.append(node)
        for left in reversed(edge[:-1]):
            node = sha256(b"\1", left, node)
        return edge, node

    def append(self, entry: bytes) -> None:
        self.edge, self.roots[len(self.roots)] = self.grown(entry)

    def leads(self, entry: bytes, row: Row) -> bool:
        """Whether this entry in the place of a row would give the root that the row's checkpoint states."""
        try:
            stated = parse_note(row.columns["checkpoint"]).root
        except Malformed:
            return False
        return len(self.roots) == row.seq + 1 and self.grown(entry)[1] == stated

    def check(self, pinned: Sequence[Key]) -> None:
        self.check_hashes()
        self.start = None if 0 in self.changed else self.rows.get(0)
        if self.start is not None:
            self.check_start(self.start)
        for row in self.rows.values():
            self.check_row(row, pinned if self.key is None else [self.key])
        if self.vouched < self.size:
            self.found("unsigned_tail", self.vouched, "no valid checkpoint covers the rows from here on")
        self.check_order()

    def check_hashes(self) -> None:
        expected, at = bytes(32), 0
        for seq, row in self.rows.items():
            if seq > at:
                self.found("missing", at, f"{seq - at} rows are not there, up to {seq - 1}")
                if seq == at + 1 == len(self.roots):
                    self.append(row.prev)
                expected = row.prev
            expected = self.settle(row, expected, self.rows.get(seq + 1))
            if seq + 1 == len(self.roots):
                self.append(expected)
            at = seq + 1
        if len(self.roots) <= at:
            self.found("roots_unchecked", len(self.roots) - 1, "roots from here on cannot be recomputed")

    def settle(self, row: Row, expected: bytes, after: Row | None) -> bytes:
        """Say what is wrong with a row's hashes, and return the one that the rest was built on (section 12)."""
        if row.prev != expected:
            self.found("link_broken", row.seq, "prev_hash is not the hash of the row before")
        own = row.own(row.prev)
        follows = after.prev if after is not None and after.sound else row.hash
        if row.hash in {own, row.own(expected)}:
            if follows != row.hash:
                self.changed.add(row.seq)
                self.found("hash_changed", row.seq, "row and hash were replaced together")
        elif own is not None and (self.leads(own, row) if after is None else own == after.prev):
            self.found("hash_changed", row.seq, "the stored hash is not the record's")
            return own
        else:
            self.changed.add(row.seq)
            self.found("record_changed", row.seq, "the columns do not give the stored hash")
        return follows

    def check_start(self, start: Row) -> None:
        facts = dict(start.maps["metadata"])
        if not start.is_own("audit_log.started"):
            self.found("not_started", 0, "the first row is not the collector's audit_log.started")
        if facts.get("audit.chain.format") != "SSR1":
            self.found("format_unknown", 0, "audit.chain.format is not SSR1")
        try:
            self.key = parse_vkey(facts.get("audit.chain.key", ""))
        except Malformed as error:
            self.found("key_unpinned", 0, f"the chain's own key: {error}")

    def check_row(self, row: Row, keys: Sequence[Key]) -> None:
        """Steps 3.2, 3.4 and 3.8, of what is not hashed as it stands."""
        if row.columns["format"] != "SSR1":
            self.found("format_unknown", row.seq, "the format is not SSR1")
        some = row.some_personal
        if (some or row.salt) and not (some and len(row.salt) == 16 and row.opens_commitment()):
            self.found("personal_changed", row.seq, "personal data and salt do not give the commitment")
        if row.columns["checkpoint"]:
            try:
                self.check_checkpoint(row, keys)
            except Malformed as error:
                self.found("checkpoint_invalid", row.seq, str(error))

    def check_checkpoint(self, row: Row, keys: Sequence[Key]) -> None:
        note = parse_note(row.columns["checkpoint"])
        if (note.chain, note.size) != (self.chain_id, row.seq + 1):
            raise Malformed("of another chain or size")
        if self.roots.get(note.size) not in {note.root, None}:
            raise Malformed("of another root")
        note.check_signed(keys)
        self.vouched = note.size
        if note.size in self.roots:
            self.right.add(note.size)

    def check_order(self) -> None:
        # A row that is gone or changed was found already, and may have borne any tenant's next number: a tenant may
        # jump by as many as there were of these since its last row.
        unknown, at, end = 0, 0, None
        tenants: dict[str, tuple[int, int]] = {}
        for seq, row in self.rows.items():
            if end is not None:
                self.found("after_end", seq, f"rows follow, but the chain ended at {end}")
                return
            unknown, at = unknown + seq - at + (seq in self.changed), seq + 1
            if seq not in self.changed:
                tenant, number = row.columns["tenant"], int(row.columns["tenant_seq"])
                due, seen = tenants.get(tenant, (0, 0))
                if not due <= number <= due + unknown - seen:
                    self.found("tenant_gap", seq, f"tenant_seq is {number}, {due} was due")
                tenants[tenant] = (number + 1, unknown)
                end = seq if row.is_own(*ENDS) else None


@dataclass(eq=False)
class Log:
    pinned: list[Key]
    findings: Findings = field(default_factory=Findings)
    chains: dict[str, Chain] = field(default_factory=dict)
    lines: set[tuple[str, int]] = field(default_factory=set)  # chain and size of each line that counts

    def read(self, records: Iterable[Any]) -> None:
        groups: dict[str, dict[int, list[Row]]] = {}
        highest: dict[str, int] = {}
        for line, record in enumerate(records, 1):
            try:
                row = parse_row(record)
            except Malformed as error:
                self.findings.say("line_malformed", None, None, f"line {line} of the export: {error}")
                continue
            chain_id = row.columns["chain_id"]
            groups.setdefault(chain_id, {}).setdefault(row.seq, []).append(row)
            if row.seq < highest.get(chain_id, 0):
                self.findings.say("out_of_order", chain_id, row.seq, f"line {line} comes after a later row")
            highest[chain_id] = max(row.seq, highest.get(chain_id, 0))
        for chain_id, group in groups.items():
            rows = {seq: self.choose(chain_id, seq, group) for seq in sorted(group)}
            self.chains[chain_id] = Chain(chain_id, rows, max(rows) + 1, self.findings)

    def choose(self, chain_id: str, seq: int, group: dict[int, list[Row]]) -> Row:
        """Of copies that differ, the one whose hash fits both neighbours (rule 2)."""
        copies = {json.dumps([row.columns, row.maps], sort_keys=True): row for row in group[seq]}
        if len(copies) < len(group[seq]):
            self.findings.say("repeated_row", chain_id, seq, "the row is there more than once")
        if len(copies) > 1:
            self.findings.say("conflicting_row", chain_id, seq, f"{len(copies)} rows that differ")
        before = {row.hash for row in group.get(seq - 1, [])} if seq else {bytes(32)}
        after = {row.prev for row in group.get(seq + 1, [])}
        return max(copies.values(), key=lambda row: (row.sound, row.prev in before, row.hash in after))

    def meet(self, chain_id: str, size: int, root: bytes, kind: str, who: str) -> Chain | None:
        """The chain, if it is there with the size and root that somebody vouched for."""
        chain = self.chains.get(chain_id)
        if chain is None:
            self.findings.say("chain_missing", chain_id, 0, f"{who} names a chain that is not there")
        elif chain.size < size:
            chain.found("truncated", chain.size, f"{who} names a size of {size}")
        elif chain.roots.get(size) not in {root, None}:
            chain.found(kind, size - 1, f"{who} names another root of size {size}")
        else:
            return chain
        return None

    def check_line(self, number: int, line: str) -> None:
        """Step 4."""
        where = f"line {number} of the checkpoint log"
        kind, chain_id, seq = "checkpoint_log_damaged", None, None
        try:
            entry = from_json(line)
            if not isinstance(entry, dict) or entry.keys() != {"t", "note"}:
                raise Malformed("not an object of t and note")
            if type(entry["t"]) is not int or not isinstance(entry["note"], str):
                raise Malformed("t is not a number, or note no string")
            kind = "checkpoint_log_invalid"
            note = parse_note(entry["note"])
            chain_id, seq = note.chain, note.size - 1
            chain = self.chains.get(chain_id)
            own = [chain.key] if chain is not None and chain.key is not None else []
            note.check_signed([*own, *self.pinned])
        except Malformed as error:
            self.findings.say(kind, chain_id, seq, f"{where}: {error}")
            return
        self.lines.add((note.chain, note.size))
        self.meet(note.chain, note.size, note.root, "rewritten", where)

    def check_predecessors(self, chain: Chain, start: Row) -> None:
        """Step 5."""
        try:
            named = list(predecessors(dict(start.maps["metadata"]).get("audit.chain.predecessors", "")))
        except Malformed as error:
            chain.found("predecessors_unreadable", 0, str(error))
            return
        for chain_id, size, root in named:
            who = f"the start of chain {chain.chain_id}"
            older = self.meet(chain_id, size, root, "predecessor_mismatch", who)
            if older is None or size not in older.roots:
                continue
            if size not in older.right and (chain_id, size) not in self.lines:
                older.found(
                    "predecessor_mismatch", size - 1, f"{who} names a size without a valid checkpoint"
                )
            elif size < older.vouched:
                older.found("late_growth", size, f"rows beyond the size that {who} names")

    def trusted(self) -> list[Chain]:
        """The chains whose key is pinned, or introduced in a chain that is trusted itself (step 6)."""
        # Where a chain's own key is not known, only pinned keys were accepted in its place.
        keys: set[Key | None] = {None, *self.pinned}
        trusted, waiting = list[Chain](), list(self.chains.values())
        while ready := [chain for chain in waiting if chain.key in keys]:
            waiting = [chain for chain in waiting if chain.key not in keys]
            trusted += ready
            for _, facts in (found for chain in ready for found in chain.facts("audit_log.key_rotated")):
                with contextlib.suppress(Malformed):
                    keys.add(parse_vkey(facts.get("audit.chain.next_key", "")))
        for chain in waiting:
            chain.found("key_unpinned", 0, "the chain's key is neither pinned nor introduced")
        return trusted

    def check_erased(self, trusted: Iterable[Chain]) -> None:
        erased: dict[str, list[tuple[int, int]]] = {}
        for chain in trusted:
            for seq, facts in chain.facts("audit_log.erased"):
                try:
                    spans = list(seqs(facts.get("audit.erasure.seqs", "")))
                    erased.setdefault(facts.get("audit.erasure.chain_id", ""), []).extend(spans)
                except Malformed as error:
                    chain.found("erasure_unreadable", seq, str(error))
        for chain_id, chain in self.chains.items():
            spans = erased.get(chain_id, [])
            for seq, row in chain.rows.items():
                gone = row.commitment != bytes(32) and not row.salt and not row.some_personal
                if gone and not any(first <= seq <= last for first, last in spans):
                    chain.found("personal_missing", seq, "no proved audit_log.erased names the record")


def predecessors(text: str) -> Iterator[tuple[str, int, bytes]]:
    listed = from_json(text)
    for item in listed if isinstance(listed, list) else [None]:
        if not isinstance(item, dict) or item.keys() != {"chain_id", "size", "root"}:
            raise Malformed("not a list of objects of chain_id, size and root")
        chain_id, size, root = item["chain_id"], item["size"], item["root"]
        texts = f"{chain_id} {root}" if isinstance(chain_id, str) and isinstance(root, str) else ""
        if (
            not re.fullmatch(f"{UUID} [0-9a-f]{{64}}", texts)
            or type(size) is not int
            or not 0 <= size < 2**64
        ):
            raise Malformed("a chain_id, size or root does not have its form")
        yield chain_id, size, bytes.fromhex(root)


def seqs(text: str) -> Iterator[tuple[int, int]]:
    listed = from_json(text)
    for item in listed if isinstance(listed, list) else [None]:
        ends: list[Any] = item if isinstance(item, list) else [item, item]
        if len(ends) != 2 or not all(type(end) is int for end in ends):
            raise Malformed("not a list of seqs")
        yield ends[0], ends[1]


def verify(
    records: Iterable[dict[str, Any]], checkpoint_lines: Iterable[str] | None, keys: list[str]
) -> list[Finding]:
    """What is wrong with an export, and what is worth knowing of it (kinds of `INFORMATION`).

    Each of `checkpoint_lines` is taken for a whole line, with its newline or without.
    """
    try:
        log = Log([parse_vkey(key) for key in keys])
    except Malformed as error:
        raise CannotVerify(f"a pinned key cannot be read: {error}") from None
    if not log.pinned:
        raise CannotVerify("no key is pinned")
    log.read(records)
    for chain in log.chains.values():
        chain.check(log.pinned)
    for number, line in enumerate(checkpoint_lines or [], 1):
        log.check_line(number, line)
    if checkpoint_lines is None:
        log.findings.say(
            "no_checkpoint_log", None, None, "cut tails, dropped chains and resigned suffixes cannot be known"
        )
    for chain in log.chains.values():
        if chain.start is not None:
            log.check_predecessors(chain, chain.start)
    log.check_erased(log.trusted())
    if not log.chains and not any(finding.kind == "chain_missing" for finding in log.findings.values()):
        raise CannotVerify("the export has no record that can be read")
    return list(log.findings.values())


def split(path: Path) -> list[str]:
    # Not splitlines: U+2028 and its like end no line. Bytes that are not UTF-8 become surrogates, so they are found.
    return path.read_bytes().decode("utf-8", "surrogateescape").split("\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an exported Spanseal log.")
    parser.add_argument("--records", required=True, type=Path, metavar="EXPORT.jsonl")
    parser.add_argument("--checkpoints", type=Path, metavar="CHECKPOINTS.jsonl")
    parser.add_argument("--key", required=True, action="append", metavar="VKEY")
    options = parser.parse_args(arguments)
    try:
        lines = split(options.records)
        # The last line of the checkpoint log was never whole without its newline.
        checkpoints = None if options.checkpoints is None else split(options.checkpoints)[:-1]
        findings = verify(map(from_json, lines if lines[-1] else lines[:-1]), checkpoints, options.key)
    except (CannotVerify, OSError) as error:
        sys.stderr.write(f"COULD NOT VERIFY {error}\n")
        return 2
    for kind, chain_id, seq, message in findings:
        sys.stdout.write(f"{kind} {chain_id or '-'} {'-' if seq is None else seq} {message}\n")
    bad = sum(finding.kind not in INFORMATION for finding in findings)
    sys.stdout.write(f"TAMPERED {bad}\n" if bad else "CLEAN\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
