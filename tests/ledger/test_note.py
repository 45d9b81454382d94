"""Signed notes: what is signed can be opened, and nothing else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal_ledger.checkpoint import Checkpoint, check_log_name, origin, sign_checkpoint
from spanseal_ledger.errors import (
    BadSignature,
    CheckpointError,
    KeyFormatError,
    MalformedNote,
    NoteError,
    NoTrustedSignature,
)
from spanseal_ledger.note import MAX_SIGNATURES, SigningKey, VerificationKey, note_text, open_note

KEY = SigningKey.from_seed("log.example/a", bytes(32))
OTHER = SigningKey.from_seed("log.example/b", bytes([1]) * 32)
TEXT = "line one\n\nline three\n"
NOTE = KEY.sign(TEXT)
LINE = NOTE.rsplit("\n\n", 1)[1]


def with_lines(*lines: str) -> str:
    return TEXT + "\n" + "".join(lines)


def spell(name: str, raw: bytes) -> str:
    return f"— {name} {base64.b64encode(raw).decode()}\n"


def test_round_trip() -> None:
    assert open_note(NOTE, [OTHER.vkey, KEY.vkey]) == (TEXT, [KEY.vkey])
    assert note_text(NOTE) == TEXT


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(lambda text: text + "\n"))
def test_any_text(text: str) -> None:
    assert open_note(KEY.sign(text), [KEY.vkey]) == (text, [KEY.vkey])


def test_generated_keys_differ_and_work() -> None:
    first, second = SigningKey.generate("a"), SigningKey.generate("a")
    assert first.vkey != second.vkey
    assert open_note(first.sign(TEXT), [first.vkey, second.vkey])[1] == [first.vkey]


def test_unknown_keys_are_passed_over() -> None:
    strange = [spell(f"witness.example/{n}", bytes([n]) * 5000) for n in range(MAX_SIGNATURES - 1)]
    assert open_note(with_lines(*strange[:15], LINE), [KEY.vkey])[1] == [KEY.vkey]
    with pytest.raises(NoTrustedSignature):
        open_note(with_lines(*strange[:16]), [KEY.vkey])


def test_a_known_name_with_another_id_is_unknown() -> None:
    with pytest.raises(NoTrustedSignature):
        open_note(with_lines(spell(KEY.name, bytes(68))), [KEY.vkey])


def test_several_signers_and_one_twice() -> None:
    other = OTHER.sign(TEXT).rsplit("\n\n", 1)[1]
    assert open_note(with_lines(other, LINE, LINE), [KEY.vkey, OTHER.vkey])[1] == [OTHER.vkey, KEY.vkey]


def test_one_bad_signature_of_a_trusted_key_spoils_the_note() -> None:
    bad = spell(KEY.name, KEY.key_id + bytes(64))
    for lines in ((bad,), (bad, LINE), (LINE, bad), (spell(KEY.name, KEY.key_id + b"x"), LINE)):
        with pytest.raises(BadSignature):
            open_note(with_lines(*lines), [KEY.vkey])


def test_a_changed_text_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        open_note(NOTE.replace("one", "two"), [KEY.vkey])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        TEXT + "\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n\n—", "\n—"),
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—"),
        with_lines(LINE, "x\n"),
        with_lines(LINE.replace("\n", " \n")),
        with_lines(LINE.replace("=", "")),
        with_lines(f"— {KEY.name}  {LINE.split(' ')[2]}"),
        with_lines(f"— {KEY.name}\u00a0x {LINE.split(' ')[2]}"),
        with_lines(f"— a+b {LINE.split(' ')[2]}"),
        with_lines(f"—  {LINE.split(' ')[2]}"),
        with_lines(LINE, spell("a", b"1234")),
        NOTE.replace("one", "o\x00e"),
        NOTE.replace("one", "o\re"),
        NOTE.replace("one", "o\te"),
        NOTE.replace("one", "o\udcffe"),
        with_lines(LINE, *[spell("a", bytes(8))] * MAX_SIGNATURES),
        "x" * 300_000 + "\n\n" + LINE,
        # The last bits of base64 that mean nothing may not be anything: there is one spelling.
        with_lines(LINE, "— a YWJjZGVmZ2h=\n"),
        with_lines(LINE, "— a YWJj ZGVm\n"),
        with_lines(LINE, "— a YWJj-_==\n"),
    ],
)
def test_malformed_notes(note: str) -> None:
    with pytest.raises(MalformedNote):
        open_note(note, [KEY.vkey])


@given(st.integers(0, len(NOTE) - 1), st.characters())
def test_a_note_with_one_character_changed(at: int, character: str) -> None:
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    if changed == NOTE:
        return
    with pytest.raises(NoteError):
        open_note(changed, [KEY.vkey])


@given(st.text())
def test_any_text_as_a_note(text: str) -> None:
    with pytest.raises(NoteError):
        open_note(text, [KEY.vkey])


@pytest.mark.parametrize("text", ["no newline", "", "a\x07b\n", "\udcff\n"])
def test_texts_that_cannot_be_signed(text: str) -> None:
    with pytest.raises(MalformedNote):
        KEY.sign(text)


VKEY = str(KEY.vkey)


def test_vkeys() -> None:
    parsed = VerificationKey.parse(VKEY)
    assert parsed == KEY.vkey
    assert hash(parsed) == hash(KEY.vkey)
    assert str(parsed) == VKEY
    assert parsed.name == KEY.name
    assert parsed.key_id == KEY.key_id


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "a+b",
        "a+b+c",
        VKEY.replace("log", "lag"),
        VKEY.replace("log", ""),
        VKEY.replace("/", " "),
        VKEY[:-1],
        VKEY + "=",
        VKEY.upper(),
        "+".join((KEY.name, KEY.key_id.hex(), base64.b64encode(b"\x02" + KEY.vkey.public).decode())),
        "+".join((KEY.name, KEY.key_id.hex().upper(), VKEY.split("+", 2)[2])),
        "+".join(("", KEY.key_id.hex(), VKEY.split("+", 2)[2])),
        "+".join((KEY.name, KEY.key_id.hex(), base64.b64encode(b"\x01" + bytes(31)).decode())),
        "é+00000000+AQ==",
        "a+00000000+é",
    ],
)
def test_malformed_vkeys(vkey: str) -> None:
    with pytest.raises(KeyFormatError):
        VerificationKey.parse(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x01", "\udcff"])
def test_names_that_keys_cannot_have(name: str) -> None:
    with pytest.raises(KeyFormatError):
        SigningKey.from_seed(name, bytes(32))
    with pytest.raises(CheckpointError):
        check_log_name(name)


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_seeds_of_a_wrong_length(seed: bytes) -> None:
    with pytest.raises(KeyFormatError):
        SigningKey.from_seed("a", seed)


@pytest.mark.parametrize("name", ["https://a", "/a", "a/"])
def test_names_that_logs_cannot_have(name: str) -> None:
    check_log_name("audit.example.org/prod")
    with pytest.raises(CheckpointError):
        check_log_name(name)


# Checkpoints.

CHAIN = "0192f000-0000-7000-8000-000000000000"
CHECKPOINT = Checkpoint(origin("log.example", CHAIN), 7, bytes(range(32)))
ROOT = base64.b64encode(bytes(32)).decode()


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_checkpoints_round_trip(name: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(name, size, root)
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"a\n1\n{ROOT}",
        f"a\n1\n{ROOT}\next\n",
        f"a\n1\n{ROOT}\n\n",
        f"\n1\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n1_0\n{ROOT}\n",
        f"a\n\u0661\n{ROOT}\n",
        f"a\n{2**64}\n{ROOT}\n",
        f"a\n{'9' * 5000}\n{ROOT}\n",
        f"a\n\n{ROOT}\n",
        f"a\n1\n{ROOT[:-4]}\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT[:-2]}B=\n",
        f"a\n1\n{ROOT} \n",
        f"a\n1\r\n{ROOT}\n",
    ],
)
def test_malformed_checkpoints(text: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.parse(text)


def test_origins() -> None:
    assert CHECKPOINT.chain_id == CHAIN
    assert CHECKPOINT.log_name == "log.example"
    for name in (
        "log.example",
        "log.example/chain/x",
        f"log.example/chain/{CHAIN.upper()}",
        f"/chain/{CHAIN}",
    ):
        with pytest.raises(CheckpointError):
            _ = Checkpoint(name, 1, bytes(32)).chain_id


def test_a_signed_checkpoint_opens() -> None:
    note = sign_checkpoint(KEY, "log.example", CHAIN, 7, bytes(range(32)))
    text, signers = open_note(note, [KEY.vkey])
    assert Checkpoint.parse(text) == CHECKPOINT
    assert signers == [KEY.vkey]
