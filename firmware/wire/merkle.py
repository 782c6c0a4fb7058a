"""Makes Merkle roots and inclusion paths from leaves, and checks paths (RFC 9162, section 2.1; hashing of RFC 6962)."""

import hashlib

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire.errors import Refused

_PATH_HASHES = const(32)  # a tree of 2^32 leaves; ours hold 4,096 at most


def leaf_hash(data):
    return hashlib.sha256(b"\x00" + bytes(data)).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves):
    """Returns the 32-byte root over a list of leaves' bytes; SHA-256 of nothing for an empty list."""
    return root_of_hashes([leaf_hash(leaf) for leaf in leaves])


def root_of_hashes(hashes):
    """Returns the root over leaf hashes: level by level, an odd last one moves up as it is."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    level = list(hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def path(hashes, index):
    """Returns the inclusion path of leaf `index`, lowest first; ValueError when there is no such leaf."""
    if not 0 <= index < len(hashes):
        raise ValueError("leaf %d of %d" % (index, len(hashes)))
    steps = []
    level = list(hashes)
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            steps.append(level[beside])
        level = _parents(level)
        index >>= 1
    return steps


def paths(hashes, indexes):
    """Returns the inclusion paths of several leaves, as `path` does for one; the tree is made once."""
    for index in indexes:
        if not 0 <= index < len(hashes):
            raise ValueError("leaf %d of %d" % (index, len(hashes)))
    found: list = [[] for _ in indexes]
    level, depth = list(hashes), 0
    while len(level) > 1:
        for at in range(len(found)):
            beside = indexes[at] >> depth ^ 1
            if beside < len(level):
                found[at].append(level[beside])
        level = _parents(level)
        depth += 1
    return found


def check_path(leaf, index, size, steps, expected_root):
    """Raises Refused `not_included` unless `steps` lead from the hash `leaf` at `index` of `size` to the root."""
    if not 0 <= index < size or len(steps) > _PATH_HASHES:
        raise Refused("not_included", size, index)
    if len(leaf) != 32:  # else "nothing" at the only place of a tree would be under the root "nothing"
        raise Refused("not_included", 32, len(leaf))
    position, last, result = index, size - 1, leaf
    for step in steps:
        if last == 0:
            raise Refused("not_included", "the root", "a longer path")
        if position & 1 or position == last:
            result = node_hash(step, result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            result = node_hash(result, step)
        position >>= 1
        last >>= 1
    if last != 0 or result != expected_root:
        raise Refused("not_included", expected_root, result)


def _parents(level):
    parents = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        parents.append(level[-1])
    return parents
