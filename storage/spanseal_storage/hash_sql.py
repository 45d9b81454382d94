"""The hash of a record as ClickHouse SQL, made from the format's own list of fields (docs/format.md).

It reads maps in the order in which they are stored, which is that of the format for every row a collector
wrote. A row whose map is stored in another order does not match here, and is then judged by the verifier
itself, row by row: this SQL only ever says that rows are clean, never that they are not.
"""

from __future__ import annotations

from spanseal_ledger.record import FIELDS

__all__ = ["ROW_IS_CLEAN", "TREE_OF_256"]

# In the order of the canonical record, as the format lists them.
_INTEGERS = FIELDS[1:6]
_TEXTS = FIELDS[6 : FIELDS.index("personal_commitment")]


def _u32(number: str) -> str:
    return f"reinterpretAsFixedString(toUInt32({number}))"


def _str(text: str) -> str:
    return f"{_u32(f'length({text})')}, {text}"


def _integer(name: str) -> str:
    value = f"toUnixTimestamp64Nano({name})" if name in ("received_at", "event_time") else name
    return f"reinterpretAsFixedString({value})"


def _map(name: str) -> str:
    pairs = f"arrayMap((k, v) -> concat({_str('k')}, {_str('v')}), mapKeys({name}), mapValues({name}))"
    return f"{_u32(f'length({name})')}, arrayStringConcat({pairs})"


_CANONICAL = ", ".join(
    (
        "'SSR1'",
        _str("toString(chain_id)"),
        *(_integer(name) for name in _INTEGERS),
        _str("toString(record_id)"),
        *(_str(name) for name in _TEXTS[1:]),
        "personal_commitment",
        _map("metadata"),
        _str("metadata_types"),
    )
)

_COMMITMENT = (
    f"SHA256(concat('SSP1', personal_salt, {_str('actor_email')}, {_str('actor_ip')}, {_map('personal')}))"
)
_ZERO = "toFixedString('', 32)"

# bitAnd and not AND: what nearly every row passes costs less computed for all of them than cut short for some.
ROW_IS_CLEAN = (
    "bitAnd("
    f"bitAnd(format = 'SSR1', hash = SHA256(concat({_CANONICAL}, prev_hash))), "
    f"bitAnd(personal_commitment = if(length(personal_salt) = 16, {_COMMITMENT}, {_ZERO}), "
    "length(personal_salt) = 16 OR "
    "(personal_salt = '' AND actor_email = '' AND actor_ip = '' AND empty(personal))))"
)
"""True for a row whose hash and commitment are those of its columns. Erased rows are left to the verifier."""


def _tree(hashes: str) -> str:
    left = "arrayFilter((x, i) -> i % 2 = 1, level, arrayEnumerate(level))"
    right = "arrayFilter((x, i) -> i % 2 = 0, level, arrayEnumerate(level))"
    fold = f"(level, i) -> arrayMap((l, r) -> SHA256(concat(char(1), l, r)), {left}, {right})"
    return f"arrayFold({fold}, range(8), arrayMap(x -> SHA256(concat(char(0), x)), {hashes}))[1]"


TREE_OF_256 = _tree(f"arrayResize(hashes, 256, {_ZERO})")
"""Root of the RFC 6962 subtree over 256 hashes in the array `hashes`; meaningless where there are fewer."""
