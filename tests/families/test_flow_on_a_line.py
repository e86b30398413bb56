"""A flow trained on one-dimensional data is the quantile map.

Its paths cannot cross on a line, so it must carry each quantile of the noise to that of the data.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from oracles import Mixture
from scipy.stats import norm

from genzoo.core import streams
from genzoo.core.contract import Context, Variables
from genzoo.families.denoiser import Denoiser
from genzoo.families.flow_matching import FlowMatching
from genzoo.math import continuous, prediction, times, weighting
from genzoo.nets.point_mlp import PointMLPSettings
from genzoo.samplers import grids, ode_likelihood
from genzoo.samplers.predictor import unchanged
from genzoo.samplers.runge_kutta import Heun
from genzoo.samplers.solver import Solver

DATA = Mixture((0.4, 0.6), (-1.0, 0.8), (0.25, 0.35))


def test_a_trained_flow_in_one_dimension_is_the_quantile_map():
    family = FlowMatching(
        denoiser=Denoiser(
            network=PointMLPSettings(width=64, depth=2, fourier=0).build(
                out_channels=1, entries={}
            ),
            prediction=prediction.VELOCITY,
        ),
        shape=(1,),
        schedule=continuous.Straight(),
        times=times.UniformTimes(low=1e-3),
        weighting=weighting.VELOCITY,
        paired=False,
        ode=ode_likelihood.OdeLikelihood(trace=ode_likelihood.exact()),
        sampler=Solver(
            method=lambda schedule: Heun(schedule=schedule), grid=grids.even, steps=50
        ).sampler,
        clipping=unchanged,
        levels=False,
    )
    key = jax.random.key(0)
    params = family.init(key, {"x": jnp.zeros((1, 1))}).params
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 1500))

    def step(carry, index):
        params, state = carry
        here = streams.at(key, index)
        which, noise = jax.random.split(streams.named(here, "data"))
        second = jax.random.bernoulli(which, 0.6, (256, 1))
        mean, spread = jnp.where(second, 0.8, -1.0), jnp.where(second, 0.35, 0.25)
        x = mean + spread * jax.random.normal(noise, (256, 1))
        context = Context(batch={"x": x}, key=here, step=index, stats={}, train=True)
        slope = jax.grad(lambda p: family.loss(p, context)[0].mean())(params)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), jnp.arange(1500))[0][0])
    params = train(params)
    keys = streams.per_example(streams.root(1), jnp.arange(1000))
    ends = np.asarray(jax.jit(lambda k: family.sample(Variables(params=params), k, {}))(keys))
    start = np.asarray(streams.normal(streams.fold(keys, 0), (1,)))
    # The rest is the training error: a hundredth of the probability on average.
    off = np.abs(DATA.cdf(ends) - norm.cdf(start))
    assert off.mean() < 0.015
    assert np.all(np.diff(ends[np.argsort(start[:, 0]), 0]) > 0)  # no two paths cross
