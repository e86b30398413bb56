"""Adversarial objectives by hand, and the penalty of critics whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.math import adversarial

REAL, MADE = np.array([0.3, -1.2, 4.0]), np.array([-0.5, 0.7, 4.0])


def softplus(u):
    return np.log1p(np.exp(u))


def test_objectives_by_hand():
    real, made = jnp.asarray(REAL, jnp.float32), jnp.asarray(MADE, jnp.float32)
    cases = {
        "non_saturating_critic": softplus(-REAL) + softplus(MADE),
        "non_saturating_generator": softplus(-MADE),
        "relativistic_critic": softplus(MADE - REAL),
        "relativistic_generator": softplus(REAL - MADE),
    }
    for name, expected in cases.items():
        np.testing.assert_allclose(getattr(adversarial, name)(real, made), expected, rtol=1e-6)


def test_the_hinge_by_hand():
    """(max(0, 1 - x) + max(0, 1 + y)) / 2, for maps of scores too."""
    for shape in ((3,), (1, 3, 1)):
        real, made = (jnp.asarray(scores.reshape(shape)) for scores in (REAL, MADE))
        expected = np.array([0.7 + 0.5, 2.2 + 1.7, 0 + 5]).reshape(shape) / 2
        np.testing.assert_allclose(adversarial.hinge_critic(real, made), expected, rtol=1e-6)
        np.testing.assert_array_equal(adversarial.hinge_generator(made), -made)
    # A score beyond the margin has no gradient any more.
    slopes = jax.grad(lambda u: adversarial.hinge_critic(u, -u))(jnp.float32(1.5))
    assert slopes == 0


def test_the_adaptive_weight_is_a_ratio_of_norms_with_bounds():
    one, other = jnp.asarray([[3.0, 0.0], [0.0, 4.0]]), jnp.asarray([[0.0, 0.6], [-0.8, 0.0]])
    np.testing.assert_allclose(adversarial.adaptive_weight(one, other), 5 / 1.0001, rtol=1e-6)
    np.testing.assert_allclose(adversarial.adaptive_weight(other, one), 1 / 5.0001, rtol=1e-6)
    nothing = jnp.zeros((2, 2))
    assert adversarial.adaptive_weight(nothing, one) == 0
    np.testing.assert_allclose(adversarial.adaptive_weight(other / 2, nothing), 5e3, rtol=1e-6)
    np.testing.assert_allclose(adversarial.adaptive_weight(one, nothing), 1e4, rtol=1e-6)


def test_equal_scores_give_ln_2_for_each_choice():
    same = jnp.zeros(2)
    np.testing.assert_allclose(adversarial.relativistic_critic(same, same), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(
        adversarial.non_saturating_critic(same, same), 2 * np.log(2), rtol=1e-6
    )


def test_a_constant_added_to_the_critic_changes_no_relativistic_loss():
    real, made = jnp.asarray(REAL), jnp.asarray(MADE)
    for loss in (adversarial.relativistic_critic, adversarial.relativistic_generator):
        np.testing.assert_allclose(loss(real + 3, made + 3), loss(real, made), rtol=1e-5)


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_weights():
    weights = jnp.asarray([[0.5, -2.0], [1.5, 0.25]])
    x = jax.random.normal(jax.random.key(0), (5, 2, 2))
    scores, squares = adversarial.squared_gradient(lambda x: (weights * x).sum((1, 2)) + 7, x)
    np.testing.assert_allclose(scores, (weights * x).sum((1, 2)) + 7, rtol=1e-6)
    np.testing.assert_allclose(squares, np.full(5, 6.5625), rtol=1e-6)


def test_the_gradient_of_the_penalty_by_the_weights_is_exact():
    x = jax.random.normal(jax.random.key(0), (4, 3))

    def penalty(w):
        return adversarial.squared_gradient(lambda x: jnp.sin(x @ w), x)[1].sum()

    w = jnp.asarray([0.3, -0.8, 1.1])
    cosine, sine = np.cos(x @ w), np.sin(x @ w)
    # |grad|^2 = cos^2(x.w) |w|^2
    square = float(w @ w)
    expected = (2 * cosine**2).sum() * np.asarray(w) - 2 * square * (cosine * sine) @ np.asarray(x)
    np.testing.assert_allclose(jax.grad(penalty)(w), expected, rtol=1e-5)
