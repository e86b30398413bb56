"""The VDM bound on data and networks for which every term is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.contract import Context, Variables, capabilities
from genzoo.families.denoiser import Denoiser
from genzoo.families.vdm import VDM, LearnedGamma, rescaled_gamma
from genzoo.math import continuous, likelihood, monotone, prediction
from genzoo.samplers import grids
from genzoo.samplers.predictor import unchanged
from genzoo.samplers.solver import Solver
from genzoo.samplers.steps import DDIM

LOW, HIGH = -13.3, 5.0
# x ~ N(0, 1), gamma from -13.3 to 5, the best network (computed by quadrature elsewhere).
DIFFUSION, RECONSTRUCTION, PRIOR = 6.6466431630, -5.2310614668, 0.0033576742
TOTAL = 1.4189393705


class Best:
    """The best eps of standard normal data, E[eps | z] = sigma z, from the scaled gamma."""

    def init(self, key, *inputs):
        return {}

    def apply(self, params, z, level, conditions, train=False, key=None):
        gamma = LOW + (HIGH - LOW) * level / 1000
        return jnp.sqrt(jax.nn.sigmoid(gamma))[:, None] * z


def fixed(gamma):
    return LearnedGamma(start=lambda key: {}, gamma=lambda params, t: gamma(t))


LINEAR = fixed(continuous.linear_gamma(LOW, HIGH))
SMOOTH = fixed(lambda t: LOW + (HIGH - LOW) * t * t * (3 - 2 * t))


def make(learned=LINEAR, **changes):
    parts = {
        "denoiser": Denoiser(
            network=Best(), prediction=prediction.EPS, noise_level=rescaled_gamma(LOW, HIGH)
        ),
        "shape": (1,), "schedule": learned, "clipping": unchanged, "levels": False,
        "steps": 0, "draws": 16,
        "sampler": Solver(
            method=lambda schedule: DDIM(schedule=schedule), grid=grids.even, steps=200
        ).sampler,
    }  # fmt: skip
    return VDM(**{**parts, **changes})


PARAMS = {"network": {}, "gamma": {}}


def expected_diffusion(family, order=64):
    """The diffusion term on N(0, 1), by Gauss-Legendre over t; the two expectations over x and eps
    are known: E (eps - eps_theta)^2 = alpha^2, by a two-point rule that is exact for squares."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    t, w = jnp.asarray((nodes + 1) / 2), weights / 2
    points = np.array([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    values = np.zeros(order)
    for x, eps in points:
        here = jnp.full((order, 1), x), t, jnp.full((order, 1), eps)
        values += np.asarray(family.diffusion(PARAMS, *here, {})) / 4
    return float(values @ w)


@pytest.mark.parametrize("learned", [LINEAR, SMOOTH], ids=["linear", "smooth"])
def test_the_continuous_diffusion_loss_is_the_figure_whatever_the_schedule(learned):
    assert expected_diffusion(make(learned)) == pytest.approx(DIFFUSION, rel=2e-5)


@pytest.mark.parametrize(
    ("steps", "figure"), [(10, 17.70785), (100, 7.2437929), (1000, 6.7032463)]
)
def test_the_discrete_bound_is_the_figure(steps, figure):
    # Every step once, at its midpoint.
    family = make(steps=steps)
    t = (jnp.arange(steps) + 0.5) / steps
    total = np.zeros(steps)
    for x, eps in ((1, 1), (1, -1)):
        here = jnp.full((steps, 1), float(x)), t, jnp.full((steps, 1), float(eps))
        total += np.asarray(family.diffusion(PARAMS, *here, {}), np.float64) / 2
    # float32: a difference of gammas of 0.0183 has 1e-4 of rounding
    assert total.mean() == pytest.approx(figure, rel=3e-4)
    if steps == 1000:
        assert (total.mean() - DIFFUSION) * steps == pytest.approx(56.6, rel=0.05)


def test_the_ends_are_the_figures():
    family = make()
    x = jnp.asarray([[1.0], [-1.0]])  # E x^2 = E eps^2 = 1
    terms = family.ends(PARAMS, x, x[::-1])
    assert float(terms["reconstruction"].mean()) == pytest.approx(RECONSTRUCTION, rel=1e-6)
    assert float(terms["prior"].mean()) == pytest.approx(PRIOR, rel=1e-4)
    total = float(terms["prior"].mean() + terms["reconstruction"].mean())
    assert total + expected_diffusion(family) == pytest.approx(TOTAL, abs=2e-4)
    assert TOTAL - 0.5 * np.log(2 * np.pi * np.e) == pytest.approx(8.4e-7, abs=1e-7)


def test_the_likelihood_is_near_the_entropy_and_spreads_as_it_says():
    family = make(draws=64)
    assert set(capabilities(family)) == {"sample", "reconstruct", "likelihood"}
    x = jax.random.normal(jax.random.key(0), (4000, 1))
    keys = streams.per_example(streams.root(0), jnp.arange(4000))
    variables = Variables(params=PARAMS)
    bound = jax.jit(lambda x: family.likelihood(variables, {"x": x}, keys))(x)
    exact = 0.5 * (np.log(2 * np.pi) + np.square(x[:, 0]))
    error = bound.total - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(x)) < 0.1
    positions, values = bound.curve
    assert bound.density and positions.shape == (64,)
    np.testing.assert_allclose(values.sum(1), bound.terms["diffusion"], rtol=1e-4)


@pytest.mark.parametrize(("seed", "example"), [(245, 2211), (1596, 8304)])
def test_the_likelihood_is_finite_where_the_uniform_number_is_0(seed, example):
    # At t = 0 there is no noise, and logsnr is infinite, of which a network's sine would be nan.
    class Sine(Best):
        def apply(self, params, z, level, conditions, train=False, key=None):
            return jnp.sin(level)[:, None] * z

    root = streams.named(streams.root(seed), "likelihood")
    keys = streams.per_example(root, jnp.asarray([example]))
    assert float(streams.uniform(streams.fold(streams.fold(keys, 0), 0))[0]) == 0
    family = make()
    family = replace(family, denoiser=replace(family.denoiser, network=Sine()))
    bound = family.likelihood(Variables(params=PARAMS), {"x": jnp.ones((1, 1))}, keys)
    assert np.isfinite(bound.total).all() and np.isfinite(bound.curve[1]).all()


def test_training_sees_the_bound_and_its_terms():
    family = make()
    x = jax.random.normal(jax.random.key(0), (4096, 1))
    context = Context(
        batch={"x": x}, key=jax.random.key(1), step=jnp.int32(0), stats={}, train=True
    )
    losses, aux = jax.jit(family.loss)(PARAMS, context)
    terms = [aux.metrics[k] for k in ("prior", "reconstruction", "diffusion")]
    np.testing.assert_allclose(sum(terms), losses, rtol=1e-5, atol=1e-5)  # terms of about 5
    assert abs(float(losses.mean()) - TOTAL) < 4 * float(losses.std()) / np.sqrt(4096)


@pytest.mark.parametrize(
    "learned",
    [
        LearnedGamma(start=monotone.init_linear, gamma=monotone.linear),
        LearnedGamma(start=monotone.init_monotone, gamma=monotone.monotone),
    ],
    ids=["linear", "monotone"],
)
def test_what_is_learned_of_the_schedule_starts_at_its_ends_and_has_gradients(learned):
    family = make(learned)
    params = {"network": {}, "gamma": learned.init(jax.random.key(0))}
    schedule = family.schedule_of(params)
    assert float(schedule.logsnr(jnp.float32(1.0))) == pytest.approx(-HIGH, rel=1e-4)
    assert float(schedule.logsnr(jnp.float32(1e-7))) == pytest.approx(-LOW, rel=1e-4)
    x = jax.random.normal(jax.random.key(0), (64, 1))
    context = Context(
        batch={"x": x}, key=jax.random.key(1), step=jnp.int32(0), stats={}, train=True
    )
    slopes = jax.jit(jax.grad(lambda p: family.loss(p, context)[0].mean()))(params)["gamma"]
    sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes)]
    assert np.all(np.isfinite(sizes)) and max(sizes) > 0


