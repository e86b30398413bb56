"""The transformer block, in all the forms that our networks use.

Vaswani et al. 2017 (attention), Xiong et al. 2020 (pre-normalisation), Zhang & Sennrich 2019
(RMSNorm), Shazeer 2020 (gated feed-forward layers), Su et al. 2021 (rotary positions), Henry et al.
2020 (query-key normalisation), Peebles & Xie 2023 (DiT: adaLN-Zero), Touvron et al. 2021 (CaiT:
layer scale), Huang et al. 2016 (drop path). A block is

    h <- h + g_1 attention((1 + a_1) norm(h) + b_1)                                             (1)
    h <- h + attention(norm(h), tokens)                                       if it attends     (2)
    h <- h + g_2 mlp((1 + a_2) norm(h) + b_2)                                                   (3)

    (b_1, a_1, g_1, b_2, a_2, g_2) = W features + c                                             (4)

without adaLN-Zero a and b are 0 and g is 1, or a learned scale for each channel. With it, W and c
are zero at the start, so that the block is the identity. With norms after the sums (Vaswani et al.,
Devlin et al. 2019: BERT) it is

    h <- norm(h + attention(h)),  h <- norm(h + mlp(h))                                         (5)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array
from genzoo.nets.parts.attention import attend
from genzoo.nets.parts.layers import FAN_AVG, ZEROS, flat_product
from genzoo.nets.transformer.positions import Rotary, turned

Initializer = nn.initializers.Initializer


class RMSNorm(nn.Module):
    """x [.., C] -> x / sqrt(mean(x^2) + epsilon), times a learned gain if `learned`.

    Computed in float32; the result has type `dtype`. Flax multiplies the gain by the factor first,
    whose gradient is slower on a CPU.
    """

    epsilon: float = 1e-6
    learned: bool = True
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        if self.learned:
            y = y * self.param("scale", nn.initializers.ones_init(), x.shape[-1:])
        return y.astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """The norms of a block. rms: RMSNorm rather than LayerNorm. learned: whether they have a gain
    and, for LayerNorm, a bias. post: whether they come after the sums, equation (5)."""

    rms: bool = False
    learned: bool = True
    epsilon: float = 1e-6
    post: bool = False

    def make(self, dtype: jnp.dtype, name: str | None = None) -> nn.Module:
        """The module. Statistics are float32; the result has type `dtype`."""
        if self.rms:
            return RMSNorm(self.epsilon, self.learned, dtype, name=name)
        gains = dict(use_scale=self.learned, use_bias=self.learned)
        return nn.LayerNorm(self.epsilon, dtype=dtype, **gains, name=name)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention of a block. heads: must divide the width. qk_norm: whether queries and keys of
    every head pass through an RMSNorm, except in (2). causal: whether position i sees positions
    0 .. i only. cross: whether the block also attends to tokens, equation (2). dual: whether a
    second attention of h to itself alone is added, for blocks of two streams (SD 3.5). fused: see
    `attend`."""

    heads: int
    qk_norm: bool = False
    causal: bool = False
    cross: bool = False
    dual: bool = False
    fused: bool = False


@dataclass(frozen=True)
class MLP:
    """The feed-forward layer of a block: contract(activation(expand(h))) or, if `gated`,
    contract(activation(a) b) with (a, b) = expand(h). hidden: the width within."""

    hidden: int
    activation: Callable[[Array], Array]
    gated: bool = False


def _exact_gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


MLPS: Mapping[str, Callable[[int], MLP]] = MappingProxyType(
    {
        "gelu": lambda hidden: MLP(hidden, jax.nn.gelu),
        "gelu_exact": lambda hidden: MLP(hidden, _exact_gelu),
        "gelu_quick": lambda hidden: MLP(hidden, _quick_gelu),
        # Two thirds of the hidden width: as many params as without a gate.
        "swiglu": lambda hidden: MLP(int(hidden * 2 / 3), jax.nn.silu, gated=True),
    }
)
"""Name -> (hidden width of a layer without a gate) -> the layer. gelu: approximated by tanh;
gelu_exact: by erf; gelu_quick: x sigmoid(1.702 x), of OpenAI's CLIP."""


