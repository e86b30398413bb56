"""Helpers for trees of arrays: paths, sizes, selection."""

import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array, Tree


def path_string(path: tuple) -> str:
    """A key path as 'block/conv/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


STACKED = "layers_"
"""The names of modules whose params have a leading axis for the layers of a scan start so."""


def is_stacked(path: tuple) -> bool:
    """Whether the param with this key path has a leading axis for the layers of a scan."""
    return any(name.startswith(STACKED) for name in path_string(path).split("/"))


def by_path(tree: Tree) -> dict[str, Array]:
    """The leaves of a tree by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): leaf for path, leaf in leaves}


def nested(leaves: Mapping[str, Array]) -> Tree:
    """The nested dict whose leaves have these paths: the inverse of `by_path` for dicts."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *branches, last = path.split("/")
        place = tree
        for branch in branches:
            place = place.setdefault(branch, {})
        place[last] = leaf
    return tree


def checksum(tree: Tree) -> int:
    """The CRC-32 of the arrays of a tree on the host and of their paths, in the order of these."""
    value = 0
    for path, leaf in sorted(by_path(tree).items()):
        array = np.ascontiguousarray(leaf)
        value = zlib.crc32(array, zlib.crc32(f"{path} {array.dtype} {array.shape}".encode(), value))
    return value


def count(tree: Tree) -> int:
    """How many numbers a tree holds; works on abstract values too."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def size_in_bytes(tree: Tree) -> int:
    """How many bytes a tree holds; works on abstract values too."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def where(condition: Array, new: Tree, old: Tree) -> Tree:
    """Leaf by leaf `new` where the scalar condition holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def split(tree: Tree, keep: Callable[[str], bool], path: str = "") -> tuple[Tree, Tree]:
    """(the leaves of a nested dict whose path satisfies `keep`, the other leaves), each as a nested
    dict without empty branches. path: a prefix for the paths of all leaves."""
    kept, others = {}, {}
    for name, branch in tree.items():
        below = f"{path}/{name}" if path else name
        if isinstance(branch, Mapping):
            matching, rest = split(branch, keep, below)
        else:
            matching, rest = (branch, {}) if keep(below) else ({}, branch)
        kept |= {name: matching} if not _empty(matching) else {}
        others |= {name: rest} if not _empty(rest) else {}
    return kept, others


def _empty(branch: Tree) -> bool:
    return isinstance(branch, Mapping) and not branch


def replaced(tree: Tree, other: Tree) -> Tree:
    """The tree with the leaves of `other` at the paths that both have."""
    theirs = by_path(other)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: theirs.get(path_string(path), leaf), tree
    )


def joined(one: Tree, other: Tree) -> Tree:
    """A nested dict with the leaves of both trees, which must have no leaf in common."""
    both = {k: joined(one[k], other[k]) for k in one.keys() & other.keys()}
    return {**one, **other, **both}
