"""The networks of VQ-VAE and VQ-VAE-2: any number of grids of codes, each half as fine as the one
below.

Razavi et al. 2019 (Generating diverse high-fidelity images with VQ-VAE-2), in the reading of
rosinality/vq-vae-2-pytorch, whose two levels are `levels=2` here; one level is the network of van
den Oord et al. 2017 as in `conv_pair`. With level 0 the bottom (finest) and level T the top:

    h_0 = encoder_0(x),  h_l = encoder_l(h_{l-1})                                             (1)
    z_T = head_T(h_T),   z_l = head_l([c_l, h_l])                                             (2)
    c_{T-1} = context_{T-1}(q_T),  c_l = context_l([q_{l+1}, c_{l+1}])                        (3)
    x = decoder([up_T(q_T), .., up_1(q_1), q_0])                                              (4)

q_l is the quantised z_l. Going down, c_l holds what all levels above l have said, on the grid of
level l. up_l is l transposed convolutions, with the activation between them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array, Key, Tree
from genzoo.nets.autoencoder.convnet import ConvDecoder, ConvTrunk, ConvUp
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.layers import DTYPES, Conv
from genzoo.nets.parts.problems import indivisible, too_low, unknown

Quantise = Callable[[int, Array], Array]  # (level, z [B, *grid, latent]) -> q of the same shape
Run = Callable[[str, Network, Array], Array]  # (name of a part, the part, its input) -> its output


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The parts of equations (1) to (4) and the two ways through them; tuples count from below.

    encoders, heads: one per level. contexts: contexts[l] serves level l from the level above, so
    one less. upsamples: upsamples[l - 1] is up_l. decoder: to the image, [B, *size, decoded].
    grids: sides of the grid of each level. latent: channels of every z and q.

    Params are one dict with a subtree per part: "encoder_0", "head_0", "context_0", "upsample_1",
    .., "decoder".
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
        """How many grids of codes there are."""
        return len(self.grids)

    def init(self, key: Key, x: Array) -> Tree:
        """Params of all parts, for images like x [B, *size, C]."""
        params = {}

        def run(name: str, part: Network, value: Array) -> Array:
            params[name] = part.init(jax.random.fold_in(key, len(params)), value)
            return part.apply(params[name], value)

        self._decode(run, self._encode(run, x, lambda level, z: z))
        return params

    def encode(self, params: Tree, x: Array, quantise: Quantise) -> list[Array]:
        """Equations (1) to (3): x [B, *size, C] -> [q_0 .. q_T], q_l [B, *grids[l], latent].

        quantise(level, z) -> q is called once per level, the top first, because what a level says
        depends on what those above it have said. Whatever else it finds (indices, losses) it can
        keep for its caller.
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
    """h [B, *grid, C] -> z [B, *grid, latent] float32, position by position."""

    latent: int

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        return Conv(self.latent, window=1, name="out")(h)


class Upsample(nn.Module):
    """q [B, *grid, C] -> [B, *grid 2^times, C] by transposed convolutions, relu between them."""

    times: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, q: Array, train: bool) -> Array:
        for i in range(self.times):
            q = ConvUp(q.shape[-1], self.dtype, name=f"up_{i}")(jax.nn.relu(q) if i else q)
        return q


def hierarchy(
    *,
    shape: tuple[int, ...],
    latent: int,
    decoded: int,
    levels: int = 1,
    downsamples: int = 2,
    width: int = 128,
    block_width: int = 32,
    blocks: int = 2,
    dtype: str = "float32",
) -> Hierarchy:
    """The networks of VQ-VAE (one level) or VQ-VAE-2 for images of shape (*size, C).

    latent: channels of the codes of every level. decoded: numbers for each pixel of the output.
    levels: how many grids. downsamples: halvings from the image to the bottom grid; each level
        above has one more.
    width: of the feature maps. block_width, blocks: of the residual blocks in every part.
    dtype: of the computation, "float32" or "bfloat16". Params, z and the output are float32.

    With latent = 64 and decoded = 3 two levels have 1,388,867 params, as the reading cited has, and
    one has the 662,723 of `conv_pair`.
    """
    act, dtype_ = jax.nn.relu, DTYPES[dtype]

    def trunk(downsamples: int) -> Network:
        return network(
            ConvTrunk(
                width=width,
                block_width=block_width,
                blocks=blocks,
                downsamples=downsamples,
                activation=act,
                dtype=dtype_,
            )
        )

    def decoder(channels: int, upsamples: int) -> Network:
        return network(
            ConvDecoder(
                decoded=channels,
                width=width,
                block_width=block_width,
                blocks=blocks,
                upsamples=upsamples,
                activation=act,
                dtype=dtype_,
            )
        )

    return Hierarchy(
        encoders=(trunk(downsamples), *(trunk(1) for _ in range(levels - 1))),
        heads=tuple(network(Head(latent=latent)) for _ in range(levels)),
        contexts=tuple(decoder(latent, 1) for _ in range(levels - 1)),
        upsamples=tuple(
            network(Upsample(times=level, dtype=dtype_)) for level in range(1, levels)
        ),
        decoder=decoder(decoded, downsamples),
        grids=tuple(
            tuple(side >> level + downsamples for side in shape[:-1]) for level in range(levels)
        ),
        latent=latent,
    )


def hierarchy_problems(
    shape: tuple[int, ...],
    *,
    levels: int = 1,
    downsamples: int = 2,
    width: int = 128,
    block_width: int = 32,
    blocks: int = 2,
    dtype: str = "float32",
) -> list[str]:
    """The problems of `hierarchy` with these settings on images of `shape`; [] if none."""
    problems = too_low(2, {"width": width})
    problems += too_low(1, {"levels": levels, "downsamples": downsamples})
    problems += too_low(1, {"block_width": block_width})
    problems += too_low(0, {"blocks": blocks})
    problems += unknown("dtype", dtype, DTYPES)
    if levels >= 1 and downsamples >= 1:
        unit = 2 ** (levels - 1 + downsamples)
        problems += indivisible("levels", levels, shape[:-1], unit)
    return problems
