"""Muon against its definition: singular vectors, the params it leaves to Adam, decay, one count."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genzoo import check, config
from genzoo.core.errors import UserError
from genzoo.core.tree import STACKED
from genzoo.train.optimizer import Optimizer, OptimizerSettings, constant, moves_made

MUON = Optimizer(
    method="muon", decay=constant, total_steps=10, learning_rate=0.01, clip=0.0, b2=0.99
)
SHAPES = {
    "conv": {"kernel": (3, 3, 4, 8), "bias": (8,)},
    "dense": {"kernel": (6, 24)},
    "table": {"embedding": (5, 6)},
}


def drawn(seed: int) -> dict:
    """Random arrays of these shapes."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )  # fmt: skip


def updates(optimizer: Optimizer, gradients: list, params: dict):
    """The last update after these gradients, with the state."""
    transformation = optimizer.transformation()
    state = transformation.init(params)
    for gradient in gradients:
        update, state = transformation.update(gradient, state, params)
    return update, state


@pytest.mark.parametrize("name, inputs, outputs", [("conv", 36, 8), ("dense", 6, 24)])
def test_a_kernel_moves_along_all_its_singular_directions_alike(name, inputs, outputs):
    gradient = drawn(0)
    update, _ = updates(MUON, [gradient], drawn(1))
    matrix = np.asarray(gradient[name]["kernel"]).reshape(inputs, outputs)
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    moved = np.asarray(update[name]["kernel"]).reshape(inputs, outputs)
    rotated = u.T @ (-moved) @ vt.T / (0.01 * 0.2 * np.sqrt(max(inputs, outputs)))
    # Five steps of Newton-Schulz bring the singular values near 1, and leave the vectors alone.
    assert (np.diag(rotated) > 0.65).all() and (np.diag(rotated) < 1.25).all()
    np.testing.assert_allclose(rotated - np.diag(np.diag(rotated)), 0, atol=1e-4)
    # As large as an update of Adam, whose root mean square is 0.2 to 0.4 of the learning rate.
    assert 0.1 < np.sqrt(np.mean(moved**2)) / 0.01 < 0.25


def test_its_momentum_is_that_of_nesterov():
    first, second = drawn(0), drawn(1)
    update, _ = updates(MUON, [first, second], drawn(2))
    one, two = first["conv"]["kernel"], second["conv"]["kernel"]
    averages = [0.05 * one, 0.05 * (0.95 * one + two)]
    ahead = 0.95 * averages[1] / (1 - 0.95**3) + 0.05 * two / (1 - 0.95**2)
    alone = drawn(0)
    alone["conv"]["kernel"] = ahead
    expected, _ = updates(MUON, [alone], drawn(2))
    np.testing.assert_allclose(
        update["conv"]["kernel"], expected["conv"]["kernel"], rtol=1e-3, atol=1e-6
    )


def test_other_params_follow_adam():
    gradients, params = [drawn(seed) for seed in range(3)], drawn(3)
    found, _ = updates(MUON, gradients, params)
    adam = optax.adam(0.01, b1=0.9, b2=0.99, nesterov=True)
    state = adam.init(params)
    for gradient in gradients:
        expected, state = adam.update(gradient, state)
    for name, leaf in (("conv", "bias"), ("table", "embedding")):
        np.testing.assert_allclose(found[name][leaf], expected[name][leaf], rtol=1e-5)
    assert not np.allclose(found["conv"]["kernel"], expected["conv"]["kernel"], rtol=0.1)


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_weights_decay_at_the_learning_rate_and_biases_only_if_asked(method):
    gradient, params = drawn(0), drawn(1)
    plain, _ = updates(replace(MUON, method=method), [gradient], params)
    for biases in (True, False):
        decaying = replace(MUON, method=method, weight_decay=0.5, decay_biases=biases)
        decayed, _ = updates(decaying, [gradient], params)
        lost = jax.tree.map(lambda a, b: a - b, decayed, plain)
        for name, leaf in (("conv", "kernel"), ("conv", "bias"), ("table", "embedding")):
            factor = 0.01 * 0.5 * (leaf != "bias" or biases)
            np.testing.assert_allclose(lost[name][leaf], -factor * params[name][leaf], atol=1e-6)


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_gains_and_numbers_are_spared_if_asked_also_in_layers_stacked_for_a_scan(method):
    params = {
        "norm": {"scale": jnp.ones(3)}, "log_scale": jnp.ones(()),
        "map": {"kernel": jnp.ones((3, 3))},
        STACKED: {"norm": {"scale": jnp.ones((2, 3))}, "map": {"kernel": jnp.ones((2, 3, 3))}},
    }  # fmt: skip
    zero = jax.tree.map(jnp.zeros_like, params)
    for gains in (True, False):
        decaying = replace(MUON, method=method, weight_decay=0.5, decay_gains=gains)
        lost, _ = updates(decaying, [zero], params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(lost):
            decays = gains or path[-1].key == "kernel"
            np.testing.assert_allclose(leaf, -0.01 * 0.5 * decays, atol=1e-9)


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_the_schedule_counts_the_moves(method):
    warm = replace(MUON, method=method, warmup=4)
    sizes = []
    for count in (1, 2, 4):
        update, state = updates(warm, [drawn(0)] * count, drawn(1))
        assert moves_made(state) == count
        sizes.append(float(jnp.abs(update["conv"]["kernel"]).mean()))
    np.testing.assert_allclose(np.array(sizes) / sizes[-1], [0.25, 0.5, 1], rtol=1e-3)


def test_momentum_without_muon_is_refused():
    (problem,) = OptimizerSettings(momentum=0.9).problems()
    assert "optimizer.momentum" in problem and "'muon'" in problem
    assert not OptimizerSettings(method="muon", momentum=0.9).problems()
    raw = config.override(
        config.load("configs/ddpm_fashion.py:smoke"), {"optimizer.method": "'moon'"}
    )
    with pytest.raises(UserError, match=r"optimizer\.method"):
        check.check(raw)