class Told(NamedTuple):
    """What every block of a stack is told. features: [B, E], of (4). rotary: of the positions.
    mask: bool [B, N], False for padding of the stream. tokens [B, M, D], token_mask bool [B, M]:
    of (2)."""

    features: Array | None = None
    rotary: Rotary | None = None
    mask: Array | None = None
    tokens: Array | None = None
    token_mask: Array | None = None


class Rates(NamedTuple):
    """Rates in training, of dropout on what layers add, and of dropping all that they add to an
    example (drop path). None for never."""

    dropout: Array | float | None = None
    path: Array | float | None = None


class Drop(nn.Module):
    """Dropout whose rate may be traced. whole: whether examples are dropped whole."""

    whole: bool = False

    def __call__(self, x: Array, rate: Array | float | None, train: bool) -> Array:
        """x [B, ...] -> the same shape."""
        if rate is None or not train:
            return x
        keep = 1.0 - rate
        shape = (x.shape[0], *(1,) * (x.ndim - 1)) if self.whole else x.shape
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, x / jnp.asarray(keep, x.dtype), 0)


def modulate(h: Array, shift: Array, scale: Array) -> Array:
    """h (1 + scale) + shift, for h [B, N, C] and shift, scale [B, C]."""
    return h * (1 + scale[:, None]) + shift[:, None]


