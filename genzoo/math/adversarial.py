"""Objectives and penalties of generative adversarial networks.

Goodfellow et al. 2014 (Generative adversarial nets), Lim & Ye 2017 (Geometric GAN), Mescheder et
al. 2018 (Which training methods for GANs do actually converge?), Jolicoeur-Martineau 2019 (The
relativistic discriminator), Esser et al. 2021 (VQGAN: Taming transformers), Huang et al. 2024
(R3GAN: The GAN is dead; long live the GAN!). With s(u) = softplus(u) = log(1 + e^u), a critic D, an
example x of the data and one y of the generator:

    non-saturating   critic s(-D(x)) + s(D(y))    generator s(-D(y))                             (1)
    relativistic     critic s(D(y) - D(x))        generator s(D(x) - D(y))                       (2)
    penalty          |grad D|^2 at x (R1) or at y (R2), half of it times a factor                (3)
    hinge            critic (max(0, 1 - D(x)) + max(0, 1 + D(y))) / 2    generator -D(y)         (4)
    adaptive weight  min(|g| / (|g_D| + 1e-4), 1e4)                                              (5)

(1) is the two cross-entropies of telling x from y, the second with labels exchanged. In (2) the
critic only ranks: a constant added to D changes nothing. In (5) g and g_D are the gradients of
another loss and of the generator's loss by the last layer of the generator: weighted so, the two
losses pull on it with equal strength.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genzoo.core.types import Examples, Floats, PerExample, Scalar, Values, sum_per_example

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


def hinge_critic(real: Values, made: Values) -> Values:
    """The critic's loss of each score, equation (4); half the sum, as in VQGAN."""
    return (jax.nn.relu(1 - real) + jax.nn.relu(1 + made)) / 2


def hinge_generator(made: Values) -> Values:
    """The generator's loss of each score, equation (4)."""
    return -made


def adaptive_weight(gradient: Floats, adversarial: Floats) -> Scalar:
    """Equation (5), from the gradients g and g_D of the mean losses by the same weights."""
    ratio = jnp.linalg.norm(gradient.ravel()) / (jnp.linalg.norm(adversarial.ravel()) + 1e-4)
    return jnp.minimum(ratio, 1e4)


def squared_gradient(critic: Scores, x: Examples) -> tuple[PerExample, PerExample]:
    """(scores [B], |grad_x D(x)|^2 [B]), equation (3); the square is summed over all dimensions.

    The score of a row must depend on that row only, since the gradient is that of their sum.
    """

    def summed(x: Examples) -> tuple[jax.Array, PerExample]:
        scores = critic(x)
        return jnp.sum(scores), scores

    gradient, scores = jax.grad(summed, has_aux=True)(x)
    return scores, sum_per_example(jnp.square(gradient))
