"""A single record that travels with its proof: C2SP tlog-proof text (c2sp.org/tlog-proof)."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.errors import CheckpointError, ProofError
from spanseal_ledger.note import MAX_NOTE_CHARACTERS, VerificationKey, decode_base64, open_note
from spanseal_ledger.personal import SALT_BYTES, commitment
from spanseal_ledger.reader import Reader, read_canonical
from spanseal_ledger.record import MAX_RECORD_BYTES, Record, canonical, encode_map, encode_text, record_hash
from spanseal_ledger.tree import verify_inclusion

__all__ = ["ProvedRecord", "encode_proof", "verify_proof"]

_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,19})", re.ASCII).fullmatch
_MAX_PATH = 64
_MAX_PERSONAL_BYTES = 160 * 1024 * 1024
_MAX_CHARACTERS = MAX_NOTE_CHARACTERS + 2 * (MAX_RECORD_BYTES + _MAX_PERSONAL_BYTES)


@dataclass(frozen=True, slots=True)
class ProvedRecord:
    """What a proof was found to prove."""

    record: Record
    """The record; without its personal data where the proof carries none."""
    prev_hash: bytes
    checkpoint: Checkpoint
    """The tree that it is in."""
    signers: tuple[VerificationKey, ...]
    """The trusted keys that signed for the tree."""


def encode_proof(record: Record, prev_hash: bytes, path: Sequence[bytes], checkpoint: str) -> str:
    """Write a record with its inclusion proof as tlog-proof text.

    Args:
        record: the record. Its personal data goes along where it has its salt.
        prev_hash: 32 bytes, the hash of the record before it in its chain.
        path: its inclusion proof in the checkpoint's tree.
        checkpoint: the signed checkpoint.

    """
    raw = canonical(record)
    extra = [prev_hash, struct.pack("<I", len(raw)), raw]
    if record.personal_salt:
        extra += [
            record.personal_salt,
            encode_text(record.actor_email),
            encode_text(record.actor_ip),
            encode_map(record.personal),
        ]
    lines = [
        _HEADER,
        f"extra {base64.b64encode(b''.join(extra)).decode()}",
        f"index {record.seq}",
        *(base64.b64encode(node).decode() for node in path),
    ]
    return "\n".join(lines) + "\n\n" + checkpoint


def verify_proof(text: str, keys: Collection[VerificationKey]) -> ProvedRecord:
    """Verify a record's proof.

    The record's hash is recomputed from its bytes and led to the root of a checkpoint that a trusted key signed;
    its seq must be the proof's index, its chain the checkpoint's, its personal data what it is committed to.

    Args:
        text: the tlog-proof.
        keys: the keys that are trusted.

    Raises:
        ProofError: the text is malformed, or does not prove that the record is in the tree.
        NoteError: the checkpoint is not signed by a trusted key.

    """
    if len(text) > _MAX_CHARACTERS:
        raise ProofError(f"a proof of {len(text)} characters; the limit is {_MAX_CHARACTERS}")
    head, _, note = text.partition("\n\n")
    extra, index, path = _head(head.split("\n"))
    signed, signers = open_note(note, keys)
    try:
        checkpoint = Checkpoint.parse(signed)
        chain_id, log_name = checkpoint.chain_id, checkpoint.log_name
    except CheckpointError as error:
        raise ProofError(f"the proof's checkpoint: {error}") from None
    if not any(key.name.startswith(log_name + "/") for key in signers):
        raise ProofError(f"no key of the log {log_name!a} signed the checkpoint")
    prev_hash, raw, record = _extra(extra)
    if record.seq != index or record.chain_id != chain_id:
        raise ProofError(
            f"the record is number {record.seq} of chain {record.chain_id}, "
            f"the proof is for number {index} of chain {chain_id}"
        )
    verify_inclusion(record_hash(raw, prev_hash), index, checkpoint.size, path, checkpoint.root)
    return ProvedRecord(record, prev_hash, checkpoint, tuple(signers))


def _head(lines: list[str]) -> tuple[bytes, int, list[bytes]]:
    if len(lines) < 3 or lines[0] != _HEADER or not lines[1].startswith("extra "):
        raise ProofError(f"a proof begins with the lines {_HEADER}, extra and index")
    index = _INDEX(lines[2])
    if index is None or len(lines) > 3 + _MAX_PATH:
        raise ProofError("a proof's third line is its index, and at most 64 hashes follow")
    try:
        extra = decode_base64(lines[1].removeprefix("extra "))
        path = [decode_base64(line) for line in lines[3:]]
    except ValueError:
        raise ProofError("a line of the proof is not base64") from None
    if any(len(node) != 32 for node in path):
        raise ProofError("a hash of the proof is not 32 bytes long")
    return extra, int(index[1]), path


def _extra(extra: bytes) -> tuple[bytes, bytes, Record]:
    reader = Reader(extra)
    prev_hash = reader.take(32)
    raw = reader.take(reader.u32())
    fields = read_canonical(raw)
    if not reader.at_end():
        salt = reader.take(SALT_BYTES)
        fields |= {
            "personal_salt": salt,
            "actor_email": reader.text(),
            "actor_ip": reader.text(),
            "personal": reader.map(),
        }
        if not reader.at_end():
            raise ProofError("the proof's extra data goes on after the personal data")
    record = Record(**fields)
    personal = (record.actor_email, record.actor_ip, record.personal)
    if record.personal_salt and (
        not any(personal) or commitment(record.personal_salt, *personal) != record.personal_commitment
    ):
        raise ProofError("the personal data is not what the record is committed to")
    return prev_hash, raw, record
