"""The tree: the same roots and proofs as another's implementation, and nothing but the true proof is accepted."""

from functools import cache

import pymerkle  # pyright: ignore[reportMissingTypeStubs] - it has none
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
)

SIZE_MAX = 70
LEAVES = [leaf_hash(bytes([i])) for i in range(SIZE_MAX)]
HEADS = [(old, size) for size in range(1, SIZE_MAX + 1) for old in range(size + 1)]


@cache
def node(level: int, index: int) -> bytes:
    if level == 0:
        return LEAVES[index]
    return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


@cache
def root(size: int) -> bytes:
    return Frontier().appended(LEAVES[:size])[0].root()


@pytest.fixture(scope="module")
def other() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for i in range(SIZE_MAX):
        tree.append_entry(bytes([i]))
    return tree


def test_the_published_root_of_certificate_transparency_comes_out() -> None:
    entries = [b"", *(bytes.fromhex(each) for each in ("00", "10", "2021", "3031", "40414243"))]
    entries += [bytes(range(0x50, 0x58)), bytes(range(0x60, 0x70))]
    edge, _ = Frontier().appended(map(leaf_hash, entries))
    assert edge.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert root(0) == EMPTY_ROOT


def test_roots_are_those_of_another_implementation(other) -> None:
    for size in range(1, SIZE_MAX + 1):
        assert root(size) == other.get_root(size)


def test_inclusion_proofs_hold_the_hashes_of_another_implementation(other) -> None:
    for size in range(1, SIZE_MAX + 1):
        for index in range(size):  # its indices start at 1, and it also lists the leaf
            theirs = {bytes.fromhex(each) for each in other.prove_inclusion(index + 1, size).serialize()["path"]}
            assert theirs == {LEAVES[index], *inclusion_proof(index, size, node)}


def rfc_subproof(old: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """Return SUBPROOF of RFC 6962 2.1.2, word for word. pymerkle's consistency proofs are of another, longer kind."""
    if old == len(leaves):
        return [] if whole else [Frontier().appended(leaves)[0].root()]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= k:
        return [*rfc_subproof(old, leaves[:k], whole=whole), Frontier().appended(leaves[k:])[0].root()]
    return [*rfc_subproof(old - k, leaves[k:], whole=False), Frontier().appended(leaves[:k])[0].root()]


def test_consistency_proofs_are_those_of_the_rfc() -> None:
    for old, size in HEADS:
        expected = rfc_subproof(old, LEAVES[:size], whole=True) if old else []
        assert consistency_proof(old, size, node) == expected


def test_an_edge_is_the_same_appended_at_once_in_parts_or_read_from_nodes() -> None:
    for size in range(SIZE_MAX + 1):
        whole, _ = Frontier().appended(LEAVES[:size])
        first, _ = Frontier().appended(LEAVES[: size // 3])
        assert first.appended(LEAVES[size // 3 : size])[0] == whole == frontier(size, node)


def test_each_leaf_names_the_subtrees_that_it_completes() -> None:
    _, completed = Frontier().appended(LEAVES)
    for i, new in enumerate(completed):
        levels = ((i + 1) & -(i + 1)).bit_length() - 1
        assert new == b"".join(node(level, i >> level) for level in range(1, levels + 1))


def test_a_true_proof_is_accepted_at_its_own_index_alone() -> None:
    for size in range(1, SIZE_MAX + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            accepted = [i for i in range(-1, SIZE_MAX + 9) if is_included(LEAVES[index], i, size, proof, root(size))]
            assert accepted == [index]


@pytest.mark.parametrize(("old", "size"), [pair for pair in HEADS if pair[1] in (1, 2, 3, 8, 37, 64, 70)])
def test_growth_is_proved_from_every_older_size_and_from_no_other_root(old, size) -> None:
    proof = consistency_proof(old, size, node)
    assert is_consistent(old, size, root(old), root(size), proof)
    assert not is_consistent(old, size, root(old), root(size), [*proof, root(size)])
    assert not is_consistent(size + 1, size, root(old), root(size), proof)
    assert not is_consistent(old, size, bytes(32), root(size), proof)
    assert not is_consistent(old, size, root(old), bytes(32), proof) or old == 0  # size 0 binds nothing
    if proof:
        assert not is_consistent(old, size, root(old), root(size), proof[:-1])


def corrupted(proof: list[bytes], at: int, change: int) -> list[bytes]:
    joined = bytearray(b"".join(proof))
    joined[at] ^= change
    return [bytes(joined[i : i + 32]) for i in range(0, len(joined), 32)]


@settings(deadline=None, max_examples=100)  # each example tries every byte
@given(st.sampled_from([pair for pair in HEADS if pair[0] < pair[1] and pair[1] > 1]), st.integers(1, 255))
def test_an_inclusion_proof_with_any_one_byte_changed_is_refused(place: tuple[int, int], change: int) -> None:
    index, size = place
    proof = inclusion_proof(index, size, node)
    for at in range(32 * len(proof)):
        assert not is_included(LEAVES[index], index, size, corrupted(proof, at, change), root(size))
    for at in range(32):
        (leaf,) = corrupted([LEAVES[index]], at, change)
        assert not is_included(leaf, index, size, proof, root(size))


@settings(deadline=None, max_examples=100)  # each example tries every byte
@given(st.sampled_from([pair for pair in HEADS if 0 < pair[0] < pair[1]]), st.integers(1, 255))
def test_a_consistency_proof_with_any_one_byte_changed_is_refused(sizes: tuple[int, int], change: int) -> None:
    old, size = sizes
    proof = consistency_proof(old, size, node)
    for at in range(32 * len(proof)):
        assert not is_consistent(old, size, root(old), root(size), corrupted(proof, at, change))


def test_an_empty_tree_has_one_root() -> None:
    assert is_consistent(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not is_consistent(0, 0, EMPTY_ROOT, bytes(32), [])
    assert not is_consistent(0, 5, bytes(32), root(5), [])


def test_hashes_of_another_length_are_refused() -> None:
    proof = inclusion_proof(3, 8, node)
    assert not is_included(LEAVES[3], 3, 8, [proof[0] + b"\0", *proof[1:]], root(8))
    grown = consistency_proof(3, 8, node)
    assert not is_consistent(3, 8, root(3), root(8), [grown[0][:-1], *grown[1:]])


@given(st.integers(1, 10**9), st.data())
def test_a_proof_reads_at_most_two_nodes_a_level(size: int, data: st.DataObject) -> None:
    read = 0

    def counted(level: int, index: int) -> bytes:
        nonlocal read
        assert (index + 1) << level <= size, "a node beyond the edge"
        read += 1
        return bytes(32)

    index = data.draw(st.integers(0, size - 1))
    inclusion_proof(index, size, counted)
    assert read <= 2 * size.bit_length()
    read = 0
    consistency_proof(index, size, counted)
    assert read <= 2 * size.bit_length()
