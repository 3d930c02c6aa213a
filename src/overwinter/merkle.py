"""The Merkle tree of the audit log: hashes, the right edge for appending, proofs, and the checks of proofs.

RFC 6962 2.1 defines tree and proofs, RFC 9162 2.1.3.2 and 2.1.4.2 how they are checked. A node is named `(level, index)`:
the root of the full subtree over the leaves `index << level` to `(index + 1) << level`, end exclusive; level 0 is a leaf's
hash. A proof reads at most two nodes for each level, whatever the size of the log.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from overwinter.frozen import frozen

__all__ = [
    "EMPTY_ROOT", "HASH_BYTES", "Frontier", "Node", "consistency_proof", "frontier", "inclusion_proof", "is_consistent",
    "is_included", "leaf_hash", "node_hash",
]  # fmt: skip

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
Node = Callable[[int, int], bytes]
"""Returns the hash of the full subtree `(level, index)`."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two neighbours; its prefix tells it from a leaf's, so that no entry passes for a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@frozen
class Frontier:
    """The right edge of a tree: all that a writer needs to append and to know the root."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()
    """Roots of the full subtrees, largest first: one for each bit that is set in `size`."""

    def appended(self, leaves: Iterable[bytes]) -> tuple["Frontier", list[bytes]]:
        """Return the edge after these leaves' hashes, and for each the hashes of the subtrees that it completes.

        Those stand one after the other, from level 1 up; half of all leaves complete none.
        """
        size, edge = self.size, list(self.hashes)
        completed: list[bytes] = []
        for leaf in leaves:
            above, bits, new = leaf, size, b""
            while bits & 1:
                above = node_hash(edge.pop(), above)
                new += above
                bits >>= 1
            edge.append(above)
            completed.append(new)
            size += 1
        return Frontier(size=size, hashes=tuple(edge)), completed

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root


def frontier(size: int, node: Node) -> Frontier:
    """Return the right edge of the first `size` leaves."""
    levels = (level for level in reversed(range(size.bit_length())) if size >> level & 1)
    return Frontier(size=size, hashes=tuple(node(level, (size >> level) - 1) for level in levels))


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Return PATH(index, D[size]): the sibling of each node from the leaf up to the root.

    Source: RFC 6962 2.1.1
    """
    assert 0 <= index < size, f"leaf {index} is not among the first {size}"
    start, end, proof = 0, size, list[bytes]()
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_hash(middle, end, node))
            end = middle
        else:
            proof.append(_range_hash(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old_size: int, size: int, node: Node) -> list[bytes]:
    """Return PROOF(old_size, D[size]): that the tree of the first `old_size` leaves was only appended to.

    It is empty from size 0 and to the same size, as C2SP tlog-witness has it.

    Source: RFC 6962 2.1.2
    """
    assert 0 <= old_size <= size, f"a tree of {size} leaves did not grow from one of {old_size}"
    if old_size == 0:
        return []
    start, end, proof = 0, size, list[bytes]()
    while end > old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_hash(middle, end, node))
            end = middle
        else:
            proof.append(_range_hash(start, middle, node))
            start = middle
    if start > 0:  # else it is the old root itself, which the verifier has
        proof.append(_range_hash(start, end, node))
    return proof[::-1]


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range_hash(start: int, end: int, node: Node) -> bytes:
    """Return the hash of leaves `start` to `end`; `start` is a multiple of the largest power of two in `end - start`."""
    full = list[bytes]()
    while start < end:
        level = (end - start).bit_length() - 1
        full.append(node(level, start >> level))
        start += 1 << level
    root = full.pop()
    while full:
        root = node_hash(full.pop(), root)
    return root


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether a leaf's hash stands at `index` of the tree that has this size and root.

    A proof does not bind the size by itself: take size and root from one verified tree head.

    Source: RFC 9162 2.1.3.2
    """
    if not 0 <= index < size or not _are_hashes(proof):
        return False
    fn, sn, computed = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            computed = node_hash(sibling, computed)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and computed == root


def is_consistent(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `size` leaves only appends to the one of `old_size`.

    Source: RFC 9162 2.1.4.2; sizes 0 and equal by C2SP tlog-witness: the proof must be empty
    """
    if not 0 <= old_size <= size or not _are_hashes(proof):
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    # A tree whose size is a power of two is a node of the new one: its root is left out of the proof.
    nodes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not nodes:
        return False
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_computed = computed = nodes[0]
    for sibling in nodes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old_computed, computed = node_hash(sibling, old_computed), node_hash(sibling, computed)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old_computed == old_root and computed == root


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return all(len(each) == HASH_BYTES for each in proof)
