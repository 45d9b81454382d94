"""What the collector's own records say about their chain and others (format, "Life of a chain")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from spanseal_ledger.verifier._model import Erasure, Predecessor

__all__ = ["erasure", "predecessors"]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII).fullmatch
_ROOT = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch


def predecessors(metadata: Mapping[str, str]) -> tuple[Predecessor, ...]:
    """Read ``audit.chain.predecessors``: a JSON list of objects with chain_id, size and root (hex).

    Raises:
        ValueError: it is something else.

    """
    return tuple(_predecessor(item) for item in _list(metadata.get("audit.chain.predecessors", "")))


def erasure(seq: int, metadata: Mapping[str, str]) -> Erasure:
    """Read what an ``audit_log.erased`` names.

    ``audit.erasure.chain_id`` is the chain, ``audit.erasure.seqs`` a JSON list of seqs, in which ``[a,b]`` stands
    for all from a to b.

    Raises:
        ValueError: it names nothing that can be read.

    """
    chain_id = metadata.get("audit.erasure.chain_id", "")
    if not _UUID(chain_id):
        raise ValueError("audit.erasure.chain_id is not a chain's id")
    items = _list(metadata.get("audit.erasure.seqs", ""))
    return Erasure(seq, chain_id, tuple(_range(item) for item in items))


def _predecessor(item: Any) -> Predecessor:
    if not isinstance(item, dict):
        raise ValueError("not a list of objects")  # noqa: TRY004 - what a record says, not a caller's mistake
    chain_id, size, root = item.get("chain_id"), item.get("size"), item.get("root")
    if not (isinstance(chain_id, str) and _UUID(chain_id)):
        raise ValueError("a chain_id is not a UUID")
    if type(size) is not int or size < 0:
        raise ValueError("a size is not a number")
    if not (isinstance(root, str) and _ROOT(root)):
        raise ValueError("a root is not 64 lower-case hex characters")
    return Predecessor(chain_id, size, bytes.fromhex(root))


def _range(item: Any) -> tuple[int, int]:
    pair = [item, item] if type(item) is int else item
    if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
        raise ValueError("audit.erasure.seqs is not a list of seqs")
    return pair[0], pair[1]


def _list(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, list):
        raise ValueError("not a JSON list")  # noqa: TRY004 - as above
    return value