class TransformerBlock(nn.Module):
    """(h [B, N, width] float32, told, rates, train) -> the same shape and type: (1) to (5).

    modulated: whether the block has adaLN-Zero and is told features. layer_scale: the initial value
    of learned scales in place of gates; 0 for none. start, start_out: the initial weights of the
    layers that read from the stream, and of those that add to it. ends: whether only the `heads` of
    the block are used, and it adds nothing to the stream.
    """

    width: int
    attention: Attention
    mlp: MLP
    norm: Norm = Norm()
    modulated: bool = False
    layer_scale: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")
    start: Initializer = FAN_AVG
    start_out: Initializer = FAN_AVG
    ends: bool = False

    def setup(self):
        width, attention, start, out = self.width, self.attention, self.start, self.start_out
        if self.norm.post and (self.modulated or attention.cross or attention.dual):
            raise ValueError("a block with norms after the sums has plain self-attention only")
        # After a sum, a norm gives the stream itself.
        norm_type = jnp.dtype("float32") if self.norm.post else self.dtype
        self.norm_0 = self.norm.make(norm_type)
        self.query_key_value = self._dense(3 * width, start)
        if attention.qk_norm:
            self.query_norm, self.key_norm = (RMSNorm(dtype=self.dtype) for _ in range(2))
        self.out = self._dense(width, out)
        if attention.dual:
            self.query_key_value_dual = self._dense(3 * width, start)
            if attention.qk_norm:
                self.query_norm_dual, self.key_norm_dual = (
                    RMSNorm(dtype=self.dtype) for _ in range(2)
                )
            self.out_dual = self._dense(width, out)
        if attention.cross:
            self.norm_cross = self.norm.make(self.dtype)
            self.query_cross = self._dense(width, start)
            self.key_value_cross = self._dense(2 * width, start)
            # An added condition leaves a network unchanged at first.
            self.out_cross = self._dense(width, ZEROS if self.modulated else out)
        self.norm_1 = self.norm.make(norm_type)
        self.expand = self._dense((1 + self.mlp.gated) * self.mlp.hidden, start)
        self.contract = self._dense(width, out)
        if self.modulated:
            self.modulation = self._dense(self._arrays * width, ZEROS)
        if self.layer_scale:
            value = nn.initializers.constant(self.layer_scale)
            self.scale_0 = self.param("scale_0", value, (width,))
            self.scale_1 = self.param("scale_1", value, (width,))
        self.drop = Drop()
        self.drop_path = Drop(whole=True)

    def _dense(self, features: int, start: Initializer) -> nn.Dense:
        return nn.Dense(features, kernel_init=start, dtype=self.dtype, dot_general=flat_product)

    def __call__(self, h: Array, told: Told, rates: Rates, train: bool) -> Array:
        attention, changes = self.attention, self.changes(told.features)
        query, key, value = self.heads(h, told.rotary, changes)
        attended = attend(
            query, key, value, told.mask, causal=attention.causal, fused=attention.fused
        )
        h = self.attended(h, attended, rates, train, changes)
        if attention.cross:
            h = h + self._added(self._cross(h, told), rates, train)
        return self.passed_on(h, rates, train, changes)

    @property
    def _arrays(self) -> int:
        """The number of arrays in (4): three more for a second attention, two if it ends."""
        return 2 if self.ends else 9 if self.attention.dual else 6

    def changes(self, features: Array | None) -> list[Array]:
        """Equation (4): arrays [B, width], in its order; none without adaLN-Zero."""
        return jnp.split(self.modulation(features), self._arrays, -1) if self.modulated else []

    def heads(
        self, h: Array, positions: Rotary | None = None, changes: list[Array] | None = None
    ) -> list[Array]:
        """Query, key and value for h [.., width], each [.., heads, width / heads]."""
        h = h if self.norm.post else self.norm_0(h)
        h = modulate(h, *changes[:2]) if changes else h
        query, key, value = self._split(self.query_key_value(h), 3)
        if self.attention.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if positions is not None:
            query, key = turned(query, positions), turned(key, positions)
        return [query, key, value]

    def dual(self, h: Array, rates: Rates, train: bool, changes: list[Array]) -> Array:
        """What the second attention adds, from h [B, N, width] before the first."""
        own = modulate(self.norm_0(h), *changes[6:8])
        query, key, value = self._split(self.query_key_value_dual(own), 3)
        if self.attention.qk_norm:
            query, key = self.query_norm_dual(query), self.key_norm_dual(key)
        attended = attend(query, key, value, fused=self.attention.fused)
        added = self._added(self.out_dual(attended.reshape(h.shape)), rates, train)
        return changes[8][:, None] * added

    def attended(
        self, h: Array, attended: Array, rates: Rates, train: bool, changes: list[Array]
    ) -> Array:
        """The end of (1), or of the first part of (5). attended: [.., heads, width / heads], the
        result of attention."""
        added = self._added(self.out(attended.reshape(h.shape)), rates, train)
        if changes:
            added = changes[2][:, None] * added
        h = h + (self.scale_0 * added if self.layer_scale else added)
        return self.norm_0(h) if self.norm.post else h

    def passed_on(self, h: Array, rates: Rates, train: bool, changes: list[Array]) -> Array:
        """Equation (3), or the second part of (5)."""
        inner = h if self.norm.post else self.norm_1(h)
        inner = modulate(inner, *changes[3:5]) if changes else inner
        added = self._added(self._mlp(inner), rates, train)
        if changes:
            added = changes[5][:, None] * added
        h = h + (self.scale_1 * added if self.layer_scale else added)
        return self.norm_1(h) if self.norm.post else h

    def _split(self, x: Array, parts: int) -> list[Array]:
        """x [.., parts width] -> its parts, each [.., heads, width / heads]."""
        # The gradient of a split is one concatenation; that of indexing sums three padded arrays.
        split = jnp.split(x, parts, -1)
        head = (self.attention.heads, self.width // self.attention.heads)
        return [part.reshape(*x.shape[:-1], *head) for part in split]

    def _cross(self, h: Array, told: Told) -> Array:
        tokens = told.tokens
        if told.token_mask is not None:
            tokens = jnp.where(told.token_mask[..., None], tokens, 0)  # keeps out NaN as well
        (query,) = self._split(self.query_cross(self.norm_cross(h)), 1)
        key, value = self._split(self.key_value_cross(tokens), 2)
        attended = attend(query, key, value, told.token_mask, fused=self.attention.fused)
        return self.out_cross(attended.reshape(h.shape))

    def _mlp(self, h: Array) -> Array:
        h = self.expand(h)
        if not self.mlp.gated:
            return self.contract(self.mlp.activation(h))
        a, b = jnp.split(h, 2, -1)
        return self.contract(self.mlp.activation(a) * b)

    def _added(self, x: Array, rates: Rates, train: bool) -> Array:
        return self.drop_path(self.drop(x, rates.dropout, train), rates.path, train)
