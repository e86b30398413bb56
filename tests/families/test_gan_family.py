"""Adversarial training of the Dirac-GAN, whose steps are linear near the equilibrium.

Mescheder et al. 2018: the data is x = 0, the generator always gives theta, the critic is D(x) =
psi x. Near (psi, theta) = (0, 0) a step of gradient descent with the rate h and the non-saturating
loss is, with s = 1 / 2 the slope of softplus at 0,

    psi <- psi - h (s theta + gamma psi),     theta <- theta + h s psi.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.contract import Context, Encodes, Samples, capabilities
from genzoo.families.gan import GAN, NON_SATURATING, RELATIVISTIC, Penalty
from genzoo.nets.gan.settings import Adversaries
from genzoo.nets.interface import Network

RATE, GAMMA = 0.2, 0.6
CONTEXT = Context(
    batch={"x": jnp.zeros((3, 1))}, key=jax.random.key(0), step=jnp.int32(0), stats={}
)


def unused(*_, **__):
    raise AssertionError("not asked for")


def dirac(objective=NON_SATURATING, gamma=0.0, generated=False):
    generator = Network(
        init=unused, features=unused,
        apply=lambda params, z, conditions: jnp.broadcast_to(params["theta"], (len(z), 1)),
    )  # fmt: skip
    critic = Network(
        init=unused, features=unused,
        apply=lambda params, x, conditions: params["psi"] * x[:, 0],
    )  # fmt: skip
    return GAN(
        networks=Adversaries(generator=generator, critic=critic, features=1), latent=1,
        objective=objective,
        penalty=Penalty(first=gamma, last=gamma, steps=0, generated=generated),
    )  # fmt: skip


def step(family, in_turn):
    """(psi, theta) -> after a step of gradient descent, the players in turn or at once."""

    def tree(point):
        return {"critic": {"psi": point[0]}, "generator": {"theta": point[1]}}

    def slope(name, point):
        loss = family.losses[name].loss
        gradient = jax.grad(lambda point: loss(tree(point), CONTEXT)[0].mean())(point)
        return gradient[0 if name == "critic" else 1]

    def move(point):
        moved = point.at[0].add(-RATE * slope("critic", point))
        seen = moved if in_turn else point
        return moved.at[1].add(-RATE * slope("generator", seen))

    return move


def eigenvalues(family, in_turn):
    matrix = jax.jacobian(step(family, in_turn))(jnp.zeros(2))
    return np.linalg.eigvals(np.asarray(matrix, np.float64))


@pytest.mark.parametrize(
    ("objective", "generated"),
    [(NON_SATURATING, False), (RELATIVISTIC, False), (RELATIVISTIC, True)],
    ids=["non-saturating, R1", "relativistic, R1", "relativistic, R1 and R2"],
)
def test_eigenvalues_of_a_step_of_the_dirac_gan(objective, generated):
    h = RATE / 2
    at_once = eigenvalues(dirac(objective), in_turn=False)
    np.testing.assert_allclose(np.sort_complex(at_once), [1 - 1j * h, 1 + 1j * h], atol=1e-6)
    assert (np.abs(at_once) > 1).all()  # spirals out
    in_turn = eigenvalues(dirac(objective), in_turn=True)
    np.testing.assert_allclose(np.abs(in_turn), 1, atol=1e-6)  # stays on an orbit
    assert (np.abs(in_turn.imag) > 0.5 * h).all()
    gamma = GAMMA * (1 + generated)
    for order, trace in ((True, 2 - RATE * gamma - h**2), (False, 2 - RATE * gamma)):
        found = eigenvalues(dirac(objective, GAMMA, generated), in_turn=order)
        product = 1 - RATE * gamma + (0 if order else h**2)
        np.testing.assert_allclose(found.sum(), trace, atol=1e-6)
        np.testing.assert_allclose(found.prod(), product, atol=1e-6)
        assert (np.abs(found) < 1).all()  # contracts


def test_players_in_turn_stay_on_a_closed_orbit_and_the_penalty_pulls_them_in():
    """Near the equilibrium: farther out, softplus itself pulls them in slowly."""

    def distances(family, in_turn):
        move = step(family, in_turn)

        def visit(point, _):
            return move(point), jnp.linalg.norm(point)

        start = jnp.asarray([0.0, 0.02])
        return np.asarray(jax.jit(lambda: jax.lax.scan(visit, start, None, 600)[1])()) / 0.02

    orbit = distances(dirac(), True)
    assert orbit.min() > 0.9
    assert orbit.max() < 1.1
    assert distances(dirac(), False)[-1] > 10  # players at once: 1.01^300 = 19.8
    assert distances(dirac(gamma=GAMMA), True)[-1] < 1e-6


def test_the_factor_of_the_penalty_changes_along_half_a_cosine():
    penalty = Penalty(first=1.0, last=0.2, steps=10, generated=True)
    values = [float(penalty.at(jnp.int32(n))) for n in (0, 5, 10, 50)]
    np.testing.assert_allclose(values, [1.0, 0.6, 0.2, 0.2], rtol=1e-6)
    constant = Penalty(first=0.3, last=0.3, steps=0, generated=True)
    assert float(constant.at(jnp.int32(7))) == pytest.approx(0.3)


def test_capabilities():
    family = dirac()
    assert isinstance(family, Samples) and isinstance(family, Encodes)
    assert set(capabilities(family)) == {"sample", "encode"}


def test_the_penalty_is_half_the_factor_times_the_squared_gradients():
    family = dirac(RELATIVISTIC, gamma=GAMMA, generated=True)
    params = {"critic": {"psi": jnp.asarray(0.7)}, "generator": {"theta": jnp.asarray(0.4)}}
    losses, aux = family.losses["critic"].loss(params, CONTEXT)
    np.testing.assert_allclose(aux.metrics["adversarial"], np.log1p(np.exp(0.28)), rtol=1e-6)
    expected = np.log1p(np.exp(0.28)) + GAMMA / 2 * (0.49 + 0.49)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
