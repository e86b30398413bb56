"""The networks of VQ-VAE and VQ-VAE-2: any number of grids of codes, each half as fine as the last.

Razavi et al. 2019 (Generating diverse high-fidelity images with VQ-VAE-2), as implemented in
rosinality/vq-vae-2-pytorch, which corresponds to `levels=2`. One level gives the network of van den
Oord et al. 2017, as in `ConvSettings`. With level 0 at the bottom (finest) and level T at the top:

    h_0 = encoder_0(x),  h_l = encoder_l(h_{l-1})                                             (1)
    z_T = head_T(h_T),   z_l = head_l([c_l, h_l])                                             (2)
    c_{T-1} = context_{T-1}(q_T),  c_l = context_l([q_{l+1}, c_{l+1}])                        (3)
    x = decoder([up_T(q_T), .., up_1(q_1), q_0])                                              (4)

where q_l is the quantised z_l. The context c_l carries the codes of all levels above l, on the grid
of level l. up_l is a sequence of l transposed convolutions with activations between them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit, OneOf
from genzoo.core.size import Size
from genzoo.core.types import Array, Key, Tree
from genzoo.nets.autoencoder.convnet import (
    BlockCount,
    BlockWidth,
    ConvDecoder,
    ConvTrunk,
    ConvUp,
    FeatureWidth,
    largest_map,
    residuals_params,
    trunk_params,
    up_params,
)
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.counts import conv
from genzoo.nets.parts.layers import DTYPES, Conv
from genzoo.nets.parts.problems import indivisible

Quantise = Callable[[int, Array], Array]  # (level, z [B, *grid, latent]) -> q of the same shape
Run = Callable[[str, Network, Array], Array]  # (name of a part, the part, its input) -> its output


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The parts of equations (1) to (4), with `encode` and `decode`; tuples start at level 0.

    encoders, heads: one for each level. contexts: contexts[l] is context_l; there is none for the
    top. upsamples: upsamples[l - 1] is up_l. decoder: gives the image, [B, *size, decoded].
    grids: the sides of each level's grid. latent: the channels of every z and q.

    The params are one dict with a subtree for each part: "encoder_0", "head_0", "context_0",
    "upsample_1", .., "decoder".
    """

    encoders: tuple[Network, ...]
    heads: tuple[Network, ...]
    contexts: tuple[Network, ...]
    upsamples: tuple[Network, ...]
    decoder: Network
    grids: tuple[tuple[int, ...], ...]
    latent: int

    @property
    def levels(self) -> int:
        """The number of grids of codes."""
        return len(self.grids)

    def init(self, key: Key, x: Array) -> Tree:
        """The params of all parts, for images of the shape of x [B, *size, C]."""
        params = {}

        def run(name: str, part: Network, value: Array) -> Array:
            params[name] = part.init(jax.random.fold_in(key, len(params)), value)
            return part.apply(params[name], value)

        self._decode(run, self._encode(run, x, lambda level, z: z))
        return params

    def encode(self, params: Tree, x: Array, quantise: Quantise) -> list[Array]:
        """Equations (1) to (3): x [B, *size, C] -> [q_0 .. q_T], q_l [B, *grids[l], latent].

        quantise(level, z) -> q is called once for each level, starting at the top, because the
        codes of a level depend on those of the levels above. The caller's function can also record
        its indices and losses.
        """
        return self._encode(_applying(params), x, quantise)

    def decode(self, params: Tree, qs: list[Array]) -> Array:
        """Equation (4): [q_0 .. q_T] -> [B, *size, decoded] float32."""
        return self._decode(_applying(params), qs)

    def _encode(self, run: Run, x: Array, quantise: Quantise) -> list[Array]:
        features = []
        for level, encoder in enumerate(self.encoders):
            x = run(f"encoder_{level}", encoder, x)
            features.append(x)
        top = self.levels - 1
        qs = [quantise(top, run(f"head_{top}", self.heads[top], features[top]))]
        above = qs[0]
        for level in reversed(range(top)):
            context = run(f"context_{level}", self.contexts[level], above)
            z = run(f"head_{level}", self.heads[level], _concat([context, features[level]]))
            qs.insert(0, quantise(level, z))
            above = _concat([qs[0], context])
        return qs

    def _decode(self, run: Run, qs: list[Array]) -> Array:
        parts = [qs[0]]
        for level in range(1, self.levels):
            parts.insert(0, run(f"upsample_{level}", self.upsamples[level - 1], qs[level]))
        return run("decoder", self.decoder, _concat(parts))


