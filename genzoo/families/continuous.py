"""Shared by the continuous-time families: their likelihood and the metrics of their losses.

Score SDEs, EDM and flow matching have a probability-flow ODE, and hence a likelihood by the change
of variables (Chen et al. 2018; Song et al. 2021, section 4.3).
"""

from collections.abc import Mapping

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import gather
from genzoo.core.contract import Likelihood, Variables, Weighted
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample, broadcast, sum_per_example
from genzoo.families.denoiser import by_quarter
from genzoo.families.denoising import Denoising
from genzoo.math import gaussian, likelihood
from genzoo.math.schedules import Schedule
from genzoo.samplers.ode_likelihood import OdeLikelihood
from genzoo.samplers.predictor import Predict


def flow_likelihood(
    family: Denoising, ode: OdeLikelihood, variables: Variables, batch: Batch, keys: Keys
) -> Likelihood:
    """-log p(x) under the model's flow, in nats per example.

    It is exact up to the error of the solver and, with random probes, of the trace. If the data are
    on levels, it is the likelihood of the levels, by uniform dequantisation.

    If `ode.decoded`, it is the bound (1) instead, where the flow ends in x_t at the time `ode.end`
    (Kingma et al. 2021, section 3, with a flow as the prior):

        -log p(x) <= E_q [log q(x_t | x) - log p(x_t) - log p(x | x_t)]                         (1)

    The decoder p(x | x_t) is a Gaussian around the predicted data whose deviation is that of
    x_t / alpha, sigma / alpha; on levels it is discretised. A network that predicts x_0 needs this,
    because its velocity divides the error of the prediction by t, without bound as t goes to 0.
    """
    conditions = gather(family.conditions, batch, variables.frozen)
    schedule = family.schedule_of(variables.params)
    predict = family.unguided(variables.params, conditions)
    solve = _decoded if ode.decoded else _exact
    terms = solve(ode, predict, schedule, batch["x"], keys, family.levels)
    return Likelihood(total=sum(terms.values()), terms=terms, density=not family.levels)


def _exact(
    ode: OdeLikelihood, predict: Predict, schedule: Schedule, x: Examples, keys: Keys, levels: bool
) -> Mapping[str, PerExample]:
    volume = 0.0
    if levels:
        x = likelihood.uniform_dequantised(x, streams.fold(keys, 0))
        volume = likelihood.log_levels(x[0].size)
    flow = ode(predict, schedule, x, streams.fold(keys, 1))
    return {"prior": -flow.prior, "change": volume - flow.change}


def _decoded(
    ode: OdeLikelihood, predict: Predict, schedule: Schedule, x: Examples, keys: Keys, levels: bool
) -> Mapping[str, PerExample]:
    """The terms of (1)."""
    t = jnp.full(len(x), ode.end, x.dtype)
    eps = streams.normal(streams.fold(keys, 0), x.shape[1:], x.dtype)
    x_t = gaussian.q_sample(schedule, x, t, eps)
    flow = ode(predict, schedule, x_t, streams.fold(keys, 1))
    alpha, sigma = broadcast(schedule.alpha(t), x), broadcast(schedule.sigma(t), x)
    noise = gaussian.log_density(x_t, alpha * x, 2 * jnp.log(sigma))
    decoder = likelihood.discretised_log_likelihood if levels else gaussian.log_density
    decoded = decoder(x, predict(x_t, t).x_0, 2 * jnp.log(sigma / alpha))
    return {
        "prior": -flow.prior,
        "change": -flow.change,
        "noise": sum_per_example(noise),
        "decoder": -sum_per_example(decoded),
    }


def dequantised(x: Examples, key: Key) -> Examples:
    """Training data [B, ...] spread uniformly over the bins of their levels, a key per example."""
    return likelihood.uniform_dequantised(x, streams.per_example(key, jnp.arange(len(x))))


def by_noise(losses: PerExample, schedule: Schedule, t: PerExample) -> Mapping[str, Weighted]:
    """Losses [B] at times t [B] by quarter of the schedule's logsnr range, q0 nearest the data."""
    high, low = schedule.logsnr(jnp.asarray([schedule.nearest, schedule.farthest]))
    return by_quarter("loss", losses, (high - schedule.logsnr(t)) / (high - low))
