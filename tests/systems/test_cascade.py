"""Cascades of exact samplers of a Gaussian keep its distribution, whatever the level of noise."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.conditions import Condition, Given, gather, level_of, noised
from genzoo.core.contract import Context, Fits, Samples, Variables
from genzoo.systems.cascade import Cascade, Enlarger

KEY = jax.random.key(1)
# Of the two pixels of an image; their mean is the small image.
MEAN, COVARIANCE = np.array([0.1, -0.05]), np.array([[0.04, 0.01], [0.01, 0.02]])
TO_LOW = np.array([0.5, 0.5])


def nothing(batch, frozen):
    raise AssertionError("nothing is read in sampling")


@dataclass(frozen=True)
class Small:
    """The exact model of the mean of the pixels, times a factor from its own variables."""

    conditions: dict = field(default_factory=lambda: {"label": Condition(read=nothing)})

    def sample(self, variables, keys, conditions):
        assert set(conditions) == {"label"}
        std = np.sqrt(TO_LOW @ COVARIANCE @ TO_LOW)
        noise = streams.normal(keys, (1, 1, 1))
        return variables.params["one"] * (TO_LOW @ MEAN + std * noise)


@dataclass(frozen=True)
class Large:
    """The exact model of both pixels given sqrt(1 - s^2) of their mean plus noise of level s."""

    noise: float
    conditions: dict = field(default_factory=dict)

    def sample(self, variables, keys, conditions):
        told = {"low"} | ({"low_noise"} if self.noise else set())
        assert set(conditions) == told
        low = conditions["low"].value[:, 0, 0]
        s = conditions["low_noise"].value if self.noise else jnp.zeros(len(low))
        a = jnp.sqrt(1 - s**2)[:, None]
        variance = a**2 * (TO_LOW @ COVARIANCE @ TO_LOW) + s[:, None] ** 2
        gain = a * (COVARIANCE @ TO_LOW) / variance
        mean = MEAN + gain * (low - a * (TO_LOW @ MEAN))
        rest = COVARIANCE - gain[:, :, None] * (a * (COVARIANCE @ TO_LOW))[:, None]
        root = jnp.linalg.cholesky(rest + 1e-9 * np.eye(2))
        normal = streams.normal(keys, (2,))
        return (mean + jnp.einsum("bij,bj->bi", root, normal)).reshape(-1, 2, 1, 1)


def cascade(level: float, noise: float = 1.0, count: int = 1) -> Cascade:
    label = {"label": Condition(read=nothing)}
    large = Large(noise, {"low": Condition(read=nothing, noise=noise)})
    step = Enlarger(family=large, low="low", level=level)
    return Cascade(base=Small(), enlargers=(step,) * count, conditions=label)


def sampled(model: Cascade, count: int) -> np.ndarray:
    one = {"params": {"one": jnp.float32(1)}}
    variables = Variables(params={}, frozen={"base": one, "second": {"params": {}}})
    label = Given(jnp.zeros(count, jnp.int32), jnp.ones(count, bool))
    keys = jax.random.split(KEY, count)
    return np.asarray(model.sample(variables, keys, {"label": label}))


@pytest.mark.parametrize("level", [0.0, 0.3, 0.9, 1.0])
def test_exact_models_keep_the_distribution_at_every_level(level):
    count = 20_000
    x = sampled(cascade(level), count).reshape(count, 2)
    error = np.sqrt(np.diag(COVARIANCE) / count)
    assert (np.abs(x.mean(0) - MEAN) < 4 * error).all()
    spread = np.cov(x.T)
    variances = np.diag(COVARIANCE)
    error = np.sqrt((np.outer(variances, variances) + COVARIANCE**2) / count)
    assert (np.abs(spread - COVARIANCE) < 4 * error).all()


def test_without_noise_the_large_image_is_one_of_the_small_one():
    for model in (cascade(0.0), cascade(0.0, noise=0.0)):
        x = sampled(model, 50)
        own = jax.vmap(lambda key: streams.named(key, "base"))(jax.random.split(KEY, 50))
        small = TO_LOW @ MEAN + np.sqrt(TO_LOW @ COVARIANCE @ TO_LOW) * streams.normal(own, (1,))
        np.testing.assert_allclose(x.reshape(50, 2) @ TO_LOW, small[:, 0], atol=1e-3)


def test_a_row_depends_on_its_own_key_alone():
    model = cascade(0.5)
    np.testing.assert_allclose(sampled(model, 7)[:3], sampled(model, 7)[:3])
    one = {"params": {"one": jnp.float32(1)}}
    variables = Variables(params={}, frozen={"base": one, "second": {"params": {}}})
    keys = jax.random.split(KEY, 7)

    def of(rows):
        label = Given(jnp.zeros(len(rows), jnp.int32), jnp.ones(len(rows), bool))
        return model.sample(variables, keys[rows], {"label": label})

    np.testing.assert_allclose(of(np.arange(7))[4:5], of(np.array([4])), rtol=1e-6)


def test_there_is_nothing_to_train():
    model = cascade(0.0)
    assert isinstance(model, Samples) and isinstance(model, Fits)
    assert model.fit(iter(()), KEY).params == {} == model.init(KEY, {}).params
    context = Context(batch={"x": jnp.ones((3, 2, 1, 1))}, key=KEY, step=jnp.int32(0), stats={})
    np.testing.assert_array_equal(model.loss({}, context)[0], np.zeros(3))


# --- the noise of a condition ---------------------------------------------------------------------


def test_training_adds_noise_of_the_level_that_it_tells():
    count = 4000
    specs = {"low": Condition(read=lambda batch, frozen: batch["x"], noise=0.6)}
    batch = {"x": jnp.full((count, 4, 1, 1), 0.5)}
    given = gather(specs, batch, {}, KEY)
    level, low = (np.asarray(given[name].value) for name in (level_of("low"), "low"))
    assert given["low_noise"].present.all() and level.shape == (count,)
    assert 0 <= level.min() < 0.01 and 0.59 < level.max() < 0.6
    assert abs(level.mean() - 0.3) < 4 * 0.6 / np.sqrt(12 * count)
    eps = (low[..., 0, 0] - np.sqrt(1 - level[:, None] ** 2) * 0.5) / level[:, None]
    assert abs(eps.mean()) < 4 / np.sqrt(4 * count)
    assert abs(eps.var() - 1) < 4 * np.sqrt(2 / (4 * count))
    # Independent of the level.
    assert abs(np.corrcoef(eps[:, 0], level)[0, 1]) < 4 / np.sqrt(count)


def test_evaluation_sees_a_clean_condition_and_is_told_so():
    specs = {"low": Condition(read=lambda batch, frozen: batch["x"], noise=0.6)}
    batch = {"x": jnp.linspace(-1, 1, 6).reshape(3, 2)}
    given = gather(specs, batch)
    np.testing.assert_array_equal(given["low"].value, batch["x"])
    np.testing.assert_array_equal(given["low_noise"].value, np.zeros(3))
    clean = gather({"low": Condition(read=lambda batch, frozen: batch["x"])}, batch, {}, KEY)
    assert set(clean) == {"low"}


def test_the_variance_is_kept():
    value, eps = (jax.random.normal(key, (2, 50_000)) for key in jax.random.split(KEY))
    mixed = np.asarray(noised(value, jnp.array([0.3, 1.0]), eps))
    assert np.abs(mixed.var(1) - 1).max() < 4 * np.sqrt(2 / 50_000)
    np.testing.assert_allclose(mixed[1], eps[1], rtol=1e-6)
