"""What the backward pass of a network recomputes to save memory."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax


def _products(primitive, *_, **__) -> bool:
    """Keep the results of convolutions and matrix products; recompute norms and activations."""
    return primitive.name in ("conv_general_dilated", "dot_general")


POLICIES: Mapping[str, Callable | None] = MappingProxyType(
    {"none": None, "full": jax.checkpoint_policies.nothing_saveable, "dots": _products}
)
"""Name -> the policy of `jax.checkpoint`, None for no rematerialisation."""
