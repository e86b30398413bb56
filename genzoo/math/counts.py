"""Word counts x [..., V] of documents: the inputs of networks, and their distribution.

With N = sum_w x_w words and the logits l of a decoder:

    u = log(1 + x) / |log(1 + x)|                                                             (1)
    log p(x | l) = sum_w x_w log softmax(l)_w          (Miao et al. 2016, eq. 7)               (2)
    cross-entropy = -log p(x | l) / N                  (Hinton & Salakhutdinov 2006)           (3)

The logarithm in (1) keeps a repeated word from outweighing all others. (2) is the multinomial
distribution of x given N up to the multinomial coefficient, that is, the probability of the words
in a given order. Perplexity per word is exp of minus (2) over N.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Keys, PerExample, Tree, Values, Vectors
from genzoo.math.observation import Data, Output, Outputs, Samples


def log_scaled(x: Vectors) -> Vectors:
    """Equation (1), [B, V]; a document without words stays zero."""
    logs = jnp.log1p(x)
    squares = jnp.square(logs).sum(-1, keepdims=True)
    return logs * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1))


def cross_entropy(x: Vectors, logits: Vectors) -> PerExample:
    """Equation (3) in nats per word, [B]; 0 for a document without words."""
    total = -(x * jax.nn.log_softmax(logits)).sum(-1)
    return total / jnp.maximum(x.sum(-1), 1)


@dataclass(frozen=True, kw_only=True)
class Multinomial:
    """Equation (2), an observation model of documents."""

    density: ClassVar[bool] = False

    def outputs(self, channels: int) -> int:
        """One logit per word of the vocabulary."""
        return channels

    def init(self) -> Tree:
        """No params of its own."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The counts unchanged."""
        return x

    def inputs(self, x: Values) -> Values:
        """log(1 + x). Unlike (1) it keeps the length of a document; the posterior of a long one is
        narrow."""
        return jnp.log1p(x)

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """The terms of (2), one per word of the vocabulary."""
        return x * jax.nn.log_softmax(output)

    def mean(self, own: Tree, output: Output) -> Data:
        """The probability of each word: the mean of a document of one word."""
        return jax.nn.softmax(output)

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """A document of one word, sampled by the Gumbel-max trick."""
        uniform = streams.uniform(keys, output.shape[1:])
        gumbel = -jnp.log(-jnp.log(jnp.maximum(uniform, jnp.finfo(uniform.dtype).tiny)))
        return jax.nn.one_hot((output + gumbel).argmax(-1), output.shape[-1], dtype=output.dtype)
