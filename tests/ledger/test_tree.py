"""The tree, against the recursive definition of RFC 6962 written out plainly."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseal_ledger.errors import ProofError
from spanseal_ledger.tree import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def naive_root(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"")
    if len(d) == 1:
        return sha256(b"\x00" + d[0])
    k = split(len(d))
    return sha256(b"\x01" + naive_root(d[:k]) + naive_root(d[k:]))


def naive_path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*naive_path(m, d[:k]), naive_root(d[k:])]
    return [*naive_path(m - k, d[k:]), naive_root(d[:k])]


def naive_subproof(m: int, d: list[bytes], *, whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [naive_root(d)]
    k = split(len(d))
    if m <= k:
        return [*naive_subproof(m, d[:k], whole=whole), naive_root(d[k:])]
    return [*naive_subproof(m - k, d[k:], whole=False), naive_root(d[:k])]


def entries_of(size: int) -> list[bytes]:
    return [sha256(b"%d" % n) for n in range(size)]


sizes = st.integers(0, 70)


@given(sizes)
def test_root(size: int) -> None:
    entries = entries_of(size)
    assert tree_root(entries) == naive_root(entries)


def test_the_root_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == sha256(b"")


@given(st.data())
def test_inclusion(data: st.DataObject) -> None:
    entries = entries_of(data.draw(st.integers(1, 70)))
    size = data.draw(st.integers(1, len(entries)))
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(entries, index, size)
    assert path == naive_path(index, entries[:size])
    root = naive_root(entries[:size])
    verify_inclusion(entries[index], index, size, path, root)
    other = data.draw(st.integers(-1, size).filter(lambda n: n != index))
    at = data.draw(st.integers(0, len(path) - 1)) if path else 0
    wrong: dict[str, tuple[bytes, int, int, list[bytes], bytes]] = {
        "entry": (sha256(b"other"), index, size, path, root),
        "index": (entries[index], other, size, path, root),
        # A proof speaks of one size only where the shape of its path differs; the root always does.
        "size": (entries[index], index, size + 1, path, naive_root(entries_of(size + 1))),
        "root": (entries[index], index, size, path, bytes(32)),
        "short": (entries[index], index, size, path[:-1] or [bytes(32)], root),
        "long": (entries[index], index, size, [*path, bytes(32)], root),
        "hash": (entries[index], index, size, [*path[:at], bytes(32), *path[at + 1 :]], root),
    }
    spoilt = data.draw(st.sampled_from(sorted(wrong)))
    with pytest.raises(ProofError):
        verify_inclusion(*wrong[spoilt])


@given(st.data())
def test_consistency(data: st.DataObject) -> None:
    entries = entries_of(data.draw(st.integers(1, 70)))
    size = data.draw(st.integers(1, len(entries)))
    old = data.draw(st.integers(0, size))
    path = consistency_proof(entries, old, size)
    if old:
        assert path == naive_subproof(old, entries[:size], whole=True)
    roots = naive_root(entries[:old]), naive_root(entries[:size])
    verify_consistency(old, roots[0], size, roots[1], path)
    wrong: dict[str, tuple[int, bytes, int, bytes, list[bytes]]] = {
        "old": (old, bytes(32), size, roots[1], path),
        "short": (old, roots[0], size, roots[1], path[:-1] if path else [bytes(32)]),
        "long": (old, roots[0], size, roots[1], [*path, bytes(32)]),
        "order": (size + 1, roots[0], size, roots[1], path),
    }
    if old:  # of an empty tree every other one is a continuation
        wrong["new"] = (old, roots[0], size, bytes(32), path)
    spoilt = data.draw(st.sampled_from(sorted(wrong)))
    with pytest.raises(ProofError):
        verify_consistency(*wrong[spoilt])


@given(sizes, st.data())
def test_a_frontier_grown_by_subtrees(size: int, data: st.DataObject) -> None:
    entries = entries_of(size)
    frontier = Frontier()
    while frontier.size < size:
        at = frontier.size
        levels = [level for level in range(7) if at % (1 << level) == 0 and at + (1 << level) <= size]
        level = data.draw(st.sampled_from(levels))
        if level == 0 and data.draw(st.booleans()):
            frontier.append(entries[at])
        else:
            frontier.append_subtree(
                level, naive_root(entries[at : at + (1 << level)]) if level else leaf_hash(entries[at])
            )
        frontier = Frontier.from_bytes(frontier.to_bytes())
        assert frontier.root() == naive_root(entries[: frontier.size])


def test_a_copy_is_independent() -> None:
    frontier = Frontier()
    for entry in entries_of(5):
        frontier.append(entry)
    copy = frontier.copy()
    copy.append(bytes(32))
    assert frontier.root() == naive_root(entries_of(5))
    assert copy.root() == naive_root([*entries_of(5), bytes(32)])


def test_misplaced_subtrees_are_refused() -> None:
    frontier = Frontier()
    frontier.append(bytes(32))
    for level in (1, -1):
        with pytest.raises(ValueError, match="cannot stand"):
            frontier.append_subtree(level, bytes(32))
    assert frontier.size == 1


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(8) + bytes(32), b"\x03" + bytes(7) + bytes(32)])
def test_frontiers_that_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier.from_bytes(data)


def test_proofs_for_more_than_there_is() -> None:
    with pytest.raises(ProofError):
        inclusion_proof(entries_of(3), 3)
    with pytest.raises(ProofError):
        inclusion_proof(entries_of(3), 0, 4)
    with pytest.raises(ProofError):
        consistency_proof(entries_of(3), 2, 4)
    with pytest.raises(ProofError):
        consistency_proof(entries_of(3), 4, 3)
