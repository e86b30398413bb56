"""Inception-v3 (Szegedy et al. 2016) as FID uses it: the graph of TensorFlow of 2015-12-05.

It differs from the networks called Inception-v3 today in four ways, as in pytorch-fid:

* average pools inside the blocks count only positions inside the image, not the padding;
* the last block pools by the maximum instead of the average;
* there are 1,008 logits, of which 1,000 are classes, and no auxiliary head;
* convolutions have no bias, and batch norms have epsilon 1e-3.

The params are named as in torchvision and pytorch-fid, so that a file of weights maps by its names.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array

FEATURES, LOGITS = 2048, 1008
SIDE = 299
"""The height and width of its images."""
_EPSILON = 1e-3
_ONES, _ZEROS = nn.initializers.ones_init(), nn.initializers.zeros_init()


class Judged(NamedTuple):
    """features: [B, 2048], the average of the last map. logits: [B, 1008], with the bias.
    scores: [B, 1008], the logits without the bias, from which the Inception score is computed."""

    features: Array
    logits: Array
    scores: Array


class BatchNorm(nn.Module):
    """A batch norm with fixed statistics, by one multiply-add."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = (x.shape[-1],)
        weight, bias = self.param("weight", _ONES, channels), self.param("bias", _ZEROS, channels)
        mean = self.param("running_mean", _ZEROS, channels)
        variance = self.param("running_var", _ONES, channels)
        factor = weight * lax.rsqrt(variance + _EPSILON)
        return x * factor + (bias - mean * factor)


class Unit(nn.Module):
    """x [B, H, W, C] -> relu(norm(convolution(x))) [B, H', W', features].

    window: (height, width) of the kernel, or one side for both. same: whether the image is padded
    by zeros to keep its size.
    """

    features: int
    window: int | tuple[int, int] = 1
    stride: int = 1
    same: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        window = (self.window,) * 2 if isinstance(self.window, int) else self.window
        padding = [(side // 2,) * 2 for side in window] if self.same else "VALID"
        x = nn.Conv(
            self.features, window, (self.stride,) * 2, padding, use_bias=False, name="conv"
        )(x)
        return nn.relu(BatchNorm(name="bn")(x))


def _average(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _largest(x: Array, stride: int = 2, padding: str = "VALID") -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def _joined(*branches: Array) -> Array:
    return jnp.concatenate(branches, -1)


class BlockA(nn.Module):
    """[B, 35, 35, C] -> [B, 35, 35, 224 + pooled]."""

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one = Unit(64, name="branch1x1")(x)
        five = Unit(48, name="branch5x5_1")(x)
        five = Unit(64, 5, name="branch5x5_2")(five)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, 3, name="branch3x3dbl_2")(double)
        double = Unit(96, 3, name="branch3x3dbl_3")(double)
        return _joined(one, five, double, Unit(self.pooled, name="branch_pool")(_average(x)))


class BlockB(nn.Module):
    """[B, 35, 35, C] -> [B, 17, 17, 480 + C]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = Unit(384, 3, 2, same=False, name="branch3x3")(x)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, 3, name="branch3x3dbl_2")(double)
        double = Unit(96, 3, 2, same=False, name="branch3x3dbl_3")(double)
        return _joined(three, double, _largest(x))


class BlockC(nn.Module):
    """[B, 17, 17, C] -> [B, 17, 17, 768]. width: of the factorised 7 x 7 convolutions."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        row, column, width = (1, 7), (7, 1), self.width
        one = Unit(192, name="branch1x1")(x)
        seven = Unit(width, name="branch7x7_1")(x)
        seven = Unit(width, row, name="branch7x7_2")(seven)
        seven = Unit(192, column, name="branch7x7_3")(seven)
        double = Unit(width, name="branch7x7dbl_1")(x)
        double = Unit(width, column, name="branch7x7dbl_2")(double)
        double = Unit(width, row, name="branch7x7dbl_3")(double)
        double = Unit(width, column, name="branch7x7dbl_4")(double)
        double = Unit(192, row, name="branch7x7dbl_5")(double)
        return _joined(one, seven, double, Unit(192, name="branch_pool")(_average(x)))


class BlockD(nn.Module):
    """[B, 17, 17, C] -> [B, 8, 8, 512 + C]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = Unit(192, name="branch3x3_1")(x)
        three = Unit(320, 3, 2, same=False, name="branch3x3_2")(three)
        seven = Unit(192, name="branch7x7x3_1")(x)
        seven = Unit(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Unit(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Unit(192, 3, 2, same=False, name="branch7x7x3_4")(seven)
        return _joined(three, seven, _largest(x))


class BlockE(nn.Module):
    """[B, 8, 8, C] -> [B, 8, 8, 2048]. largest: whether it pools by the maximum."""

    largest: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one = Unit(320, name="branch1x1")(x)
        three = Unit(384, name="branch3x3_1")(x)
        three = (
            Unit(384, (1, 3), name="branch3x3_2a")(three),
            Unit(384, (3, 1), name="branch3x3_2b")(three),
        )
        double = Unit(448, name="branch3x3dbl_1")(x)
        double = Unit(384, 3, name="branch3x3dbl_2")(double)
        double = (
            Unit(384, (1, 3), name="branch3x3dbl_3a")(double),
            Unit(384, (3, 1), name="branch3x3dbl_3b")(double),
        )
        pooled = _largest(x, 1, "SAME") if self.largest else _average(x)
        return _joined(one, *three, *double, Unit(192, name="branch_pool")(pooled))


class Inception(nn.Module):
    """Images [B, 299, 299, 3] in [-1, 1] -> Judged. Other sizes from 75 on work too."""

    @nn.compact
    def __call__(self, x: Array) -> Judged:
        x = Unit(32, 3, 2, same=False, name="Conv2d_1a_3x3")(x)
        x = Unit(32, 3, same=False, name="Conv2d_2a_3x3")(x)
        x = _largest(Unit(64, 3, name="Conv2d_2b_3x3")(x))
        x = Unit(80, same=False, name="Conv2d_3b_1x1")(x)
        x = _largest(Unit(192, 3, same=False, name="Conv2d_4a_3x3")(x))
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = BlockA(pooled, name=f"Mixed_5{letter}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = BlockC(width, name=f"Mixed_6{letter}")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(largest=False, name="Mixed_7b")(x)
        x = BlockE(largest=True, name="Mixed_7c")(x)
        features = x.mean((1, 2))
        weight = self.param("fc_weight", nn.initializers.lecun_normal(), (FEATURES, LOGITS))
        scores = jnp.matmul(features, weight, precision="highest")
        return Judged(features, scores + self.param("fc_bias", _ZEROS, (LOGITS,)), scores)
