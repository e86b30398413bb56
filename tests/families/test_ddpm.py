"""The DDPM family against bounds rewritten in NumPy, exact answers and the contract."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Network, naive_table
from scipy.stats import norm

from genzoo.core import streams
from genzoo.core.conditions import Condition, Given, field
from genzoo.core.contract import Context, Likelihoods, Samples, Variables, capabilities
from genzoo.families import ddpm
from genzoo.families.denoiser import Denoiser
from genzoo.families.denoising import Guidance
from genzoo.math import gaussian, likelihood, prediction, schedules, weighting
from genzoo.samplers import grids
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction, clipped, unchanged
from genzoo.samplers.solver import Solver
from genzoo.samplers.steps import DDIM, Ancestral

SHAPE = (2, 2, 1)
TABLE = schedules.cosine(20)


def small_network(params, x, n, conditions):
    """A deterministic network with params for the mean and, on request, for the variance."""
    mean = jnp.tanh(params["mean"] * x + 0.1 * jnp.cos(n))
    if "label" in conditions:
        label, present = conditions["label"]
        mean += 0.1 * jnp.where(present, label, ABSENT).reshape(-1, *(1,) * (x.ndim - 1))
    if "variance" not in params:
        return mean
    return jnp.concatenate([mean, jnp.sin(params["variance"] * x + n)], axis=-1)


ABSENT = 3  # the label that stands for an absent one
PARAMS = {"mean": 0.7}
PARAMS_TWO = {"mean": 0.7, "variance": 0.4}


def make(function=small_network, **changes):
    table = changes.get("schedule", TABLE)
    variance = changes.get("variance", gaussian.FIXED_SMALL)
    denoiser = Denoiser(
        network=Network(function),
        prediction=changes.pop("prediction", prediction.EPS),
        noise_level=ddpm.steps_before,
        learns_variance=variance.learned,
    )
    parts = {
        "denoiser": denoiser,
        "shape": SHAPE,
        "schedule": table,
        "variance": variance,
        "weighting": weighting.UNIFORM,
        "step_distribution": weighting.UniformSteps(steps=table.steps),
        "objective": ddpm.simple,
        "bound_steps": 0,
        "sampler": Solver(
            method=lambda schedule: Ancestral(schedule=schedule, variance=variance),
            grid=grids.on_table(grids.leading),
            steps=table.steps,
        ).sampler,
        "clipping": clipped,
    }
    return ddpm.DDPM(**{**parts, **changes})


def labelled(dropout=0.0):
    return {"label": Condition(read=field("label"), dropout=dropout)}


def given(labels):
    return {"label": Given(labels, jnp.ones(labels.shape, bool))}


def images(count, seed=0, dtype=np.float32):
    levels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE))
    levels.flat[:2] = 0, 255  # both open bins
    return jnp.asarray(levels / 127.5 - 1, dtype)


def keys_of(count, seed=0):
    return streams.per_example(jax.random.key(seed), jnp.arange(count))


def context(batch, seed=0, stats=None, train=True):
    return Context(
        batch=batch, key=jax.random.key(seed), step=jnp.int32(0), stats=stats or {}, train=train
    )


def test_capabilities():
    assert {"sample", "likelihood"} <= set(capabilities(make()))
    assert isinstance(make(), Samples)
    assert isinstance(make(), Likelihoods)


# --- the bound --------------------------------------------------------------------------------


def numpy_bound(x_0, keys, table, large, range_of=None):
    """Ho et al. 2020, eq. 5-7 and 13, for `small_network`: (L_T [B], L_0 .. L_{T-1} [B, T]).

    The noise is drawn as the family draws it: step n from key n - 1, folded once more for n > 1.
    """
    betas = table.beta
    alpha_bar, variance = naive_table(betas)
    variance[0] = variance[1]
    terms = []
    for n in range(1, table.steps + 1):
        here = keys if n == 1 else streams.fold(keys, n - 1)
        eps = np.asarray(streams.normal(streams.fold(here, 0 if n == 1 else 1), SHAPE, x_0.dtype))
        now, before = alpha_bar[n - 1], alpha_bar[n - 2] if n > 1 else 1.0
        beta = betas[n - 1]
        x_t = np.sqrt(now) * x_0 + np.sqrt(1 - now) * eps
        guess = np.tanh(0.7 * x_t + 0.1 * np.cos(n - 1))
        guess = np.clip((x_t - np.sqrt(1 - now) * guess) / np.sqrt(now), -1, 1)
        chosen = beta if large and n > 1 else variance[n - 1]
        if range_of is not None:
            part = (np.sin(range_of * x_t + n - 1) + 1) / 2
            chosen = np.exp(part * np.log(beta) + (1 - part) * np.log(variance[n - 1]))
        if n == 1:
            edges = np.where(x_0 < -0.999, -np.inf, x_0 - 1 / 255), np.where(
                x_0 > 0.999, np.inf, x_0 + 1 / 255
            )
            low, high = ((edge - guess) / np.sqrt(chosen) for edge in edges)
            mass = np.where(
                low + high > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low)
            )
            terms.append(-np.log(mass).sum((1, 2, 3)))
            continue

        def mean(data, before=before, now=now, beta=beta, x_t=x_t):
            return (
                np.sqrt(before) * beta / (1 - now) * data
                + np.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
            )

        truth = variance[n - 1]
        distance = (mean(x_0) - mean(guess)) ** 2
        kl = 0.5 * (np.log(chosen / truth) - 1 + truth / chosen + distance / chosen)
        terms.append(kl.sum((1, 2, 3)))
    last = alpha_bar[-1]
    prior = 0.5 * (last * x_0**2 - last - np.log1p(-last)).sum((1, 2, 3))
    return prior, np.array(terms).T


VARIANCES = [
    (gaussian.FIXED_SMALL, PARAMS, {"large": False}),
    pytest.param(gaussian.FIXED_LARGE, PARAMS, {"large": True}, marks=pytest.mark.slow),
    (gaussian.LEARNED_RANGE, PARAMS_TWO, {"large": True, "range_of": 0.4}),
]


@pytest.mark.parametrize(("variance", "params", "case"), VARIANCES)
def test_likelihood_is_the_bound_in_numpy(compiled, float64, variance, params, case):
    family, x_0, keys = make(variance=variance), images(3, dtype=np.float64), keys_of(3)
    out = compiled(
        lambda x, keys: family.likelihood(Variables(params=params), {"x": x}, keys)
    )(x_0, keys)
    prior, terms = numpy_bound(np.asarray(x_0), keys, TABLE, **case)
    np.testing.assert_allclose(out.terms["prior"], prior, rtol=1e-9)
    np.testing.assert_allclose(out.terms["reconstruction"], terms[:, 0], rtol=1e-9)
    np.testing.assert_allclose(out.terms["diffusion"], terms[:, 1:].sum(1), rtol=1e-9)
    np.testing.assert_allclose(out.total, prior + terms.sum(1), rtol=1e-9)
    positions, curve = out.curve
    np.testing.assert_allclose(positions, np.arange(2, 21) / 20)
    np.testing.assert_allclose(curve, terms[:, 1:], rtol=1e-8)


def test_likelihood_in_float32_is_that_of_float64():
    family, x_0, keys = make(), images(3), keys_of(3)
    run = jax.jit(lambda x, keys: family.likelihood(Variables(params=PARAMS), {"x": x}, keys))
    out = run(x_0, keys)
    # The noise of float32 keys, the formulas in float64.
    prior, terms = numpy_bound(np.asarray(x_0), keys, TABLE, large=False)
    np.testing.assert_allclose(out.total, prior + terms.sum(1), rtol=2e-5)


def test_a_stratified_subset_is_unbiased():
    copies = 3000
    x_0, keys = jnp.repeat(images(1), copies, 0), keys_of(copies)
    means, errors = [], []
    for bound_steps in (0, 7, 1):
        family = make(bound_steps=bound_steps)
        out = jax.jit(
            lambda x, k, f=family: f.likelihood(Variables(params=PARAMS), {"x": x}, k)
        )(x_0, keys)
        values = np.asarray(out.terms["diffusion"], np.float64)
        assert out.curve[1].shape == (copies, bound_steps or 19)
        means.append(values.mean())
        errors.append(values.std() / np.sqrt(copies))
    for mean, error in zip(means[1:], errors[1:], strict=True):
        assert abs(mean - means[0]) < 4 * np.hypot(error, errors[0])


def excess(variance):
    """E[L_{n-1}] minus its least value, n = 2..1000, for x_0 ~ N(0, 1) and the exact predictor.

    A term is a quadratic in (x_0, eps), and the four points (+-1, +-1) have the moments of two
    independent standard normals up to the second: their mean is the expectation itself. Without
    x_0 the true reverse variance is beta, with it Ho et al.'s smaller one; the KL of two Gaussians
    whose mean is right on average is then at least half the logarithm of their ratio.
    """
    table = schedules.linear(1000)
    family, t = make(schedule=table, variance=variance), table.time_of(jnp.arange(2, 1001))
    terms = 0
    for x_0, eps in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        x_0, eps = (jnp.full((len(t), 1, 1, 1), v, t.dtype) for v in (x_0, eps))
        x_t = gaussian.q_sample(table, x_0, t, eps)
        exact = table.sigma(t).reshape(-1, 1, 1, 1) * x_t  # E[eps | x_t]
        guess = prediction.pair_of_eps(exact, x_t, table, t)
        terms += np.asarray(family.bound_term(x_0, x_t, t, Prediction(*guess))) / 4
    return terms - 0.5 * np.log(table.beta[1:] / naive_table(table.beta)[1][1:])


def test_fixed_large_is_exact_for_standard_normal_data(float64):
    np.testing.assert_allclose(excess(gaussian.FIXED_LARGE), 0, atol=1e-10)


def test_fixed_small_costs_what_theory_says(float64):
    # The sum of 0.5 (r - 1 - log r), r = (1 - alpha_bar_n) / (1 - alpha_bar_{n-1}): reference
    # figures, section 3.2. The first: r = 2.19907916, computed with 40 digits (decimal module).
    terms = excess(gaussian.FIXED_SMALL)
    assert terms[0] == pytest.approx(0.20552025796651344, abs=1e-10)
    assert terms.sum() == pytest.approx(0.4648923187, abs=1e-9)
    assert likelihood.bits_per_dim(terms.sum(), 1) == pytest.approx(0.6706978428, abs=1e-9)


# --- the loss ---------------------------------------------------------------------------------


def test_simple_is_equation_14_of_ho(float64):
    # The network's output is known, and the draws are those that the loss makes from its key.
    family, x_0 = make(), images(6, dtype=np.float64)
    values, aux = family.loss(PARAMS, context({"x": x_0}))
    draw, noise = (streams.named(jax.random.key(0), name) for name in ("time", "noise"))
    n = np.asarray(jax.random.randint(draw, (6,), 1, 21)).reshape(-1, 1, 1, 1)
    eps = np.asarray(jax.random.normal(noise, x_0.shape, np.float64))
    now = naive_table(TABLE.beta)[0][n - 1]
    x_t = np.sqrt(now) * np.asarray(x_0) + np.sqrt(1 - now) * eps
    error = (eps - np.tanh(0.7 * x_t + 0.1 * np.cos(n - 1))) ** 2
    np.testing.assert_allclose(values, error.mean((1, 2, 3)), rtol=1e-9)
    np.testing.assert_array_equal(values, aux.metrics["loss"])


@pytest.mark.parametrize("kind", [*prediction.KINDS, prediction.MEAN])
def test_a_perfect_network_has_no_loss_of_any_kind(float64, kind):
    # If the data are a single point, the exact x_0 is known for any x_t.
    point = jnp.full(SHAPE, 0.25)

    def exact(params, x, n, conditions):
        t = TABLE.time_of((n + 1).reshape(-1))
        pair = prediction.pair_of_x_0(jnp.broadcast_to(point, x.shape), x, TABLE, t)
        return kind.from_pair(pair, TABLE, t)

    of_the_bound = weighting.vlb(gaussian.FIXED_LARGE)
    for weight in (weighting.UNIFORM, weighting.min_snr(5.0), weighting.p2(1.0, 1.0), of_the_bound):
        family = make(exact, prediction=kind, weighting=weight)
        values, _ = family.loss({}, context({"x": jnp.broadcast_to(point, (32, *SHAPE))}))
        np.testing.assert_allclose(values, 0, atol=1e-12)


def test_quartiles_share_out_the_batch():
    table = schedules.linear(1000)
    family, batch = make(schedule=table), {"x": images(64)}
    run = jax.jit(family.loss)
    for seed in range(3):
        _, aux = run(PARAMS, context(batch, seed))
        n = jax.random.randint(streams.named(jax.random.key(seed), "time"), (64,), 1, 1001)
        weights = np.stack([aux.metrics[f"loss_q{q}"].weights for q in range(4)])
        np.testing.assert_array_equal(weights.argmax(0), (np.asarray(n) - 1) // 250)
        np.testing.assert_array_equal(weights.sum(0), 1)


def test_labels_are_dropped_per_example():
    family = make(conditions=labelled(dropout=0.3))
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 10, 4000), jnp.int32)
    batch = {"x": jnp.zeros((4000, *SHAPE)), "label": labels}
    family.loss(PARAMS, context(batch))
    seen, present = family.denoiser.network.told.pop()["label"]
    np.testing.assert_array_equal(seen, labels)
    assert abs(1 - np.mean(present) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    family.loss(PARAMS, context(batch, train=False))
    assert np.all(family.denoiser.network.told.pop()["label"].present)


def test_without_conditions_the_network_sees_no_labels():
    family = make()
    family.loss(PARAMS, context({"x": images(2), "label": jnp.zeros(2, jnp.int32)}))
    assert family.denoiser.network.told == [{}]


def test_hybrid_teaches_the_mean_by_simple_alone():
    family, batch = make(variance=gaussian.LEARNED_RANGE), {"x": images(64)}

    def mean_losses(params):
        families = [
            dataclasses.replace(family, objective=objective)
            for objective in (ddpm.simple, ddpm.hybrid, ddpm.vlb)
        ]
        return [family.loss(params, context(batch))[0].mean() for family in families]

    slopes = jax.jit(jax.jacrev(mean_losses))(PARAMS_TWO)
    of_simple, of_hybrid, of_vlb = slopes
    np.testing.assert_allclose(of_hybrid["mean"], of_simple["mean"], rtol=1e-5)
    assert of_simple["variance"] == 0
    assert abs(of_vlb["mean"]) > 0
    np.testing.assert_allclose(of_hybrid["variance"], 0.001 * of_vlb["variance"], rtol=1e-4)
    assert of_hybrid["variance"] != 0


@pytest.mark.parametrize(
    "objective", [ddpm.hybrid, pytest.param(ddpm.vlb, marks=pytest.mark.slow)]
)
def test_gradients_are_finite_where_hardly_any_signal_is_left(objective):
    # T = 4000, cosine, of Nichol & Dhariwal: at n = T alpha is 1e-5, so that an untrained network
    # (zero output) predicts an x_0 of 1e5. Only the last step is drawn here.
    class LastStep(weighting.UniformSteps):
        def draw(self, key, stats, count):
            return jnp.full((count,), self.steps), jnp.ones(count)

    def untrained(params, x, n, conditions):
        return jnp.concatenate([params["mean"] * x, params["variance"] * x], axis=-1)

    family = make(
        untrained, schedule=schedules.cosine(4000), variance=gaussian.LEARNED_RANGE,
        step_distribution=LastStep(steps=4000), objective=objective,
    )  # fmt: skip
    loss = lambda params: family.loss(params, context({"x": images(256)}))[0].mean()  # noqa: E731
    value, slopes = jax.jit(jax.value_and_grad(loss))({"mean": 0.0, "variance": 0.0})
    assert np.isfinite(value)
    assert np.all(np.isfinite(jax.tree.leaves(slopes)))


def test_the_vlb_objective_estimates_the_bound():
    # A network of x_0 within [-1, 1]: the likelihood's clipping then changes nothing.
    family, copies = make(prediction=prediction.X_0, objective=ddpm.vlb), 8000
    x_0 = jnp.repeat(images(1), copies, 0)
    values, _ = jax.jit(family.loss)(PARAMS, context({"x": x_0}))
    out = jax.jit(lambda x, k: family.likelihood(Variables(params=PARAMS), {"x": x}, k))(
        x_0[:2000], keys_of(2000)
    )
    bound = likelihood.bits_per_dim(np.asarray(out.total - out.terms["prior"], np.float64), 4)
    values = np.asarray(values, np.float64)
    error = np.hypot(values.std() / np.sqrt(copies), bound.std() / np.sqrt(len(bound)))
    assert abs(values.mean() - bound.mean()) < 4 * error


def test_loss_aware_steps_learn_from_the_unweighted_losses():
    steps = weighting.LossAwareSteps(steps=20, history=2)
    family = make(step_distribution=steps)
    stats = family.init(jax.random.key(0), {"x": images(2)}).stats
    stats = {"losses": jnp.linspace(1, 2, 40).reshape(20, 2), "seen": stats["seen"] + 2}
    batch = {"x": images(8)}
    values, aux = jax.jit(family.loss)(PARAMS, context(batch, stats=stats))
    draw = streams.named(jax.random.key(0), "time")
    n, weights = steps.draw(draw, stats, 8)
    # The values are weighted, which makes their mean unbiased; the history is not.
    np.testing.assert_array_equal(values, aux.metrics["loss"])
    assert float(weights.std()) > 0.05
    expected = steps.update(stats, n, values / weights)
    np.testing.assert_allclose(aux.stats["losses"], expected["losses"], rtol=1e-6)
    _, aux = jax.jit(family.loss)(PARAMS, context(batch, stats=stats, train=False))
    np.testing.assert_array_equal(aux.stats["losses"], stats["losses"])
    # In evaluation the steps are uniform, so every example has the same weight.
    counts = sum(aux.metrics[f"loss_q{q}"].weights for q in range(4))
    np.testing.assert_array_equal(counts, np.ones(8))


# --- sampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variance",
    [pytest.param(gaussian.FIXED_LARGE, marks=pytest.mark.slow), gaussian.LEARNED_RANGE],
)
def test_a_sample_is_its_own_bit_for_bit(variance):
    params = PARAMS_TWO if variance.learned else PARAMS
    guided = {"conditions": labelled(0.1), "guidance": Guidance(scale=2.0)}
    family, keys = make(variance=variance, **guided), keys_of(5)
    labels = jnp.array([0, 2, 1, 1, 0])
    run = jax.jit(lambda keys, labels: family.sample(
        Variables(params=params), keys, given(labels)
    ))  # fmt: skip
    together = run(keys, labels)
    assert together.shape == (5, *SHAPE)
    for row in range(5):
        alone = run(keys[row : row + 1], labels[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize(("scale", "like"), [(1.0, 2), (0.0, 3)])
def test_guidance_scale_one_is_off_and_zero_is_unconditional(compiled, scale, like):
    guided = {"conditions": labelled(0.1), "guidance": Guidance(scale=scale)}
    family = make(**guided, clipping=unchanged)
    x, t, conditions = images(4), jnp.float32(0.55), given(jnp.full(4, 2))
    seen = compiled(lambda x, t: family.predictor(Variables(params=PARAMS), conditions)(x, t))(x, t)
    expected = small_network(PARAMS, x, 10.0, given(jnp.full(4, like)))
    np.testing.assert_allclose(seen.eps, expected, atol=1e-6)


def test_guidance_extrapolates(compiled):
    guided = {"conditions": labelled(0.1), "guidance": Guidance(scale=4.0)}
    family = make(**guided, clipping=unchanged)
    x, conditions = images(4), given(jnp.full(4, 2))
    guided = family.predictor(Variables(params=PARAMS), conditions)
    seen = compiled(guided)(x, jnp.float32(0.55))
    # Labels add 0.1 per class, and an absent one counts as 3: 0.3 + 4 (0.2 - 0.3) = -0.1.
    expected = small_network(PARAMS, x, 10.0, {}) - 0.1
    np.testing.assert_allclose(seen.eps, expected, atol=1e-6)


def test_the_network_is_asked_for_steps_counted_from_zero():
    asked = []

    def noting(params, x, n, conditions):
        asked.append(np.asarray(n).ravel().tolist())
        return x

    family = make(noting)
    for n in (1, 7, 20):
        family.predictor(Variables(params={}), {})(images(2), jnp.float32(n / 20))
    assert asked == [[0, 0], [6, 6], [19, 19]]


def test_sampling_one_point_arrives_at_it():
    point = 0.25
    exact = lambda params, x, n, conditions: jnp.full_like(x, point)  # noqa: E731
    for step in (DDIM(schedule=TABLE), Ancestral(schedule=TABLE, variance=gaussian.FIXED_SMALL)):
        times = grids.on_table(grids.trailing)(TABLE, 5)
        sampler = lambda _, step=step, times=times: Sampler(step=step, times=times)  # noqa: E731
        family = make(exact, prediction=prediction.X_0, sampler=sampler)
        out = jax.jit(lambda keys, f=family: f.sample(Variables(params={}), keys, {}))(keys_of(3))
        np.testing.assert_allclose(out, point, rtol=1e-6)
