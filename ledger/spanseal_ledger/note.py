"""C2SP signed notes (c2sp.org/signed-note) and their Ed25519 keys.

A note is a text, an empty line, and signature lines: em dash, space, key name, space, base64 of the key id
(4 bytes) and the signature. What is read may come from an enemy: sizes are bounded, and nothing that has a
second spelling is accepted in it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spanseal_ledger.errors import BadSignature, KeyFormatError, MalformedNote, NoTrustedSignature

__all__ = [
    "MAX_NOTE_CHARACTERS",
    "MAX_SIGNATURES",
    "SigningKey",
    "VerificationKey",
    "check_name",
    "decode_base64",
    "note_text",
    "open_note",
]

MAX_NOTE_CHARACTERS = 256 * 1024
"""A longer note is refused unread. Sixteen post-quantum signatures fit."""

MAX_SIGNATURES = 64
"""A note with more signature lines is refused; at least 16 must be accepted."""

_ED25519 = b"\x01"
_DASH = "— "
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f]").search


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """An Ed25519 verification key with its name. Equal keys are equal by value."""

    name: str
    public: bytes
    """32 bytes (RFC 8032)."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != 32:
            raise KeyFormatError(f"an Ed25519 public key has 32 bytes, this one {len(self.public)}")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read the C2SP vkey form: ``<name>+<8 hex digits of the key id>+<base64 of 0x01 and the key>``.

        Raises:
            KeyFormatError: it is malformed, of another type than Ed25519, or its id is not its own.

        """
        try:
            name, key_id, encoded = vkey.split("+", 2)
            raw = decode_base64(encoded)
        except ValueError:
            raise KeyFormatError(f"{_shown(vkey)} is not of the form <name>+<key id>+<base64>") from None
        if raw[:1] != _ED25519 or len(raw) != 33:
            raise KeyFormatError(f"{_shown(vkey)} is not an Ed25519 key")
        key = cls(name, raw[1:])
        if key.key_id.hex() != key_id:
            raise KeyFormatError(
                f"the key id of {_shown(vkey)} should be {key.key_id.hex()}: name or key were damaged"
            )
        return key

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which a signature line names the key."""
        return _key_id(self.name, self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def verifies(self, signature: bytes, text: str) -> bool:
        """Tell whether a 64-byte signature over the text's UTF-8 is this key's."""
        try:
            _loaded(self.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """An Ed25519 signing key with its name."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """Take a private key; `generate` and `from_seed` make one.

        Raises:
            KeyFormatError: the name is empty or holds a space, a plus sign or a control character.

        """
        self._private = private
        self.vkey = VerificationKey(name, private.public_key().public_bytes_raw())
        self._prefix = f"{_DASH}{name} "

    @classmethod
    def generate(cls, name: str) -> Self:
        """Make a new key from the system's random source.

        Raises:
            KeyFormatError: the name is malformed.

        """
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Self:
        """Make the key of a seed (32 bytes, the private key of RFC 8032).

        Raises:
            KeyFormatError: the name is malformed, or the seed is not 32 bytes.

        """
        if len(seed) != 32:
            raise KeyFormatError(f"an Ed25519 seed has 32 bytes, this one {len(seed)}")
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def name(self) -> str:
        """The key's name."""
        return self.vkey.name

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which a signature line names the key."""
        return self.vkey.key_id

    def sign(self, text: str) -> str:
        """Sign a text that ends in a newline.

        Returns:
            The whole note: text, empty line, one signature line.

        Raises:
            MalformedNote: the text cannot be a note's.

        """
        raw = _check_text(text)
        signature = base64.b64encode(self.vkey.key_id + self._private.sign(raw)).decode()
        return f"{text}\n{self._prefix}{signature}\n"


def note_text(note: str) -> str:
    """Return a note's text, with its final newline, without looking at any signature: not to be believed.

    Raises:
        MalformedNote: it is not a signed note.

    """
    return _split(note)[0]


def open_note(note: str, keys: Collection[VerificationKey]) -> tuple[str, list[VerificationKey]]:
    """Verify a note.

    Signature lines of keys that are not given are passed over. Every line of a given key must verify.

    Args:
        note: the whole note.
        keys: the keys that are trusted.

    Returns:
        The text with its final newline, and those of the keys that signed it, each once, in the note's order.

    Raises:
        MalformedNote: it is not a signed note.
        NoTrustedSignature: none of the keys signed it.
        BadSignature: a line names one of the keys and is not its signature.

    """
    text, lines = _split(note)
    trusted = {(key.name, key.key_id): key for key in keys}
    signers: dict[VerificationKey, None] = {}
    names = []
    for line in lines:
        name, raw = _signature(line)
        names.append(name)
        key = trusted.get((name, raw[:4]))
        if key is None:
            continue
        if not key.verifies(raw[4:], text):
            raise BadSignature(f"the signature of {_shown(name)} (key id {raw[:4].hex()}) does not verify")
        signers[key] = None
    if not signers:
        raise NoTrustedSignature(
            f"signed by no trusted key, only by {', '.join(_shown(name) for name in names[:4])}"
        )
    return text, list(signers)


def check_name(name: str) -> None:
    """Check a key's name.

    Raises:
        KeyFormatError: it is empty or holds a Unicode space, a plus sign, a control character or a surrogate.

    """
    if not name or "+" in name or any(c.isspace() or c < " " for c in name) or not _encodable(name):
        raise KeyFormatError(f"{_shown(name)} cannot be a key's name: no spaces, plus signs or controls")


def decode_base64(text: str) -> bytes:
    """Decode standard padded base64 in its one canonical spelling.

    Raises:
        ValueError: it is anything else (binascii.Error is one).

    """
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise binascii.Error("not canonical base64")
    return raw


def _split(note: str) -> tuple[str, list[str]]:
    if len(note) > MAX_NOTE_CHARACTERS:
        raise MalformedNote(f"a note of {len(note)} characters; the limit is {MAX_NOTE_CHARACTERS}")
    end = note.rfind("\n\n")
    if end < 0 or not note.endswith("\n") or end + 2 >= len(note):
        raise MalformedNote("not a signed note: a text, an empty line and signature lines are expected")
    text = note[: end + 1]
    _check_text(text)
    _check_text(note[end + 2 :])
    lines = note[end + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"a note with {len(lines)} signature lines; the limit is {MAX_SIGNATURES}")
    return text, lines


def _check_text(text: str) -> bytes:
    if not text.endswith("\n") or _CONTROLS(text):
        raise MalformedNote("a note's text must end in a newline and hold no other control characters")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MalformedNote("a note must be well-formed text") from None


def _signature(line: str) -> tuple[str, bytes]:
    if not line.startswith(_DASH):
        raise MalformedNote(f"not a signature line: {_shown(line)}")
    name, _, encoded = line[len(_DASH) :].partition(" ")
    try:
        check_name(name)
        raw = decode_base64(encoded)
    except (ValueError, KeyFormatError):
        raise MalformedNote(f"not a signature line: {_shown(line)}") from None
    if len(raw) < 5:
        raise MalformedNote(f"a signature line without signature: {_shown(line)}")
    return name, raw


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 120 else text[:120] + "...")


@functools.lru_cache(maxsize=1024)
def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


@functools.lru_cache(maxsize=1024)
def _loaded(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)
