"""Shared by the continuous-time families: their likelihood and the metrics of their losses.

Score SDEs, EDM and flow matching have a probability-flow ODE, and hence a likelihood by the change
of variables (Chen et al. 2018; Song et al. 2021, section 4.3).
"""

from collections.abc import Mapping

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import gather
from genzoo.core.contract import Likelihood, Variables, Weighted
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample
from genzoo.families.denoiser import by_quarter
from genzoo.families.denoising import Denoising
from genzoo.math import likelihood
from genzoo.math.schedules import Schedule
from genzoo.samplers.ode_likelihood import OdeLikelihood


def flow_likelihood(
    family: Denoising, ode: OdeLikelihood, variables: Variables, batch: Batch, keys: Keys
) -> Likelihood:
    """-log p(x) under the model's flow, in nats per example.

    It is exact up to the error of the solver and, with random probes, of the trace. If the data are
    on levels, it is the likelihood of the levels, by uniform dequantisation.
    """
    x, levels = batch["x"], 0.0
    if family.levels:
        x = likelihood.uniform_dequantised(x, streams.fold(keys, 0))
        levels = likelihood.log_levels(x[0].size)
    conditions = gather(family.conditions, batch, variables.frozen)
    predict = family.unguided(variables.params, conditions)
    flow = ode(predict, family.schedule_of(variables.params), x, streams.fold(keys, 1))
    terms = {"prior": -flow.prior, "change": levels - flow.change}
    return Likelihood(total=sum(terms.values()), terms=terms, density=not family.levels)


def dequantised(x: Examples, key: Key) -> Examples:
    """Training data [B, ...] spread uniformly over the bins of their levels, a key per example."""
    return likelihood.uniform_dequantised(x, streams.per_example(key, jnp.arange(len(x))))


def by_noise(losses: PerExample, schedule: Schedule, t: PerExample) -> Mapping[str, Weighted]:
    """Losses [B] at times t [B] by quarter of the schedule's logsnr range, q0 nearest the data."""
    high, low = schedule.logsnr(jnp.asarray([schedule.nearest, schedule.farthest]))
    return by_quarter("loss", losses, (high - schedule.logsnr(t)) / (high - low))
