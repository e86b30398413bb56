"""Score SDEs, EDM and flow matching with exact networks, whose losses, samples and likelihoods are
known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.conditions import Condition, Given, field
from genzoo.core.contract import Context, Likelihoods, Samples, Solves, Variables, capabilities
from genzoo.data.augment import Augmentation
from genzoo.families.denoiser import Denoiser, thousandths, unscaled
from genzoo.families.denoising import Denoising, Guidance
from genzoo.families.edm import AUGMENTATION, EDM
from genzoo.families.flow_matching import FlowMatching
from genzoo.families.score_sde import ScoreSDE, log_noise
from genzoo.math import continuous, gaussian, precondition, prediction, times, weighting
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.samplers import grids, ode_likelihood
from genzoo.samplers.predictor import unchanged
from genzoo.samplers.runge_kutta import Heun
from genzoo.samplers.solver import Solver

MIXTURE = GaussianMixture(
    weights=np.array([0.3, 0.7]),
    means=np.array([[-1.4, 0.7], [0.6, -0.3]]),  # of mean 0, as the prior is
    deviations=np.array([0.3, 0.5]),
)
SPREAD = 0.6  # of the single Gaussian whose best losses are known in closed form
ONE = GaussianMixture(
    weights=np.ones(1), means=np.zeros((1, 2)), deviations=np.array([SPREAD])
)


class Exact:
    """A network that predicts its kind of output exactly and records its conditions."""

    def __init__(self, data, schedule, kind, invert, unscale=lambda schedule, x, t: x):
        self.data, self.schedule, self.kind = data, schedule, kind
        self.invert, self.unscale, self.seen = invert, unscale, []

    def init(self, key, *inputs):
        return {"inputs": len(inputs)}

    def apply(self, params, x, level, conditions, *, train=False, key=None):
        self.seen.append(conditions)
        t = self.invert(self.schedule, level)
        x = self.unscale(self.schedule, x, t)
        pair = self.data.predict(self.schedule)(x, t)
        return self.kind.from_pair(pair, self.schedule, t)


def of_thousandths(schedule, level):
    return level / 1000


def of_log_noise(schedule, level):
    return schedule.time_of_logsnr(-2 * level / 1000)


def of_c_noise(schedule, level):
    return schedule.time_of_logsnr(-8 * level)


FLOW = ode_likelihood.OdeLikelihood(trace=ode_likelihood.exact(), rtol=1e-5, atol=1e-5)


def solver(steps=64):
    return Solver(
        method=lambda schedule: Heun(schedule=schedule), grid=grids.karras(), steps=steps
    ).sampler


def shared(network, kind, noise_level=thousandths, input_scale=unscaled):
    denoiser = Denoiser(
        network=network, prediction=kind, noise_level=noise_level, input_scale=input_scale
    )
    return {
        "denoiser": denoiser, "shape": (2,), "sampler": solver(), "clipping": unchanged,
        "levels": False, "ode": FLOW,
    }  # fmt: skip


def labelled(dropout=0.0):
    return {"label": Condition(read=field("label"), dropout=dropout)}


def given(labels, present=True):
    return {"label": Given(labels, jnp.full(labels.shape, present))}


def vp(data=MIXTURE, kind=prediction.EPS, schedule=None, **changes):
    schedule = schedule or continuous.VariancePreserving()
    network = changes.pop("network", None) or Exact(data, schedule, kind, of_thousandths)
    parts = {
        **shared(network, kind, changes.pop("noise_level", thousandths)),
        "schedule": schedule, "times": times.UniformTimes(),
        "weighting": weighting.SCORE_MATCHING, "dequantises": False,
    }  # fmt: skip
    return ScoreSDE(**{**parts, **changes})


def sub_vp(data=MIXTURE, **changes):
    return vp(data, schedule=continuous.SubVariancePreserving(), **changes)


def ve(data=MIXTURE, **changes):
    schedule = changes.pop("schedule", None) or continuous.VarianceExploding()
    network = Exact(data, schedule, prediction.EPS, of_log_noise)
    own = {"noise_level": log_noise, "network": network}
    return vp(data, schedule=schedule, **{**own, **changes})


def edm(data=MIXTURE, **changes):
    schedule, kind = continuous.LinearNoise(), precondition.preconditioned(0.5)
    scale = precondition.input_scale(0.5)
    network = Exact(
        data, schedule, kind, of_c_noise, lambda s, x, t: x / scale(s, t)[:, None]
    )
    network = changes.pop("network", None) or network
    parts = {
        **shared(network, kind, precondition.noise_level, scale), "schedule": schedule,
        "weighting": weighting.UNIFORM, "times": times.LogNormalNoise(),
    }  # fmt: skip
    return EDM(**{**parts, **changes})


def flow(data=MIXTURE, **changes):
    schedule, kind = continuous.Straight(), prediction.VELOCITY
    network = changes.pop("network", None) or Exact(data, schedule, kind, of_thousandths)
    parts = {
        **shared(network, kind), "schedule": schedule, "weighting": weighting.VELOCITY,
        "times": times.UniformTimes(low=1e-3), "paired": False,
    }  # fmt: skip
    return FlowMatching(**{**parts, **changes})


ALL = [vp, sub_vp, ve, edm, flow]
MAKERS = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def keys_of(count, seed=0):
    return streams.per_example(streams.root(seed), jnp.arange(count))


def context_of(x, seed=0, labels=None, train=True):
    batch = {"x": x} | ({} if labels is None else {"label": labels})
    return Context(
        batch=batch, key=jax.random.key(seed), step=jnp.int32(0), stats={}, train=train
    )


@MAKERS
def test_capabilities(make):
    family = make()
    assert isinstance(family, Denoising)
    assert isinstance(family, Samples) and isinstance(family, Likelihoods)
    assert isinstance(family, Solves)
    assert set(capabilities(family)) == {"sample", "reconstruct", "likelihood"}


@MAKERS
def test_the_best_loss_on_a_gaussian_is_its_closed_form(make):
    # For x_0 ~ N(0, s^2) the posterior of (x_0, eps) given x_t is a Gaussian on a line: errors of
    # x_0 have variance s^2 sigma^2 / (alpha^2 s^2 + sigma^2), those of eps alpha^2 s^2 / (...).
    family = make(ONE)
    count = 100_000
    x = SPREAD * jax.random.normal(jax.random.key(1), (count, 2))
    losses, aux = jax.jit(family.loss)({}, context_of(x))
    t = np.linspace(0, 1, 200_001)[1:] - 2.5e-6
    t = np.asarray(family.times.quantile(jnp.asarray(t), family.schedule))
    schedule = family.schedule
    alpha, sigma = (np.asarray(f(t), np.float64) for f in (schedule.alpha, schedule.sigma))
    variance = alpha**2 * SPREAD**2 + sigma**2
    # The error is along (x_0, eps) = (sigma, -alpha) e; this is its size in the weighting's kind.
    kind = family.weighting.kind or family.denoiser.prediction
    one = prediction.Pair(jnp.asarray(sigma)[:, None], -jnp.asarray(alpha)[:, None])
    unit = np.asarray(kind.from_pair(one, schedule, jnp.asarray(t)))[:, 0]
    expected = np.mean(unit**2 * SPREAD**2 / variance)
    error = np.asarray(losses).std() / np.sqrt(count)
    assert abs(losses.mean() - expected) < 4 * error
    assert error < 0.02 * expected
    quarters = [np.sum(m.values * m.weights) for k, m in aux.metrics.items() if "_q" in k]
    np.testing.assert_allclose(sum(quarters), losses.sum(), rtol=1e-4)


def test_edm_is_the_weighted_error_of_the_denoiser():
    # Karras et al. 2022, eq. 8: lambda(sigma) |D - y|^2 with lambda of table 1, sample by sample.
    class Wrong(Exact):
        def apply(self, params, x, level, conditions, **kwargs):
            return jnp.tanh(x) + level[:, None]

    family = edm()
    schedule, kind = family.schedule, family.denoiser.prediction
    family = edm(network=Wrong(MIXTURE, schedule, kind, of_c_noise))
    x = MIXTURE.sample(jax.random.key(3), 500)
    losses, _ = family.loss({}, context_of(x))
    draw, noise = (streams.named(context_of(x).key, name) for name in ("time", "noise"))
    sigma = np.asarray(schedule.sigma(family.times.draw(draw, 500, schedule)), np.float64)[:, None]
    y = np.asarray(x + sigma * jax.random.normal(noise, x.shape))
    root = np.sqrt(sigma**2 + 0.25)
    c_skip, c_out, c_in = 0.25 / root**2, sigma * 0.5 / root, 1 / root
    denoised = c_skip * y + c_out * (np.tanh(c_in * y) + np.log(sigma) / 4)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    np.testing.assert_allclose(
        losses, np.mean(weight * (denoised - x) ** 2, 1), rtol=2e-4, atol=1e-5
    )


def test_the_likelihood_weighting_by_weights_and_by_times_is_one_loss():
    # Song et al. 2021b: drawing t in proportion to g^2 / sigma^2 changes the loss only by a factor.
    plain = vp(ONE, weighting=weighting.LIKELIHOOD)
    drawn = vp(ONE, times=times.LikelihoodWeighted())
    x = SPREAD * jax.random.normal(jax.random.key(1), (100_000, 2))
    weighted, _ = jax.jit(plain.loss)({}, context_of(x))
    even, _ = jax.jit(drawn.loss)({}, context_of(x))
    span = np.diff(np.asarray(plain.schedule.logsnr(jnp.asarray([1.0, 1e-5]))))[0]
    error = np.hypot(np.std(weighted), span * np.std(even)) / np.sqrt(len(x))
    assert abs(weighted.mean() - span * even.mean()) < 4 * error
    assert np.std(even) * span < np.std(weighted)  # the purpose of these times


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=make.__name__, marks=[pytest.mark.slow] * (make in (sub_vp, ve)))
        for make in ALL
    ],
)
def test_samples_have_the_moments_of_the_mixture(make):
    family = make()
    count = 4000
    out = jax.jit(lambda keys: family.solve(Variables(params={}), keys, {}))(keys_of(count))
    covariance = np.cov(np.asarray(out.x).T)
    error = 4 / np.sqrt(count)
    np.testing.assert_allclose(out.x.mean(0), MIXTURE.mean, atol=error)
    np.testing.assert_allclose(covariance, MIXTURE.covariance, atol=1.5 * error)
    np.testing.assert_array_equal(out.evaluations, 2 * 64 - 1)


@MAKERS
def test_the_likelihood_is_the_exact_density(make):
    family = make()
    x = MIXTURE.sample(jax.random.key(5), 64)
    run = jax.jit(lambda x: family.likelihood(Variables(params={}), {"x": x}, keys_of(64)))
    likelihood = run(x)
    assert likelihood.density
    # x is taken to be x_t at the nearest time, where the density is the noised one.
    t = jnp.float32(family.schedule.nearest)
    exact = -MIXTURE.log_density(x, family.schedule.alpha(t), family.schedule.sigma(t))
    np.testing.assert_allclose(likelihood.total, exact, atol=5e-3)
    np.testing.assert_allclose(sum(likelihood.terms.values()), likelihood.total, rtol=1e-5)


@pytest.mark.parametrize("make", [vp, edm, flow], ids=lambda make: make.__name__)
def test_a_flow_that_ends_early_with_a_decoder_bounds_the_likelihood(make):
    end = 0.3
    family = make(ONE, ode=dataclasses.replace(FLOW, end=end, decoded=True))
    x = jnp.asarray(np.random.default_rng(3).normal(0, SPREAD, (256, 2)), jnp.float32)
    run = jax.jit(lambda x: family.likelihood(Variables(params={}), {"x": x}, keys_of(256)))
    bound = run(x)
    assert set(bound.terms) == {"prior", "change", "noise", "decoder"}
    # Bayes: with the true p(x | x_t) as decoder it would be -log p(x), whatever x_t is.
    alpha, sigma = (np.float64(f(jnp.asarray(end))) for f in (family.schedule.alpha,
                                                              family.schedule.sigma))  # fmt: skip
    x_t = alpha * x + sigma * streams.normal(streams.fold(keys_of(256), 0), (2,), jnp.float32)
    noise = (sigma / alpha) ** 2
    posterior = 1 / (1 / SPREAD**2 + 1 / noise)
    error = np.asarray(x - posterior / noise * x_t / alpha, np.float64)

    def nats(variance):
        return (0.5 * error**2 / variance + 0.5 * np.log(2 * np.pi * variance)).sum(-1)

    exact = -np.asarray(ONE.log_density(x), np.float64)
    np.testing.assert_allclose(bound.total, exact + nats(noise) - nats(posterior), atol=5e-3)
    assert bound.total.mean() > exact.mean()


def test_inversion_brings_data_to_their_noise_and_back():
    errors = []
    x, keys = MIXTURE.sample(jax.random.key(2), 256), keys_of(256)
    for steps in (100, 200):
        family = vp(sampler=solver(steps))
        run = jax.jit(lambda x, f=family: f.reconstruct(Variables(params={}), {"x": x}, keys))
        errors.append(float(jnp.sqrt(jnp.mean(jnp.square(run(x) - x)))))
    assert errors[1] < 0.05
    assert errors[1] < 0.6 * errors[0]  # order 1


def test_images_are_dequantised_and_counted_in_levels():
    # For a density that is flat over the bins, independent levels of equal probability have log 256
    # nats each. A wide Gaussian is nearly flat around its mean.
    wide = GaussianMixture(weights=np.ones(1), means=np.zeros((1, 1)), deviations=np.array([5.0]))
    schedule = continuous.VarianceExploding(sigma_max=500.0)

    class Flat(Exact):
        def apply(self, params, x, level, conditions, **kwargs):
            flat = x.reshape(-1, 1)
            t = jnp.repeat(self.invert(self.schedule, level), 4)
            pair = self.data.predict(self.schedule)(flat, t)
            return pair.eps.reshape(x.shape)

    family = ve(
        network=Flat(wide, schedule, prediction.EPS, of_log_noise), schedule=schedule,
        shape=(2, 2, 1), levels=True,
    )  # fmt: skip
    image = jnp.asarray([[-1.0, 0.2], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    likelihood = family.likelihood(Variables(params={}), {"x": image}, keys_of(1))
    assert not likelihood.density
    density = -0.5 * np.log(2 * np.pi * 25) - np.square(image).sum() / 50 / 4
    np.testing.assert_allclose(likelihood.total[0] / 4, np.log(127.5) - density, atol=2e-3)
    # Where the density is flat, so is p(x | x_t) over the levels around x_t: the bound is tight.
    end = float(schedule.time_of_logsnr(jnp.asarray(-2 * np.log(0.05))))
    early = dataclasses.replace(FLOW, end=end, decoded=True)
    inside = jnp.asarray([20, 100, 140, 240]).reshape(1, 2, 2, 1) / 127.5 - 1
    bound = dataclasses.replace(family, ode=early).likelihood(
        Variables(params={}), {"x": inside}, keys_of(1)
    )
    density = -0.5 * np.log(2 * np.pi * 25) - np.square(inside).sum() / 50 / 4
    np.testing.assert_allclose(bound.total[0] / 4, np.log(127.5) - density, atol=2e-3)


def test_labels_are_dropped_in_training_only():
    family = flow(conditions=labelled(dropout=0.4))
    x, labels = jnp.zeros((2000, 2)), jnp.arange(2000) % 3
    family.loss({}, context_of(x, labels=labels))
    seen = family.denoiser.network.seen
    assert 0.35 < 1 - np.mean(seen[-1]["label"].present) < 0.45
    np.testing.assert_array_equal(seen[-1]["label"].value, labels)
    family.loss({}, context_of(x, labels=labels, train=False))
    assert np.all(seen[-1]["label"].present)


class ByLabel(Exact):
    """Predicts for one Gaussian per class, or for all of them where the class is absent."""

    def apply(self, params, x, level, conditions, **kwargs):
        t = self.invert(self.schedule, level)
        answers = [
            self.kind.from_pair(data.predict(self.schedule)(x, t), self.schedule, t)
            for data in self.data
        ]
        label, present = conditions["label"]
        return jnp.stack(answers, 1)[jnp.arange(len(x)), jnp.where(present, label, 2)]


def one(mean):
    return GaussianMixture(
        weights=np.ones(1), means=np.array([mean]), deviations=np.array([0.4])
    )


CLASSES = [one([1.0, 0.0]), one([-0.5, 1.0])]
TOGETHER = GaussianMixture(
    weights=np.full(2, 0.5), means=np.array([[1.0, 0.0], [-0.5, 1.0]]), deviations=np.full(2, 0.4)
)


def guided(**guidance):
    schedule = continuous.Straight()
    network = ByLabel([*CLASSES, TOGETHER], schedule, prediction.VELOCITY, of_thousandths)
    return flow(
        network=network, conditions=labelled(dropout=0.1), guidance=Guidance(**guidance)
    )


def test_guidance_follows_its_scale():
    labels = jnp.arange(6) % 2
    conditions = given(labels)
    x = jax.random.normal(jax.random.key(0), (6, 2))
    variables, t, scales = Variables(params={}), jnp.float32(0.6), (0.0, 2.5)

    @jax.jit
    def predicted(x, t):
        on = guided().predictor(variables, conditions)(x, t)
        off = guided().predictor(variables, given(labels, present=False))(x, t)
        seen, handed = [], []
        for scale in scales:
            seen.append(guided(scale=scale).predictor(variables, conditions)(x, t))
            of_scale = guided().predictor(variables, conditions, jnp.float32(scale))
            handed.append(of_scale(x, t))
        limited = guided(scale=2.5, low=0.1, high=0.5).predictor(variables, conditions)
        return on, off, seen, handed, limited(x, t)

    on, off, *by_scale, limited = predicted(x, t)
    for scale, seen, handed in zip(scales, *by_scale, strict=True):
        np.testing.assert_allclose(seen.eps, off.eps + scale * (on.eps - off.eps), atol=1e-5)
        np.testing.assert_allclose(handed.x_0, seen.x_0, atol=1e-6)
    np.testing.assert_allclose(limited.eps, on.eps, atol=1e-6)


def test_a_weaker_model_is_leaned_away_from():
    family = guided(scale=3.0)
    weaker = vp(one([0.0, 0.0]))  # on another schedule
    family = dataclasses.replace(family, guide=weaker)
    labels = jnp.zeros(5, jnp.int32)
    variables = Variables(params={}, frozen={"guide": {"params": {}}})
    x = jax.random.normal(jax.random.key(0), (5, 2))
    seen = family.predictor(variables, given(labels))(x, jnp.float32(0.4))
    schedule = continuous.Straight()
    t = jnp.float32(0.4)
    main, weak = CLASSES[0].predict(schedule)(x, t), one([0.0, 0.0]).predict(schedule)(x, t)
    np.testing.assert_allclose(seen.x_0, weak.x_0 + 3 * (main.x_0 - weak.x_0), atol=1e-5)


def test_a_classifier_turns_the_mixture_into_its_class():
    class Knows:
        schedule = continuous.VariancePreserving()  # not the schedule of the flow that it guides

        def log_prob(self, params, labels):
            def of(x, t):
                scales = self.schedule.alpha(t), self.schedule.sigma(t)
                parts = jnp.stack([d.log_density(x, *scales) for d in CLASSES], 1)
                return jax.nn.log_softmax(parts)[jnp.arange(len(x)), labels]

            return of

    plain = flow(TOGETHER)
    family = dataclasses.replace(plain, classifier=Knows())
    labels = jnp.arange(6) % 2
    variables = Variables(params={}, frozen={"classifier": {"params": {}}})
    x = jax.random.normal(jax.random.key(0), (6, 2))
    seen = family.predictor(variables, given(labels))(x, jnp.float32(0.5))
    for label, data in enumerate(CLASSES):
        exact = data.predict(continuous.Straight())(x, jnp.float32(0.5))
        rows = np.asarray(labels) == label
        np.testing.assert_allclose(seen.x_0[rows], exact.x_0[rows], atol=1e-4)


def test_pairing_brings_noise_to_near_data_and_keeps_it_normal():
    x = MIXTURE.sample(jax.random.key(0), 256)

    class Noting(Exact):
        """Records x_t, which is the noise at t = 1."""

        def apply(self, params, x, level, conditions, **kwargs):
            seen.append(x)
            return x

    schedule, seen = continuous.Straight(), []
    network = Noting(MIXTURE, schedule, prediction.VELOCITY, of_thousandths)
    at_noise = times.UniformTimes(low=1.0, high=1.0)
    for paired in (False, True):
        flow(network=network, times=at_noise, paired=paired).loss({}, context_of(x))
    one, other = seen
    assert {tuple(r) for r in np.asarray(one)} == {tuple(r) for r in np.asarray(other)}
    assert np.square(x - other).sum() < 0.6 * np.square(x - one).sum()


def test_augmented_images_come_with_what_was_done():
    seen = []

    class Noting:
        def apply(self, params, x, level, conditions, train=False, key=None):
            seen.append(conditions)
            return x

    family = edm(network=Noting(), shape=(8, 8, 1), augmentation=Augmentation(p=0.5))
    images = jax.random.uniform(jax.random.key(0), (16, 8, 8, 1), minval=-1)

    @jax.jit
    def told(images):
        family.loss({}, context_of(images))
        return seen.pop()

    done, present = told(images)[AUGMENTATION]
    assert done.shape == (16, 9) and np.all(present)
    assert np.any(done, axis=1).mean() > 0.9
    family.loss({}, context_of(images, train=False))
    family.unguided({}, {})(images, jnp.float32(0.1))
    assert seen[-2:] == [{}, {}]  # absent


def test_what_the_network_is_told():
    t = jnp.asarray([0.25, 0.5])
    schedule = continuous.VarianceExploding()
    np.testing.assert_allclose(thousandths(schedule, t), [250, 500])
    np.testing.assert_allclose(log_noise(schedule, t), 1000 * np.log(schedule.sigma(t)), rtol=1e-6)
    noisy = gaussian.q_sample(continuous.LinearNoise(), jnp.zeros((2, 2)), t, jnp.ones((2, 2)))
    scale = edm().denoiser.input_scale(continuous.LinearNoise(), t)
    shown = scale[:, None] * noisy
    np.testing.assert_allclose(shown, [[1, 1], [1, 1]], rtol=1e-3)  # c_in sigma = 1 far out
