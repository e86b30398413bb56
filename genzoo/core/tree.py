"""Helpers for trees of arrays: paths, sizes, selection."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, Tree


def path_string(path: tuple) -> str:
    """A key path as 'block/conv/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def count(tree: Tree) -> int:
    """How many numbers a tree holds; works on abstract values too."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def size_in_bytes(tree: Tree) -> int:
    """How many bytes a tree holds; works on abstract values too."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def where(condition: Array, new: Tree, old: Tree) -> Tree:
    """Leaf by leaf `new` where the scalar condition holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def mask(tree: Tree, keep: Callable[[str], bool]) -> Tree:
    """A tree of booleans: whether `keep` holds for the path of each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: keep(path_string(path)), tree)
