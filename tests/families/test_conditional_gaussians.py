"""Token, vector and map conditions on data with Gaussian conditional densities.

The network is exact, and everything else is the real family.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.conditions import Condition, Given, Tokens, field, gather, without
from genzoo.core.contract import Context, Variables
from genzoo.core.types import broadcast
from genzoo.families.denoiser import Denoiser
from genzoo.families.denoising import Guidance
from genzoo.families.flow_matching import FlowMatching
from genzoo.math import continuous, prediction, times, weighting
from genzoo.samplers import grids, ode_likelihood
from genzoo.samplers.predictor import unchanged
from genzoo.samplers.runge_kutta import Heun
from genzoo.samplers.solver import Solver

SHAPE = (2, 2, 1)
SPREADS = {"text": 0.5, "vector": 0.7, "low": 0.4}
"""x = text + vector + low + noise: each condition adds a Gaussian with this standard deviation, the
same at all pixels (for the map, independent at each pixel)."""
NOISE = 0.3
SCHEDULE = continuous.Straight()


def mean_shift(name, value):
    """What a condition adds to the mean of x.

    For tokens (the present ones) and vectors it is the sum over the root of their number; for the
    map, the map itself.
    """
    if name == "text":
        tokens, mask = value
        total = jnp.where(mask, tokens[..., 0], 0).sum(-1)
        return broadcast(total / jnp.sqrt(mask.sum(-1)), jnp.zeros((len(total), *SHAPE)))
    if name == "vector":
        total = value.sum(-1) / np.sqrt(value.shape[-1])
        return broadcast(total, jnp.zeros((len(total), *SHAPE)))
    return value


class Exact:
    """The velocity of x given the conditions that are present.

    Text and vector shift all pixels alike. If they are absent the pixels are correlated, so the
    posterior uses the full covariance matrix.
    """

    def apply(self, params, x, level, conditions, *, train=False, key=None):
        t = level / 1000
        mean = jnp.zeros_like(x)
        common, own = jnp.zeros(len(x)), jnp.full(len(x), NOISE**2)
        for name, spread in SPREADS.items():
            value, present = conditions[name]
            mean = mean + jnp.where(broadcast(present, x), mean_shift(name, value), 0)
            hidden = jnp.where(present, 0, spread**2)
            common, own = (
                (common, own + hidden) if name == "low" else (common + hidden, own)
            )
        count = int(np.prod(SHAPE))
        covariance = common[:, None, None] + own[:, None, None] * jnp.eye(count)
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        flat, centre = (v.reshape(len(x), count) for v in (x, mean))
        noisy = alpha[:, None, None] ** 2 * covariance + sigma[:, None, None] ** 2 * jnp.eye(count)
        score = -jnp.linalg.solve(noisy, (flat - alpha[:, None] * centre)[..., None])[..., 0]
        eps = (-sigma[:, None] * score).reshape(x.shape)
        x_0 = centre - alpha[:, None] * jnp.einsum("bij,bj->bi", covariance, score)
        pair = prediction.Pair(x_0.reshape(x.shape), eps)
        return prediction.VELOCITY.from_pair(pair, SCHEDULE, t)


def words(batch, frozen):
    return Tokens(batch["words"], batch["mask"])


def family(guidance=None):
    return FlowMatching(
        denoiser=Denoiser(network=Exact(), prediction=prediction.VELOCITY),
        shape=SHAPE,
        schedule=SCHEDULE,
        paired=False,
        sampler=Solver(
            method=lambda schedule: Heun(schedule=schedule), grid=grids.even, steps=64
        ).sampler,
        clipping=unchanged,
        levels=False,
        conditions={
            "text": Condition(read=words, dropout=0.1),
            "vector": Condition(read=field("vector"), dropout=0.2),
            "low": Condition(read=field("low")),
        },
        guidance=guidance or Guidance(),
        times=times.UniformTimes(low=1e-3),
        weighting=weighting.VELOCITY,
        ode=ode_likelihood.OdeLikelihood(trace=ode_likelihood.exact(), rtol=1e-5, atol=1e-5),
    )


def records(count, seed=0):
    """Records from the model's distribution, drawn in NumPy."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 4, count)
    mask = np.arange(3) < lengths[:, None]
    batch = {
        "words": random.normal(0, SPREADS["text"], (count, 3, 1)),
        "mask": mask,
        "vector": random.normal(0, SPREADS["vector"], (count, 5)),
        "low": random.normal(0, SPREADS["low"], (count, *SHAPE)),
    }
    text = np.where(mask, batch["words"][..., 0], 0).sum(1) / np.sqrt(lengths)
    mean = (text + batch["vector"].sum(1) / np.sqrt(5)).reshape(-1, 1, 1, 1) + batch["low"]
    batch["x"] = mean + NOISE * random.normal(size=(count, *SHAPE))
    batch = {k: v if v.dtype == bool else jnp.asarray(v, jnp.float32) for k, v in batch.items()}
    return batch, mean


