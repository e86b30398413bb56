"""The bridge out of Flax: params, randomness and inner outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from genzoo.nets.interface import network


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.Dense(4, name="first")(x)
        h = nn.Dropout(0.5, deterministic=not train)(h)
        return nn.Dense(2, name="second")(h)


NET = network(Small())
X = jnp.ones((3, 5))


@pytest.fixture(scope="module")
def params():
    return NET.init(jax.random.key(0), X)


def test_params_are_a_plain_nested_dict(params):
    assert type(params) is dict
    assert params["first"]["kernel"].shape == (5, 4)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_training_needs_a_key_and_depends_on_it(params):
    with pytest.raises(ValueError, match="needs a key"):
        NET.apply(params, X, train=True)
    one, two = (NET.apply(params, X, train=True, key=jax.random.key(i)) for i in (1, 2))
    again = NET.apply(params, X, train=True, key=jax.random.key(1))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(
        NET.apply(params, X), NET.apply(params, X, key=jax.random.key(1))
    )


def test_features_by_name_and_by_predicate(params):
    output, found = NET.features(params, X, names=("first",))
    np.testing.assert_array_equal(output, NET.apply(params, X))
    assert set(found) == {"first"}
    expected = X @ params["first"]["kernel"] + params["first"]["bias"]
    np.testing.assert_allclose(found["first"], expected, rtol=1e-6)
    _, all_of_them = NET.features(params, X, names=lambda path: True)
    assert {"first", "second"} <= set(all_of_them)
    with pytest.raises(ValueError, match="third"):
        NET.features(params, X, names=("first", "third"))


def test_features_under_jit(params):
    _, found = jax.jit(lambda p, x: NET.features(p, x, names=("second",)))(params, X)
    np.testing.assert_allclose(found["second"], NET.apply(params, X), rtol=1e-6)