def test_levels_are_decoded_by_their_softmax():
    # gamma_0 = -11: the noise is half a level, so that only neighbours count
    family = make(fixed(continuous.linear_gamma(-11.0, 5.0)), levels=True, shape=(2, 2, 1))
    x = jnp.asarray([0, 128, 200, 255]).reshape(1, 2, 2, 1) / 127.5 - 1
    terms = family.ends(PARAMS, x, jnp.zeros_like(x))
    near, next_to = (np.exp(-0.5 * (k / 127.5) ** 2 * np.exp(11.0)) for k in (1, 2))
    exact = 2 * np.log(1 + 2 * (near + next_to)) + 2 * np.log(1 + near + next_to)
    np.testing.assert_allclose(terms["reconstruction"][0], exact, rtol=1e-3)


def test_samples_are_standard_normal():
    family = make()
    keys = streams.per_example(streams.root(0), jnp.arange(4000))
    out = jax.jit(lambda k: family.sample(Variables(params=PARAMS), k, {}))(keys)
    assert abs(float(out.mean())) < 4 / np.sqrt(4000)
    assert float(out.std()) == pytest.approx(1, abs=0.06)


def test_log_level_is_the_softmax_over_all_levels(float64):
    levels = jnp.arange(256) / 127.5 - 1

    def direct(x, seen, log_variance):
        logits = -0.5 * jnp.square(seen[:, None] - levels) * jnp.exp(-log_variance)
        index = jnp.round((x + 1) * 127.5).astype(int)[:, None]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), index, 1)[:, 0]

    x = levels[jnp.array([0, 3, 100, 141, 255])]
    seen = jnp.array([-1.4, -0.99, -0.3331, 0.0, 1.2])
    for log_variance in (-13.3, -9.0, -2.0):
        log_prob = likelihood.log_level(x, seen, jnp.float64(log_variance))
        np.testing.assert_allclose(log_prob, direct(x, seen, log_variance), rtol=1e-9, atol=1e-9)
        slopes = [
            jax.grad(lambda *a, f=f: f(x, *a).sum(), (0, 1))(seen, jnp.float64(log_variance))
            for f in (likelihood.log_level, direct)
        ]
        for a, b in zip(*slopes, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_log_level_sums_over_the_batch_once_and_not_at_every_level():
    x = jnp.zeros((4, 3))
    slope = jax.make_jaxpr(jax.grad(lambda v: likelihood.log_level(x, x, v).sum()))(-2.0)
    loops = [eqn for eqn in slope.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert loops and not any("reduce_sum" in str(loop.params["jaxpr"]) for loop in loops)
    assert "reduce_sum" in str(slope)
