"""Starting from the arrays of another run, matched by path; arrays without a match stay fresh."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax

from genzoo.core import tree
from genzoo.core.types import Tree


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the arrays of another model match ours, by path.

    taken: paths with the same shape in both models. missing: paths only in ours. extra: paths only
    in theirs. reshaped: paths with different shapes, and these shapes as (theirs, ours).
    """

    taken: frozenset[str]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def match(ours: Tree, theirs: Tree) -> Match:
    """Compares two trees of arrays or shapes."""
    mine, other = tree.by_path(ours), tree.by_path(theirs)
    both = [path for path in mine if path in other]
    reshaped = {
        path: (tuple(other[path].shape), tuple(mine[path].shape))
        for path in both
        if other[path].shape != mine[path].shape
    }
    return Match(
        taken=frozenset(both) - reshaped.keys(),
        missing=tuple(path for path in mine if path not in other),
        extra=tuple(path for path in other if path not in mine),
        reshaped=reshaped,
    )


def taken_over(ours: Tree, theirs: Tree) -> Tree:
    """Our tree with their values wherever path and shape agree, in our dtypes."""
    taken, other = match(ours, theirs).taken, tree.by_path(theirs)

    def one(path: tuple, leaf):
        name = tree.path_string(path)
        return other[name].astype(leaf.dtype) if name in taken else leaf

    return jax.tree_util.tree_map_with_path(one, ours)