MODEL = family()
sample = jax.jit(
    lambda keys, conditions: MODEL.sample(Variables(params={}), keys, conditions)
)  # one program for all cases


@pytest.mark.parametrize(
    "hidden", [(), ("text",), ("vector",), ("text", "vector", "low")], ids=lambda h: "+".join(h)
)
def test_samples_are_of_the_conditional_density(hidden):
    count = 4000
    batch, _ = records(1)
    batch = {k: jnp.repeat(v, count, 0) for k, v in batch.items()}
    conditions = without(gather(MODEL.conditions, batch), hidden)
    keys = streams.per_example(streams.root(0), jnp.arange(count))
    x = np.asarray(sample(keys, conditions)).reshape(count, -1)
    mean = sum(
        np.asarray(mean_shift(name, conditions[name].value))[0].ravel()
        for name in SPREADS if name not in hidden
    ) + np.zeros(4)  # fmt: skip
    common = sum(SPREADS[name] ** 2 for name in hidden if name != "low")
    own = NOISE**2 + (SPREADS["low"] ** 2 if "low" in hidden else 0)
    covariance = common + own * np.eye(4)
    deviation = np.sqrt(np.diag(covariance) / count)
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 4.5 * deviation)
    spread = np.sqrt((np.outer(*2 * [np.diag(covariance)]) + covariance**2) / count)
    np.testing.assert_array_less(np.abs(np.cov(x.T) - covariance), 4.5 * spread)


def test_the_likelihood_is_that_of_the_conditions():
    model = family()
    batch, mean = records(16)
    keys = streams.per_example(streams.root(0), jnp.arange(16))
    run = jax.jit(lambda batch: model.likelihood(Variables(params={}), batch, keys).total)
    square = ((np.asarray(batch["x"], np.float64) - mean) ** 2).sum((1, 2, 3)) / NOISE**2
    exact = 0.5 * square + 2 * np.log(2 * np.pi * NOISE**2)
    np.testing.assert_allclose(run(batch), exact, atol=0.03)


def test_the_loss_is_the_best_one_where_nothing_is_hidden_and_more_where_something_is():
    # The best loss is the variance of the velocity given x_t, as (x_0, eps) varies along a line. It
    # has a closed form for independent pixels of variance NOISE^2.
    model, count = family(), 20_000
    batch, _ = records(count)
    context = Context(
        batch=batch, key=jax.random.key(0), step=jnp.int32(0), stats={}, train=False
    )
    losses, _ = jax.jit(model.loss)({}, context)
    t = np.linspace(1e-3, 1, 100_001)
    # With sigma = t, alpha = 1 - t the velocity is eps - x_0; its variance given x_t is
    # NOISE^2 / (alpha^2 NOISE^2 + sigma^2).
    expected = np.mean(NOISE**2 / ((1 - t) ** 2 * NOISE**2 + t**2))
    assert abs(losses.mean() - expected) < 4.5 * np.std(losses) / np.sqrt(count)
    dropped, _ = jax.jit(model.loss)({}, Context(**{**vars(context), "train": True}))
    assert dropped.mean() > losses.mean() + 0.01


def test_guidance_over_two_conditions_has_the_score_of_a_product_of_powers():
    scales = (("vector", 1.5), ("text", 3.0))
    model = family(Guidance(scales=scales))
    batch, _ = records(3, seed=1)
    conditions = gather(model.conditions, batch)
    x, t = 0.7 * batch["x"] + 0.1, jnp.float32(0.4)

    @jax.jit
    def of(conditions):
        return -MODEL.unguided({}, conditions)(x, t).eps / 0.4

    def score(*hidden):
        return of(without(conditions, hidden))

    none, vector, both = score("vector", "text"), score("text"), score()
    expected = -0.5 * none + (1.5 - 3.0) * vector + 3.0 * both  # powers 1 - v, v - w, w
    seen = jax.jit(lambda x: model.predictor(Variables(params={}), conditions)(x, t))(x)
    np.testing.assert_allclose(-seen.eps / 0.4, expected, rtol=2e-4, atol=2e-4)
    # And the score of one of the densities, written out: all present, independent pixels.
    mean = sum(mean_shift(name, conditions[name].value) for name in SPREADS)
    exact = -(x - 0.6 * mean) / (0.36 * NOISE**2 + 0.16)
    np.testing.assert_allclose(both, exact, rtol=1e-4, atol=1e-4)


def test_a_negative_value_replaces_the_absent_branch():
    model = family(Guidance(scales=(("vector", 2.0),)))
    batch, _ = records(3, seed=2)
    conditions = gather(model.conditions, batch)
    away = {"vector": Given(-batch["vector"], jnp.ones(3, bool))}
    x, t = batch["x"], jnp.float32(0.5)
    seen = model.predictor(Variables(params={}), conditions, negative=away)(x, t)
    on = model.unguided({}, conditions)(x, t)
    off = model.unguided({}, {**conditions, **away})(x, t)
    np.testing.assert_allclose(seen.x_0, off.x_0 + 2 * (on.x_0 - off.x_0), atol=1e-4)
