"""Objectives and penalties of generative adversarial networks.

Goodfellow et al. 2014 (Generative adversarial nets), Mescheder et al. 2018 (Which training methods
for GANs do actually converge?), Jolicoeur-Martineau 2019 (The relativistic discriminator), Huang et
al. 2024 (R3GAN: The GAN is dead; long live the GAN!). With s(u) = softplus(u) = log(1 + e^u), a
critic D, an example x of the data and one y of the generator:

    non-saturating   critic s(-D(x)) + s(D(y))    generator s(-D(y))                             (1)
    relativistic     critic s(D(y) - D(x))        generator s(D(x) - D(y))                       (2)
    penalty          |grad D|^2 at x (R1) or at y (R2), half of it times a factor                (3)

(1) is the two cross-entropies of telling x from y, the second with labels exchanged. In (2) the
critic only ranks: a constant added to D changes nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genzoo.core.types import Examples, PerExample, sum_per_example

Scores = Callable[[Examples], PerExample]
"""Examples [B, ...] -> the critic's score of each [B]."""


def non_saturating_critic(real: PerExample, made: PerExample) -> PerExample:
    """The critic's loss in nats [B], equation (1). real, made: its scores of x and y."""
    return jax.nn.softplus(-real) + jax.nn.softplus(made)


def non_saturating_generator(real: PerExample, made: PerExample) -> PerExample:
    """The generator's loss in nats [B], equation (1)."""
    del real
    return jax.nn.softplus(-made)


def relativistic_critic(real: PerExample, made: PerExample) -> PerExample:
    """The critic's loss in nats [B], equation (2)."""
    return jax.nn.softplus(made - real)


def relativistic_generator(real: PerExample, made: PerExample) -> PerExample:
    """The generator's loss in nats [B], equation (2)."""
    return jax.nn.softplus(real - made)


def squared_gradient(critic: Scores, x: Examples) -> tuple[PerExample, PerExample]:
    """(scores [B], |grad_x D(x)|^2 [B]), equation (3); the square is summed over all dimensions.

    The score of a row must depend on that row only, since the gradient is that of their sum.
    """

    def summed(x: Examples) -> tuple[jax.Array, PerExample]:
        scores = critic(x)
        return jnp.sum(scores), scores

    gradient, scores = jax.grad(summed, has_aux=True)(x)
    return scores, sum_per_example(jnp.square(gradient))
