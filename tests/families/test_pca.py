"""The PCA family: the contract, checked against NumPy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from genzoo.core import contract, reports, streams
from genzoo.core.contract import Context, Variables
from genzoo.core.errors import UserError
from genzoo.families.pca import PCA

SHAPE, Q = (3, 2, 2), 3
RNG = np.random.default_rng(0)
X = 0.2 * RNG.normal(size=(90, 12)) @ (RNG.normal(size=(12, 12)) * np.geomspace(1, 0.1, 12)).T
IMAGES = (X + 0.1).astype(np.float32).reshape(-1, *SHAPE)
FLAT = IMAGES.reshape(-1, 12).astype(np.float64)
FAMILY = PCA(components=Q, shape=SHAPE)
KEYS = streams.per_example(jax.random.key(1), jnp.arange(90))
BATCH = {"x": jnp.asarray(IMAGES)}


def batches(x=IMAGES, size=32):
    return ({"x": x[i : i + size]} for i in range(0, len(x), size))


@pytest.fixture(scope="module")
def variables():
    return FAMILY.fit(batches(), jax.random.key(0))


def svd(x=FLAT, q=Q):
    """(mean, components [D, q], eigenvalues [D])."""
    _, singular, right = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return x.mean(0), right[:q].T, singular**2 / len(x)


def test_its_capabilities():
    assert contract.capabilities(FAMILY) == (
        "sample", "reconstruct", "encode", "decode", "likelihood", "fit"
    )  # fmt: skip
    assert isinstance(FAMILY, contract.Reports)
    assert not contract.conditions_of(FAMILY)


def test_init_has_the_shapes_of_fit(variables):
    at_start = FAMILY.init(jax.random.key(0), {"x": jnp.zeros((1, *SHAPE))})
    fitted = jax.tree.map(lambda v: (v.shape, v.dtype), variables)
    assert jax.tree.map(lambda v: (v.shape, v.dtype), at_start) == fitted
    assert set(variables.params) == {"mean", "components", "variances", "noise_variance"}
    assert not any(map(np.any, jax.tree.leaves(at_start)))


def test_reconstruction_is_the_svds(variables):
    mean, components, eigenvalues = svd()
    out = jax.jit(FAMILY.reconstruct)(variables, BATCH, KEYS)
    expected = mean + (FLAT - mean) @ components @ components.T
    assert out.shape == IMAGES.shape
    np.testing.assert_allclose(out.reshape(90, 12), expected, atol=1e-5)
    np.testing.assert_allclose(variables.params["variances"], eigenvalues[:Q], rtol=1e-5)
    noise = variables.params["noise_variance"]
    assert float(noise) == pytest.approx(eigenvalues[Q:].mean(), rel=1e-5)


def test_codes_are_coefficients_and_decode_to_the_reconstruction(variables):
    codes = jax.jit(FAMILY.encode)(variables, BATCH, KEYS)
    mean, components, eigenvalues = svd()
    expected = np.abs((FLAT - mean) @ components)
    np.testing.assert_allclose(np.abs(codes), expected, atol=1e-5)
    np.testing.assert_allclose(np.var(codes, axis=0), eigenvalues[:Q], rtol=1e-4)
    np.testing.assert_allclose(
        jax.jit(FAMILY.decode)(variables, codes),
        jax.jit(FAMILY.reconstruct)(variables, BATCH, KEYS),
        atol=1e-6,
    )


def test_likelihood_is_scipys(compiled, variables):
    mean, components, eigenvalues = svd()
    noise = eigenvalues[Q:].mean()
    kept = components * (eigenvalues[:Q] - noise)
    model = multivariate_normal(mean, kept @ components.T + noise * np.eye(12))
    likelihood = compiled(FAMILY.likelihood)(variables, BATCH, KEYS)
    np.testing.assert_allclose(likelihood.total, -model.logpdf(FLAT), rtol=1e-5, atol=1e-4)
    assert likelihood.density
    assert set(likelihood.terms) == {"fit", "volume"}
    assert all(term.shape == (90,) for term in likelihood.terms.values())
    np.testing.assert_allclose(sum(likelihood.terms.values()), likelihood.total, rtol=1e-6)
    alone = FAMILY.likelihood(variables, {"x": IMAGES[5:6]}, KEYS[5:6])
    np.testing.assert_allclose(alone.total[0], likelihood.total[5], rtol=1e-5)


def test_samples_have_the_moments_of_the_kept_directions(variables):
    keys = streams.per_example(jax.random.key(2), jnp.arange(20_000))
    x = np.asarray(jax.jit(FAMILY.sample)(variables, keys, {}), np.float64)
    assert x.shape == (20_000, *SHAPE)
    mean, components, eigenvalues = svd()
    centred = x.reshape(-1, 12) - mean
    codes, error = centred @ components, np.sqrt(eigenvalues[:Q] / 20_000)
    assert np.all(np.abs(codes.mean(0)) < 4 * error)
    expected = eigenvalues[:Q] - eigenvalues[Q:].mean()
    np.testing.assert_allclose(codes.var(0), expected, rtol=5 * np.sqrt(2 / 20_000))
    # Without noise, no part of them lies outside the plane.
    np.testing.assert_allclose(centred - codes @ components.T, 0, atol=1e-6)
    again = FAMILY.sample(variables, keys[9:11], {})
    np.testing.assert_allclose(again, x[9:11], atol=1e-6)


def test_the_report_has_the_explained_variance(variables):
    context = Context(
        batch=BATCH, key=jax.random.key(0), step=jnp.int32(0), stats={}, train=False
    )
    values, aux = jax.jit(FAMILY.losses["model"].loss)(variables.params, context)
    mean, components, eigenvalues = svd()
    expected = np.mean((FLAT - mean - (FLAT - mean) @ components @ components.T) ** 2, axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_array_equal(values, aux.metrics["loss"])
    report = reports.reported(FAMILY, {k: np.mean(v) for k, v in aux.metrics.items()})
    assert set(report.values) == {"loss", "explained_variance"}
    share = eigenvalues[:Q].sum() / eigenvalues.sum()
    assert report.values["explained_variance"] == pytest.approx(share, rel=1e-5)
    assert "explained_variance" not in FAMILY.report({"loss": 0.0, "variance": 0.0}).values


def test_batches_of_any_size_give_the_same_fit(variables):
    for size in (1, 7, 90):
        other = FAMILY.fit(batches(size=size), jax.random.key(3))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), other, variables)


BORDER = IMAGES * np.array([1.0, 0.0]) - np.array([0.0, 1.0])  # one of two channels is constant


@pytest.mark.parametrize(
    ("components", "x", "message"),
    [
        (40, IMAGES, "must be between 1 and 12"),
        (0, IMAGES, "must be between 1 and 12"),
        (2, np.zeros_like(IMAGES), "training examples are identical"),
        (2, IMAGES[:0], "The 0 training examples"),
    ],
)
def test_a_fit_to_nothing_is_refused_in_a_sentence(components, x, message):
    with pytest.raises(UserError, match=message):
        PCA(components=components, shape=SHAPE).fit(batches(x), jax.random.key(0))


@pytest.mark.parametrize(("components", "x"), [(12, IMAGES), (5, BORDER), (9, BORDER)])
def test_any_number_of_components_reconstructs_and_has_a_likelihood(components, x):
    family = PCA(components=components, shape=SHAPE)
    batch = {"x": jnp.asarray(x, jnp.float32)}
    variables = family.fit(batches(x), jax.random.key(0))
    if components >= (6 if x is BORDER else 12):
        copy = family.reconstruct(variables, batch, KEYS)
        np.testing.assert_allclose(copy, batch["x"], atol=1e-5)
    # Against the full covariance, whose least eigenvalue is that of rounding to 256 levels.
    model = {k: np.asarray(v, np.float64) for k, v in variables.params.items()}
    excess = model["variances"] - model["noise_variance"]
    covariance = (model["components"] * excess) @ model["components"].T
    covariance += model["noise_variance"] * np.eye(12)
    expected = -multivariate_normal(model["mean"], covariance).logpdf(x.reshape(len(x), -1))
    nats = family.likelihood(variables, batch, KEYS).total
    np.testing.assert_allclose(nats, expected, rtol=1e-3, atol=1e-2)
    assert model["noise_variance"] > 5e-6


def test_before_the_fit_everything_is_the_mean():
    zero = FAMILY.init(jax.random.key(0), BATCH)
    assert isinstance(zero, Variables)
    np.testing.assert_array_equal(FAMILY.reconstruct(zero, BATCH, KEYS), 0)
    np.testing.assert_array_equal(FAMILY.sample(zero, KEYS, {}), 0)
