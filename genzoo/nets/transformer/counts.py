"""The number of params of transformer blocks, in closed form."""

from genzoo.nets.parts.counts import dense
from genzoo.nets.transformer.block import MLP, Attention, Norm


def norm_params(norm: Norm, width: int) -> int:
    """A norm over `width` channels."""
    return norm.learned * (1 if norm.rms else 2) * width


def block_params(
    *,
    width: int,
    attention: Attention,
    mlp: MLP,
    norm: Norm,
    modulated: bool = False,
    layer_scale: float = 0.0,
    context: int = 0,
    ends: bool = False,
    **others: object,
) -> int:
    """A `TransformerBlock` with these fields. context: the width of tokens; 0 for its own."""
    del others
    if ends:
        total = norm_params(norm, width) + dense(width, 3 * width)
        total += attention.qk_norm * 2 * (width // attention.heads)
        return total + modulated * dense(width, 2 * width)
    total = 2 * norm_params(norm, width) + dense(width, 3 * width) + dense(width, width)
    total += dense(width, (1 + mlp.gated) * mlp.hidden) + dense(mlp.hidden, width)
    total += attention.qk_norm * 2 * (width // attention.heads)
    if attention.cross:
        total += norm_params(norm, width) + 2 * dense(width, width)
        total += dense(context or width, 2 * width)
    if attention.dual:
        total += dense(width, 3 * width) + dense(width, width)
        total += attention.qk_norm * 2 * (width // attention.heads)
    if modulated:
        total += dense(width, (9 if attention.dual else 6) * width)
    return total + 2 * width * (layer_scale > 0)
