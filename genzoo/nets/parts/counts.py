"""The number of params of the parts of networks, in closed form.

Where a part may have params that depend on details (biases, nulls), they are counted, so that the
results are upper bounds. They are exact for most networks, which tests verify.
"""

from collections.abc import Sequence
from itertools import pairwise

from genzoo.core.conditions import Entries, Entry
from genzoo.nets.parts.feedforward import EXPANSION


def conv(axes: int, inputs: int, outputs: int, window: int = 3) -> int:
    """A convolution with a bias."""
    return window**axes * inputs * outputs + outputs


def dense(*widths: int) -> int:
    """Dense layers with biases between these widths."""
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


def norm(channels: int) -> int:
    """A norm with a gain and a bias for each channel."""
    return 2 * channels


def attention(channels: int, tokens: int) -> int:
    """A `MultiHeadAttention` from a sequence of width `channels` to tokens of width `tokens`."""
    return channels**2 + 2 * tokens * channels + dense(channels, channels)


def geglu(channels: int) -> int:
    """A `GEGLU` feed-forward layer."""
    hidden = EXPANSION * channels
    return dense(channels, 2 * hidden) + dense(hidden, channels)


def spatial_transformer(channels: int, tokens: int, depth: int) -> int:
    """A `SpatialTransformer` of `depth` blocks that attends to tokens of width `tokens`."""
    own, cross = attention(channels, channels), attention(channels, tokens)
    block = 3 * norm(channels) + own + cross + geglu(channels)
    return norm(channels) + 2 * dense(channels, channels) + depth * block


def added(entry: Entry, width: int, deep: bool = False) -> int:
    """The embedder of a condition to features of this width. deep: see `Conditioner`."""
    if entry.kind == "class":
        return (entry.size + 1) * width
    if entry.kind == "scalar":
        return dense(width, width, width) + width
    return dense(entry.size, *(width,) * (1 + deep)) + width


def attended(entry: Entry, width: int, features: int) -> int:
    """The embedder of a condition to tokens of this width, with a text encoder if it has layers,
    whose mean token becomes `features`."""
    if entry.kind not in ("ids", "tokens"):
        return added(entry, width)
    total = (entry.size + entry.length + 2) * width
    if entry.layers:
        layer = 2 * norm(width) + attention(width, width) + geglu(width)
        total += entry.layers * layer + norm(width) + width * features
    return total


def conditioner(
    entries: Entries,
    inputs: int,
    features: int,
    *,
    add_to: int = 0,
    context: int = 0,
    deep: bool = False,
) -> int:
    """The two layers on the time embedding of width `inputs`, and the embedders of all conditions.

    add_to: the width of the features to which conditions are added, if not `features`. context: the
    width of tokens.
    """
    total = dense(inputs, features, features)
    for entry in entries.values():
        if entry.way == "add":
            total += added(entry, add_to or features, deep)
        elif entry.way == "attend":
            total += attended(entry, context, features)
        else:
            total += entry.size
    return total


def mapped(entries: Entries) -> int:
    """The channels that conditions add to the input of a network."""
    return sum(entry.size for entry in entries.values() if entry.way == "concat")


def largest(sides: Sequence[int], channels: int, itemsize: int) -> int:
    """The bytes of a feature map of one example."""
    total = channels * itemsize
    for side in sides:
        total *= side
    return total