def _applying(params: Tree) -> Run:
    return lambda name, part, value: part.apply(params[name], value)


def _concat(arrays: list[Array]) -> Array:
    return jnp.concatenate(arrays, -1)


class Head(nn.Module):
    """h [B, *grid, C] -> z [B, *grid, latent] float32, by a 1x1 convolution."""

    latent: int

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        return Conv(self.latent, window=1, name="out")(h)


class Upsample(nn.Module):
    """q [B, *grid, C] -> [B, *grid 2^times, C]: transposed convolutions with ReLUs between them."""

    times: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, q: Array, train: bool) -> Array:
        for i in range(self.times):
            q = ConvUp(q.shape[-1], self.dtype, name=f"up_{i}")(jax.nn.relu(q) if i else q)
        return q


@dataclass(frozen=True, kw_only=True)
class HierarchySettings:
    """The networks of VQ-VAE (one level) or VQ-VAE-2.

    With latent = 64 and decoded = 3, two levels have 1,388,867 params, as in the implementation
    cited above, and one level has 662,723, as in `ConvSettings`.
    """

    levels: Annotated[
        int, AtLeast(1), Limit(16), "Grids of codes, each half as fine as the last."
    ] = 1
    downsamples: Annotated[
        int, AtLeast(1), Limit(16), "Halvings from the image to the finest grid."
    ] = 2
    width: FeatureWidth = 128
    block_width: BlockWidth = 32
    blocks: BlockCount = 2
    dtype: Annotated[
        str, OneOf(DTYPES), "Type used in layers; params, z and the output stay float32."
    ] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for images of `shape` (*size, C), as sentences."""
        unit = 2 ** (self.levels - 1 + self.downsamples)
        return indivisible("levels", self.levels, shape[:-1], unit)

    def size(self, x: tuple[int, ...], *, shape: tuple, latent: int, decoded: int) -> Size:
        """The size of `build` for images of the shape `x` (*size, C)."""
        del shape
        *sides, channels = x
        axes, width = len(sides), self.width
        blocks = residuals_params(axes, width, self.block_width, self.blocks)

        def decoder(inputs: int, outputs: int, upsamples: int) -> int:
            ups = up_params(axes, width, outputs, upsamples)
            return conv(axes, inputs, width) + blocks + ups

        total = decoder(self.levels * latent, decoded, self.downsamples)
        for level in range(self.levels):
            below, halvings = (width, 1) if level else (channels, self.downsamples)
            top = level == self.levels - 1
            total += trunk_params(axes, below, width, halvings) + blocks
            total += conv(axes, width if top else width + latent, latent, 1)
            total += level * conv(axes, latent, latent, 4)
            if not top:
                total += decoder(latent if level == self.levels - 2 else 2 * latent, latent, 1)
        itemsize = DTYPES[self.dtype].itemsize
        return Size(
            params=total, layer=largest_map(sides, width, self.downsamples, decoded, itemsize)
        )

    def build(self, *, shape: tuple[int, ...], latent: int, decoded: int) -> Hierarchy:
        """The networks for images of shape (*size, C).

        latent: channels of the codes of every level. decoded: numbers for each pixel of the output.
        """
        act, dtype, levels = jax.nn.relu, DTYPES[self.dtype], range(self.levels)
        residual = dict(block_width=self.block_width, blocks=self.blocks)

        def trunk(downsamples: int) -> Network:
            return network(
                ConvTrunk(
                    width=self.width, downsamples=downsamples, activation=act, dtype=dtype,
                    **residual,
                )
            )  # fmt: skip

        def decoder(channels: int, upsamples: int) -> Network:
            return network(
                ConvDecoder(
                    decoded=channels, width=self.width, upsamples=upsamples, activation=act,
                    dtype=dtype, **residual,
                )
            )  # fmt: skip

        return Hierarchy(
            encoders=tuple(trunk(1 if level else self.downsamples) for level in levels),
            heads=tuple(network(Head(latent=latent)) for _ in levels),
            contexts=tuple(decoder(latent, 1) for _ in levels[1:]),
            upsamples=tuple(network(Upsample(times=level, dtype=dtype)) for level in levels[1:]),
            decoder=decoder(decoded, self.downsamples),
            grids=tuple(
                tuple(side >> level + self.downsamples for side in shape[:-1]) for level in levels
            ),
            latent=latent,
        )
