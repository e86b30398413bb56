"""What autoencoders trained against a critic share: how images are compared, and the critic.

Esser et al. 2021 (Taming transformers for high-resolution image synthesis), Rombach et al. 2022
(High-resolution image synthesis with latent diffusion models). With data x, its reconstruction y
and a critic D that scores patches of images, all averaged over an example:

    error        r(x, y) = |x - y| + weight perceptual(x, y)                                     (1)
    autoencoder  likelihood(r) + a w d (-D(y))                                                   (2)
    critic       (max(0, 1 - D(x)) + max(0, 1 + D(y))) / 2                                       (3)

where d is the adaptive weight of math.adversarial, by the decoder's last layer, and a is 1 from the
first step of the critic on and 0 before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from genzoo.core import streams, tree
from genzoo.core.contract import Aux, Context, Player
from genzoo.core.types import (
    Examples,
    Floats,
    Key,
    PerExample,
    Scalar,
    Tree,
    broadcast,
    mean_per_example,
)
from genzoo.math import adversarial
from genzoo.nets.autoencoder.latent import LAST
from genzoo.nets.interface import Network

AUTOENCODER, CRITIC = "autoencoder", "critic"
"""The players; the second is also the name of the critic's params."""

Distance = Callable[[Examples, Examples], PerExample]
"""(x, y) -> a distance of each pair of images."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Equation (1). perceptual: None for none. weight: of its distance."""

    perceptual: Distance | None
    weight: float

    def __call__(self, x: Examples, y: Examples) -> tuple[PerExample, Mapping[str, PerExample]]:
        """(the error per value, its terms), [B] each."""
        error = mean_per_example(jnp.abs(x - y))
        if self.perceptual is None:
            return error, {"reconstruction": error}
        distance = self.perceptual(x, y)
        terms = {"reconstruction": error, "perceptual": distance}
        return error + self.weight * distance, terms


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A reconstruction that can be traced back to the decoder.

    decode: (params of the decoder) -> y, for fixed latents. likelihood: y -> the other terms of the
    loss that depend on y [B]. Neither carries a gradient to what it was made from.
    """

    decode: Callable[[Tree], Examples]
    likelihood: Callable[[Examples], PerExample]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary:
    """A critic of reconstructions.

    network: (x [B, *size, C], mask [B] or None) -> scores [B, *patches]. after: the step from which
    the critic moves and the autoencoder listens to it. weight: w in (2).
    """

    network: Network
    after: int
    weight: float

    def init(self, key: Key, x: Examples) -> Tree:
        """Its params."""
        return self.network.init(streams.named(key, CRITIC), x, None)

    def player(self, reconstruct: Callable[[Tree, Context], Examples]) -> Player:
        """The critic as a player. reconstruct: (params of all players, context) -> y."""
        return Player(
            loss=partial(self.loss, reconstruct),
            trains=(f"{CRITIC}/",),
            after=self.after,
            couples_rows=True,
        )

    def loss(
        self, reconstruct: Callable, params: Tree, context: Context
    ) -> tuple[PerExample, Aux]:
        """Equation (3) for each example [B]; metrics: the mean scores."""
        context = without_padding(context)
        x, y = context.batch["x"], jax.lax.stop_gradient(reconstruct(params, context))
        real, made = (
            self.network.apply(params[CRITIC], images, context.mask) for images in (x, y)
        )
        metrics = {"score_real": mean_per_example(real), "score_made": mean_per_example(made)}
        losses = mean_per_example(adversarial.hinge_critic(real, made))
        return losses, Aux(metrics=metrics, stats=context.stats)

    def term(
        self, params: Tree, context: Context, y: Examples, decoder: Tree, decoded: Decoded
    ) -> tuple[PerExample, Mapping[str, PerExample]]:
        """The last term of (2) for each example [B], and its metrics. params: those of the critic.
        y: through which the gradient flows. decoder: params of the decoder."""
        losses = self._adversarial(params, y, context.mask)
        fixed = jax.lax.stop_gradient((params, decoder))
        weight = self.weight * self._adaptive(*fixed, decoded, context.mask)
        weight = jnp.where(context.step >= self.after, weight, 0.0)  # as for the critic
        metrics = {
            "adversarial": losses,
            "adversarial_weight": jnp.broadcast_to(weight, losses.shape),
        }
        return weight * losses, metrics

    def _adversarial(self, params: Tree, y: Examples, mask: PerExample | None) -> PerExample:
        scores = self.network.apply(params, y, mask)
        return mean_per_example(adversarial.hinge_generator(scores))

    def _adaptive(
        self, critic: Tree, decoder: Tree, decoded: Decoded, mask: PerExample | None
    ) -> Scalar:
        """d in (2), without a gradient."""
        last, others = tree.split(decoder, lambda path: path == LAST)
        y, pull = jax.vjp(lambda last: decoded.decode(tree.joined(others, last)), last)

        def gradient(losses: Callable[[Examples], PerExample]) -> Floats:
            (own,) = pull(jax.grad(lambda y: _mean(losses(y), mask))(y))
            (kernel,) = jax.tree.leaves(own)
            return kernel

        of_critic = gradient(lambda y: self._adversarial(critic, y, mask))
        return adversarial.adaptive_weight(gradient(decoded.likelihood), of_critic)


def _mean(losses: PerExample, mask: PerExample | None) -> Scalar:
    return jnp.mean(losses, where=None if mask is None else mask > 0)


def without_padding(context: Context) -> Context:
    """The context with zeros in the padding of x, where anything may be."""
    if context.mask is None:
        return context
    x = context.batch["x"]
    x = jnp.where(broadcast(context.mask > 0, x), x, 0)
    return replace(context, batch={**context.batch, "x": x})


def of_autoencoder(measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """The metrics with those of the autoencoder by their plain names, whether or not there is a
    critic beside it."""
    return {name.removesuffix(f"_{AUTOENCODER}"): value for name, value in measured.items()}
