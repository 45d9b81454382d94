"""The Merkle tree over a chain's record hashes (RFC 6962, section 2.1).

Entries are 32-byte record hashes. A leaf is SHA-256(0x00 || entry), a node SHA-256(0x01 || left || right).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from struct import Struct

from spanseal_ledger.errors import ProofError

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "consistency_proof",
    "consistency_ranges",
    "inclusion_proof",
    "inclusion_ranges",
    "leaf_hash",
    "node_hash",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without entries."""

_sha256 = hashlib.sha256
_size_bytes = Struct("<Q")


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf of an entry, 32 bytes."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the node over two subtrees, 32 bytes."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first.

    All that is needed to append entries and to know the root, in O(log size) memory.
    """

    __slots__ = ("_hashes", "size")

    size: int
    """Number of entries."""

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    def append(self, entry: bytes) -> None:
        """Append an entry (a 32-byte record hash)."""
        node = _sha256(b"\x00" + entry).digest()
        hashes = self._hashes
        size = self.size
        self.size = size + 1
        while size & 1:
            node = _sha256(b"\x01" + hashes.pop() + node).digest()
            size >>= 1
        hashes.append(node)

    def append_subtree(self, level: int, root: bytes) -> None:
        """Append 2**level entries of which only the subtree's root is known.

        Args:
            level: height of the subtree; 0 is a leaf *hash*.
            root: 32 bytes.

        Raises:
            ValueError: the size so far is no multiple of 2**level, so the subtree has no place here.

        """
        if level < 0 or self.size & ((1 << level) - 1):
            raise ValueError(f"a subtree of level {level} cannot stand at position {self.size}")
        hashes = self._hashes
        above = self.size >> level
        self.size += 1 << level
        node = root
        while above & 1:
            node = _sha256(b"\x01" + hashes.pop() + node).digest()
            above >>= 1
        hashes.append(node)

    def root(self) -> bytes:
        """Return the root of the tree over all entries so far, 32 bytes."""
        if not self._hashes:
            return EMPTY_ROOT
        node = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            node = _sha256(b"\x01" + left + node).digest()
        return node

    def copy(self) -> Frontier:
        """Return an independent copy."""
        other = Frontier()
        other.size = self.size
        other._hashes = self._hashes.copy()
        return other

    def to_bytes(self) -> bytes:
        """Return the frontier as bytes: the size as u64 (little-endian), then the hashes, largest first."""
        return _size_bytes.pack(self.size) + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: the length does not fit the size it begins with.

        """
        if len(data) < _size_bytes.size:
            raise ValueError("a frontier has at least 8 bytes")
        frontier = cls()
        frontier.size = _size_bytes.unpack_from(data)[0]
        hashes = data[_size_bytes.size :]
        if len(hashes) != 32 * frontier.size.bit_count():
            raise ValueError(
                f"a frontier of {frontier.size} entries cannot have {len(hashes)} bytes of hashes"
            )
        frontier._hashes = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
        return frontier


def tree_root(entries: Iterable[bytes]) -> bytes:
    """Return the root of the tree over entries, 32 bytes."""
    frontier = Frontier()
    for entry in entries:
        frontier.append(entry)
    return frontier.root()


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return which subtrees prove that an entry is in a tree, as ranges of entries, leaf's sibling first.

    Each range is (first, end), end excluded; its root is one hash of the proof (RFC 6962, section 2.1.1).

    Raises:
        ProofError: the index is not in a tree of that size.

    """
    if not 0 <= index < size:
        raise ProofError(f"entry {index} is not in a tree of {size} entries")
    first, end = 0, size
    ranges = []
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    ranges.reverse()
    return ranges


def consistency_ranges(old_size: int, size: int) -> list[tuple[int, int]]:
    """Return which subtrees prove that a tree is a prefix of another (RFC 6962, section 2.1.2).

    Raises:
        ProofError: the old tree is larger than the new one, or a size is negative.

    """
    if not 0 <= old_size <= size:
        raise ProofError(f"a tree of {old_size} entries is no prefix of one of {size}")
    if old_size in (0, size):
        return []
    first, end = 0, size
    whole = True  # whether the old tree is complete so far: then its root is known to the verifier
    ranges = []
    while old_size != end:
        middle = first + _split(end - first)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
            whole = False
    if not whole:
        ranges.append((first, end))
    ranges.reverse()
    return ranges


def inclusion_proof(entries: Sequence[bytes], index: int, size: int | None = None) -> list[bytes]:
    """Prove that an entry is in the tree over the first `size` entries (all where not given).

    Returns:
        Hashes of 32 bytes, from the leaf's sibling upwards.

    Raises:
        ProofError: the index is not in that tree, or there are fewer entries.

    """
    size = _within(entries, size)
    return _roots(entries, inclusion_ranges(index, size))


def consistency_proof(entries: Sequence[bytes], old_size: int, size: int | None = None) -> list[bytes]:
    """Prove that the tree over the first `old_size` entries is a prefix of the one over the first `size`.

    Raises:
        ProofError: it is not, or there are fewer entries.

    """
    size = _within(entries, size)
    return _roots(entries, consistency_ranges(old_size, size))


def verify_inclusion(entry: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof (RFC 9162, section 2.1.3.2).

    Args:
        entry: 32 bytes, the record hash.
        index: its position (seq).
        size: number of entries of the tree.
        path: the proof.
        root: the tree's root, from a checkpoint.

    Raises:
        ProofError: the proof does not lead from the entry to the root.

    """
    if not 0 <= index < size:
        raise ProofError(f"entry {index} is not in a tree of {size} entries")
    position, last = index, size - 1
    node = leaf_hash(entry)
    for sibling in path:
        if not last:
            raise ProofError(f"the proof has {len(path)} hashes, more than a tree of {size} entries needs")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise ProofError(f"the proof has {len(path)} hashes, fewer than a tree of {size} entries needs")
    if node != root:
        raise ProofError(f"entry {index} is not in the tree of {size} entries with the root {root.hex()}")


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: the old tree is not shown to be a prefix of the new one.

    """
    if not 0 <= old_size <= size:
        raise ProofError(f"a tree of {old_size} entries is no prefix of one of {size}")
    if old_size in (0, size):
        expected = root if old_size == size else EMPTY_ROOT
        if path or old_root != expected:
            raise ProofError(f"two trees of {old_size} and {size} entries need no proof, but roots that fit")
        return
    hashes = list(path)
    if not old_size & (old_size - 1):
        hashes.insert(0, old_root)
    old, new = _fold_consistency(old_size, size, hashes)
    if old != old_root or new != root:
        raise ProofError(f"the tree of {size} entries does not begin with the given one of {old_size}")


def _fold_consistency(old_size: int, size: int, hashes: list[bytes]) -> tuple[bytes, bytes]:
    position, last = old_size - 1, size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    wrong = ProofError(f"the proof has not as many hashes as the sizes {old_size} and {size} need")
    if not hashes:
        raise wrong
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if not last:
            raise wrong
        if position & 1 or position == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise wrong
    return old, new


def _split(size: int) -> int:
    """Return the largest power of two below size."""
    return 1 << ((size - 1).bit_length() - 1)


def _within(entries: Sequence[bytes], size: int | None) -> int:
    if size is None:
        return len(entries)
    if size > len(entries):
        raise ProofError(f"a proof for {size} entries needs all of them, there are {len(entries)}")
    return size


def _roots(entries: Sequence[bytes], ranges: list[tuple[int, int]]) -> list[bytes]:
    root: Callable[[Iterable[bytes]], bytes] = tree_root
    return [root(entries[first:end]) for first, end in ranges]
