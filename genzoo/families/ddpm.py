"""Denoising diffusion probabilistic models (DDPM).

DDPM (Ho et al. 2020), improved DDPM (Nichol & Dhariwal 2021), and DDIM (Song et al. 2020), which
samples from the same models.

Training draws a step n and noise, makes x_t (math.gaussian, eq. 1) and scores the network's
prediction. There are three objectives, each a mean over dimensions:

    simple = weight(logsnr) |target - prediction|^2                                       (1)
    vlb    = T L_{n-1} / dimensions, in bits: its mean over n is the bound without L_T    (2)
    hybrid = simple + 0.001 vlb, with the mean held fixed in the second term              (3)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.conditions import gather
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample, Times, Tree, sum_per_example
from genzoo.families.denoiser import Seen, by_quarter, weighted_error
from genzoo.families.denoising import Denoising
from genzoo.math import gaussian, likelihood
from genzoo.math.schedules import TableSchedule
from genzoo.math.weighting import StepDistribution, UniformSteps, Weighting
from genzoo.samplers.predictor import Prediction, clipped

Objective = Callable[["DDPM", Seen], Mapping[str, PerExample]]


def simple(family: "DDPM", seen: Seen) -> Mapping[str, PerExample]:
    """Equation (1)."""
    own = family.denoiser.prediction
    return {"mse": weighted_error(family.weighting, own, family.schedule, seen)}


def vlb(family: "DDPM", seen: Seen) -> Mapping[str, PerExample]:
    """Equation (2)."""
    nats = family.bound_term(seen.x_0, seen.x_t, seen.t, seen.predicted)
    dimensions = seen.x_0[0].size
    return {"vlb": family.schedule.steps * likelihood.bits_per_dim(nats, dimensions)}


def hybrid(family: "DDPM", seen: Seen) -> Mapping[str, PerExample]:
    """Equation (3): the bound trains only the variance, and (1) trains the mean."""
    predicted = seen.predicted
    fixed = Prediction(*jax.lax.stop_gradient((predicted.x_0, predicted.eps)), predicted.extra)
    bound = vlb(family, seen._replace(predicted=fixed))
    return {**simple(family, seen), "vlb": 0.001 * bound["vlb"]}


def steps_before(schedule: TableSchedule, t: Times) -> Times:
    """n - 1, the network's input for the time: the published code counts steps from 0."""
    return schedule.step_of(t) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DDPM(Denoising):
    """The DDPM family, whose schedule is a table.

    Capabilities: Samples, Solves, Reconstructs, Likelihoods.

    variance: the rule for the variance of p_theta, which the network may learn in part. weighting:
    of the simple objective. step_distribution: how n is drawn in training. objective: (1), (2) or
    (3). bound_steps: how many steps of the bound to evaluate per example, 0 for all of them.
    """

    variance: gaussian.ReverseVariance
    weighting: Weighting
    step_distribution: StepDistribution
    objective: Objective
    bound_steps: int

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network; stats of the step distribution."""
        params = self.initial_params(key, example)
        return Variables(params=params, stats=self.step_distribution.init())

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The objective per example [B]; metrics: the loss, its parts, the loss by quarter of t."""
        key, x_0 = context.key, context.batch["x"]
        uniform = UniformSteps(steps=self.schedule.steps)
        steps = self.step_distribution if context.train else uniform
        n, weights = steps.draw(streams.named(key, "time"), context.stats, len(x_0))
        t = self.schedule.time_of(n.astype(x_0.dtype))
        eps = jax.random.normal(streams.named(key, "noise"), x_0.shape, x_0.dtype)
        conditions = self.gathered(context)
        seen = self.see(params, context, x_0, eps, t, conditions)
        parts = self.objective(self, seen)
        added, aligned = self.aligned(params, context, seen, conditions)
        losses = sum(parts.values())
        stats = context.stats
        if context.train:
            stats = self.step_distribution.update(stats, n, jax.lax.stop_gradient(losses))
        # With these weights, every metric is the mean over uniform steps, however n was drawn.
        total = (losses + added) * weights
        metrics = {"loss": total}
        if len(parts) > 1:
            metrics |= {name: part * weights for name, part in parts.items()}
        metrics |= {name: part * weights for name, part in aligned.items()}
        # t = n / T is at the upper end of its bin.
        metrics |= by_quarter("loss", losses, t - 1e-6, weights)
        return total, Aux(metrics=metrics, stats=stats)

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The variational bound in nats per example, and its distribution over the steps.

        It evaluates every step of 2..T, or one drawn at random from each of `bound_steps` strata
        and weighted by the stratum's size, which is unbiased per example. For data on levels, the
        predicted x_0 is clipped to [-1, 1]; this defines a p_theta that is as valid as any other.
        """
        x_0 = batch["x"]
        conditions = gather(self.conditions, batch, variables.frozen)
        predict = self.unguided(variables.params, conditions)
        if self.levels:
            predict = clipped(predict, self.schedule)
        total = self.schedule.steps
        edges = np.linspace(2, total + 1, (self.bound_steps or total - 1) + 1).astype(np.int32)
        low, width = edges[:-1], np.diff(edges)

        def term(n, keys):
            t = self.schedule.time_of(n.astype(x_0.dtype))
            eps = streams.normal(keys, x_0.shape[1:], x_0.dtype)
            x_t = gaussian.q_sample(self.schedule, x_0, t, eps)
            return self.bound_term(x_0, x_t, t, predict(x_t, t))

        def stratum(_, inputs):
            index, low, width = inputs
            own = streams.fold(keys, index)
            place = streams.uniform(streams.fold(own, 0))
            n = low + jnp.minimum(jnp.floor(place * width), width - 1).astype(jnp.int32)
            return None, width * term(n, streams.fold(own, 1))

        indices = jnp.arange(1, len(low) + 1)
        _, values = jax.lax.scan(stratum, None, (indices, jnp.asarray(low), jnp.asarray(width)))
        first = term(jnp.ones(len(x_0), jnp.int32), streams.fold(keys, 0))
        terms = {
            "prior": likelihood.prior_kl(self.schedule, x_0),
            "diffusion": values.sum(0),
            "reconstruction": first,
        }
        centres = (low + (width - 1) / 2) / total
        curve, density = (centres, values.T), not self.levels
        return Likelihood(total=sum(terms.values()), terms=terms, curve=curve, density=density)

    # --- shared by the methods above -----------------------------------------------------------

    def bound_term(
        self, x_0: Examples, x_t: Examples, t: PerExample, predicted: Prediction
    ) -> PerExample:
        """L_{n-1} in nats per example [B] at t = n / T: a KL for n > 1, the decoder for n = 1,
        which is a Gaussian for data that are not on levels."""
        s = self.schedule.step_before(t)
        log_variance = self.variance.log_variance(self.schedule, t, s, predicted.extra)
        log_variance = log_variance.reshape(
            log_variance.shape + (1,) * (x_0.ndim - log_variance.ndim)
        )
        inner = jnp.where(s > 0, s, t / 2)  # keeps the unused branch and its gradient finite
        kl = likelihood.step_kl(
            self.schedule, x_0, x_t, t, inner, predicted.x_0, log_variance
        )
        # For the same reason: at the noisiest steps a predicted x_0 of 1e5 would make the decoder's
        # gradient NaN, and even an unused NaN spoils the sum of gradients.
        at_end = (s <= 0).reshape(s.shape + (1,) * (x_0.ndim - s.ndim))
        mean = jnp.where(at_end, predicted.x_0, x_0)
        decode = likelihood.discretised_log_likelihood if self.levels else gaussian.log_density
        decoder = decode(x_0, mean, log_variance)
        return jnp.where(s > 0, kl, -sum_per_example(decoder))
