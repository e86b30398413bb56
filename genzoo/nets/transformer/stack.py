"""A stack of equal blocks: written out, or run by a scan over their params.

A scan traces and compiles one block for all, which matters for deep networks. Its params are those
of the blocks, stacked along a leading axis, under a name that `core.tree.is_stacked` recognises.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.tree import STACKED
from genzoo.core.types import Tree
from genzoo.nets.parts.remat import POLICIES
from genzoo.nets.transformer.block import Rates, Told

MakeBlock = Callable[[Callable[[type[nn.Module]], type[nn.Module]], str], nn.Module]
"""(wrap, name) -> a block of this name, of a class to which `wrap` was applied."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """How blocks are stacked.

    dropout, path: the rates of every block in training; () for none. scan: whether equal blocks in
    a row are run by a scan. remat: what the backward pass recomputes, a name of `POLICIES`.
    """

    dropout: tuple[float, ...] = ()
    path: tuple[float, ...] = ()
    scan: bool = False
    remat: str = "none"

    def run(self, make: MakeBlock, first: int, last: int, h: Tree, told: Told, train: bool) -> Tree:
        """The stream h after the blocks first .. last - 1, which are equal. Call it inside a
        compact `__call__`. Params: block_I for each, or layers_FIRST for all with a scan."""
        if not (self.scan and last - first > 1):
            for i in range(first, last):
                h = make(self._wrap, f"block_{i}")(h, told, self._rates(i, i + 1, 0), train)
            return h

        def body(block: nn.Module, h: Tree, rates: Rates) -> tuple[Tree, None]:
            return block(h, told, rates, train), None

        scanned = nn.scan(
            body,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=last - first,
        )
        block = make(self._wrap, f"{STACKED}{first}")
        return scanned(block, h, self._rates(first, last, slice(None)))[0]

    def place(self, i: int, boundaries: Sequence[int]) -> tuple[str, int | None]:
        """(the name of the module that holds block i, its layer there if that is a scan).
        boundaries: the block numbers, from 0 to the depth, between which `run` is called."""
        for first, last in pairwise(boundaries):
            if self.scan and first <= i < last and last - first > 1:
                return f"{STACKED}{first}", i - first
        return f"block_{i}", None

    def _wrap(self, block: type[nn.Module]) -> type[nn.Module]:
        policy = POLICIES[self.remat]
        if policy is None:
            return block
        # Argument 4 of a block, counting self, is `train`: a Python bool, not traced. In a scan
        # nothing could be shared with the forward pass anyway.
        return nn.remat(block, policy=policy, static_argnums=(4,), prevent_cse=not self.scan)

    def _rates(self, first: int, last: int, index: int | slice) -> Rates:
        """The rates of these blocks; None where all blocks of the stack have the rate zero."""

        def of(rates: tuple[float, ...]):
            return jnp.asarray(np.float32(rates[first:last]))[index] if any(rates) else None

        return Rates(of(self.dropout), of(self.path))
