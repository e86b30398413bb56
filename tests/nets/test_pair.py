"""The dense pair: published counts, the formula itself, initialisation, mistakes in sentences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from scipy.special import ndtr

from genzoo.core import tree
from genzoo.nets.autoencoder.pair import ACTIVATIONS, MLPSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def mlp_pair(*, shape, encoded, latent, decoded, **settings):
    (pair,) = MLPSettings(**settings).build(
        shape=shape, encoded=(encoded,), latents=(latent,), decoded=(decoded,)
    )
    return pair


def made(**settings):
    """A pair, inputs for both networks and params that are all nonzero."""
    pair = mlp_pair(**settings)
    rng = np.random.default_rng(0)
    shapes = (3, *settings["shape"]), (3, settings["latent"])
    x, z = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    params = (
        jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, leaf.dtype),
            jax.eval_shape(net.init, jax.random.key(0), value),
        )
        for net, value in ((pair.encoder, x), (pair.decoder, z))
    )
    return pair, x, z, *params


def count(**settings):
    pair = mlp_pair(**settings)
    x, z = jnp.zeros((1, *settings["shape"])), jnp.zeros((1, settings["latent"]))
    return [
        tree.count(jax.eval_shape(net.init, jax.random.key(0), value))
        for net, value in ((pair.encoder, x), (pair.decoder, z))
    ]


def test_one_stochastic_layer_of_iwae_has_its_published_count():
    image = dict(shape=(28, 28, 1), encoded=100, latent=50, decoded=1)
    assert count(**image) == [217_300, 207_984]
    assert sum(count(**image)) == 425_284


def test_two_stochastic_layers_of_iwae_have_their_published_count():
    first = count(shape=(28, 28, 1), encoded=200, latent=100, decoded=1)
    second = count(shape=(100,), encoded=100, latent=50, decoded=200, widths=(100, 100))
    assert sum(first + second) == 521_084


@pytest.mark.parametrize("shape, decoded", [((6, 4, 3), 2), ((10, 2), 5), ((7,), 4)])
def test_shapes_of_images_signals_and_vectors(shape, decoded):
    pair, x, z, encoder, decoder = made(
        shape=shape, encoded=6, latent=3, decoded=decoded, widths=(9,)
    )
    assert pair.grid == ()
    encoded, output = pair.encoder.apply(encoder, x), pair.decoder.apply(decoder, z)
    assert encoded.shape == (3, 6) and output.shape == (3, *shape[:-1], decoded)
    assert encoded.dtype == output.dtype == jnp.float32


FORMULAS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * ndtr(x),
}


def test_activations_are_what_they_are_called():
    x = np.linspace(-4, 4, 33)
    assert FORMULAS.keys() == ACTIVATIONS.keys()
    for name, formula in FORMULAS.items():
        # The usual GELU approximates the normal distribution function to 5e-4.
        error = 1e-3 if name == "gelu" else 1e-6
        np.testing.assert_allclose(ACTIVATIONS[name](x), formula(x), atol=error, err_msg=name)


@pytest.mark.parametrize("name", FORMULAS)
def test_both_networks_are_the_formula_and_widths_turn_around(name):
    pair, x, z, encoder, decoder = made(
        shape=(2, 3, 2), encoded=4, latent=3, decoded=5, widths=(7, 6), activation=name
    )

    def formula(params, h):
        h = np.asarray(h, np.float64).reshape(3, -1)
        for i in (0, 1):
            h = FORMULAS[name](h @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"])
        return h @ params["out"]["kernel"] + params["out"]["bias"]

    widths = [
        [params[f"dense_{i}"]["bias"].size for i in (0, 1)] for params in (encoder, decoder)
    ]
    assert widths == [[7, 6], [6, 7]]
    found = jit(lambda x, z: (pair.encoder.apply(encoder, x), pair.decoder.apply(decoder, z)))(x, z)
    expected = formula(encoder, x), formula(decoder, z).reshape(3, 2, 3, 5)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=5e-3 if name == "gelu" else 1e-5)


def test_without_hidden_layers_both_are_affine():
    pair, x, _, encoder, _ = made(shape=(8,), encoded=4, latent=2, decoded=3, widths=())
    expected = x @ encoder["out"]["kernel"] + encoder["out"]["bias"]
    np.testing.assert_allclose(pair.encoder.apply(encoder, x), expected, atol=1e-5)


def test_kernels_start_glorot_uniform_and_biases_at_zero():
    pair = mlp_pair(shape=(20, 20, 1), encoded=30, latent=40, decoded=1)
    for layer in jit(pair.encoder.init)(jax.random.key(0), jnp.zeros((1, 20, 20, 1))).values():
        np.testing.assert_array_equal(layer["bias"], 0)
        limit = np.sqrt(6 / sum(layer["kernel"].shape))
        kernel = np.abs(layer["kernel"])
        assert 0.99 * limit < kernel.max() <= limit
        # The mean absolute value of a uniform variable, within five standard errors.
        assert abs(kernel.mean() / limit - 0.5) < 5 * 0.29 / np.sqrt(kernel.size)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(widths=(200, 0)), ["network.widths[1] = 0 must be at least 1."]),
        (dict(activation="relo"), ["network.activation = 'relo'", "'relu'?"]),
        (dict(activation="swish!"), ["network.activation", "gelu, relu, silu, tanh"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = section_problems(MLPSettings(**settings), "network", (28, 28, 1))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
