"""Networks of one param each, and a critic whose score of a pixel is c x^2."""

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.contract import Context
from genzoo.families.adversarial_training import Adversary
from genzoo.nets.interface import Network

SHAPE = (2, 2, 1)
A, B, C = 0.8, 1.5, 0.7  # params of the encoder, the decoder and the critic
WEIGHT, AFTER = 0.6, 3


def unused(*_, **__):
    raise AssertionError("not asked for")


def net(apply):
    return Network(init=unused, apply=apply, features=unused)


def decode(params, z):
    """b z, where b is the last weight."""
    return params["out"]["conv"]["kernel"] * z


def score(params, x, mask):
    """c x^2: a score for every pixel."""
    del mask
    return params["c"] * jnp.square(x)[..., 0]


CRITIC = Adversary(network=net(score), after=AFTER, weight=WEIGHT)
DECODER_PARAMS = {"out": {"conv": {"kernel": jnp.float32(B)}}}
CRITIC_PARAMS = {"c": jnp.float32(C)}


def images(count=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, *SHAPE)).astype(np.float32)


def context(x, step=AFTER, mask=None, stats=None):
    return Context(
        batch={"x": jnp.asarray(x)}, key=jax.random.key(0), step=jnp.int32(step),
        stats={} if stats is None else stats, mask=mask,
    )  # fmt: skip
