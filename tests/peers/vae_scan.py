"""Times the training step of configs/vae_mnist.py against a `lax.scan` of the same mathematics.

    python tests/peers/vae_scan.py [rounds]

Both take freshly binarised batches of 20 from images held on the device, one posterior sample, the
closed-form KL and Adam with eps 1e-4, with thousands of steps in one call. genzoo's step also
measures what is logged, and leaves the state unchanged after a step that is not finite. The two
take turns; the output is the medians and the ratio of each pair of turns.
"""

import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genzoo import check, config
from genzoo.experiment import Experiment
from genzoo.runtime.compilation import compile_program

STEPS, BATCH = 3000, 20
SIZES = [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]


def dense(key, inputs, outputs):
    limit = (6 / (inputs + outputs)) ** 0.5
    kernel = jax.random.uniform(key, (inputs, outputs), minval=-limit, maxval=limit)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def bare(images, rows):
    """A call that takes STEPS steps, with only the mathematics."""
    root = jax.random.key(0)
    optimizer = optax.adam(1e-3, eps=1e-4)

    def layer(params, x):
        return x @ params["kernel"] + params["bias"]

    def loss(params, x, key):
        binarise, draw = jax.random.split(key)
        x = (jax.random.uniform(binarise, x.shape) < x.astype(jnp.float32) / 255).astype(float)
        h = jnp.tanh(layer(params[1], jnp.tanh(layer(params[0], x))))
        mean, log_variance = jnp.split(layer(params[2], h), 2, -1)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(draw, mean.shape)
        h = jnp.tanh(layer(params[4], jnp.tanh(layer(params[3], z))))
        logits = layer(params[5], h)
        log_prob = (x * logits - jax.nn.softplus(logits)).sum(-1)
        kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
        return (kl - log_prob).mean()

    def step(carry, inputs):
        params, state = carry
        rows, number = inputs
        key = jax.random.fold_in(root, number)
        value, gradient = jax.value_and_grad(loss)(params, images[rows], key)
        moves, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, moves), state), value

    keys = jax.random.split(jax.random.key(1), len(SIZES))
    params = [dense(key, *size) for key, size in zip(keys, SIZES, strict=True)]
    carry = [(params, optimizer.init(params))]
    numbers = jnp.arange(STEPS)
    program = jax.jit(lambda carry: jax.lax.scan(step, carry, (rows, numbers)), donate_argnums=0)

    def call():
        carry[0], values = program(carry[0])
        return jax.block_until_ready(values)

    return call


def ours(images, rows):
    """A call of the compiled training program of the config."""
    experiment = Experiment(check.check(config.load("configs/vae_mnist.py")))
    data = {
        "x": images.reshape(-1, 28, 28, 1), "label": jnp.zeros(len(images), jnp.int32)
    }  # fmt: skip
    state = [experiment.new_state()]
    program = compile_program(experiment.training(state[0], data, {"rows": rows}))

    def call():
        state[0], measured = program(state[0], data, {"rows": rows})
        return jax.block_until_ready(measured)

    return call


def main(rounds: int) -> None:
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (60_000, 784), np.uint8))
    rows = jnp.asarray(random.integers(0, len(images), (STEPS, BATCH)), jnp.int32)
    calls = {"bare": bare(images, rows), "genzoo": ours(images, rows)}
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first turn compiles
        for name in random.permutation(list(calls)):
            start = time.perf_counter()
            calls[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        each = np.array(times) / STEPS * 1e3
        print(f"{name}: {np.median(each):.3f} ms a step ({each.min():.3f} to {each.max():.3f})")
    ratio = np.array(seconds["genzoo"]) / np.array(seconds["bare"])
    print(f"genzoo / bare: {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
