"""What the families of continuous time share that are trained on a weighted error alone: score
SDEs, EDM and flow matching are this loss with other schedules, times, predictions and weightings.

    loss = E_t E_eps weight(t) |target - prediction|^2,   x_t = alpha(t) x_0 + sigma(t) eps     (1)

All have a probability-flow ODE, and with it a likelihood by the change of variables (Chen et al.
2018; Song et al. 2021, section 4.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables, Weighted
from genzoo.core.types import Array, Batch, Key, Keys, Labels, Tree
from genzoo.families.denoising import Denoising, Seen
from genzoo.math import gaussian, likelihood
from genzoo.math.schedules import Schedule
from genzoo.math.times import TimeDistribution
from genzoo.math.weighting import Weighting
from genzoo.samplers.ode_likelihood import OdeLikelihood


@dataclass(frozen=True, kw_only=True, eq=False)
class ContinuousDenoising(Denoising):
    """A family of continuous time. Capabilities: Samples, Likelihoods.

    times: how t is drawn in training. ode: how the likelihood is integrated; where the data are on
    256 levels it is one of levels, by uniform dequantisation. dequantised: whether training spreads
    the levels over their bins too. A model that has seen exact levels and tells them apart finds
    what lies between unlikely.
    """

    schedule: Schedule
    times: TimeDistribution
    weighting: Weighting
    ode: OdeLikelihood
    dequantised: bool = False

    # --- the contract -----------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        return Variables(params=self.init_network(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[Array, Aux]:
        """Equation (1) per example [B]; metrics: the same by quarter of the logsnr range, q0 the
        nearest to the data."""
        draw, noise, drop, dropout = jax.random.split(context.key, 4)
        labels = self.labels(context.batch, drop if context.train else None)
        x_0 = context.batch["x"]
        if self.dequantised:
            keys = streams.per_example(streams.stream(context.key, "levels"), jnp.arange(len(x_0)))
            x_0 = likelihood.uniform_dequantised(x_0, keys)
        eps = self.noise(noise, x_0)
        t = self.times.draw(draw, len(x_0), self.schedule).astype(x_0.dtype)
        key = dropout if context.train else None
        seen = self.see(params, x_0, eps, t, labels, context.train, key)
        losses = self.weighted_error(self.weighting, self.schedule, seen)
        ends = jnp.asarray([self.schedule.nearest, self.schedule.farthest])
        high, low = self.schedule.logsnr(ends)
        quartile = jnp.clip(jnp.floor(4 * (high - self.schedule.logsnr(t)) / (high - low)), 0, 3)
        metrics = {
            f"loss_q{q}": Weighted(values=losses, weights=(quartile == q).astype(losses.dtype))
            for q in range(4)
        }
        return losses, Aux(metrics=metrics)

    def noise(self, key: Key, x_0: Array) -> Array:
        """The noise that each example is given: [B, ...]."""
        return jax.random.normal(key, x_0.shape, x_0.dtype)

    def see(
        self,
        params: Tree,
        x_0: Array,
        eps: Array,
        t: Array,
        labels: Labels | None,
        train: bool,
        key: Key | None,
    ) -> Seen:
        """x_t and what the network predicts of it."""
        x_t = gaussian.q_sample(self.schedule, x_0, t, eps)
        predicted = self.predict(params, self.schedule, x_t, t, labels, train=train, key=key)
        return Seen(x_0, eps, x_t, t, predicted)

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The exact -log p(x) of the model's flow, in nats per example, but for the error of the
        solver and, with random probes, of the trace; of levels where the data have them."""
        x = batch["x"]
        levels = 0.0
        if self.levels:
            x = likelihood.uniform_dequantised(x, streams.fold(keys, 0))
            levels = likelihood.log_levels(x[0].size)
        schedule = self.schedule_of(variables.params)
        predict = self.unguided(variables.params, batch)
        found = self.ode(predict, schedule, x, streams.fold(keys, 1))
        terms = {"prior": -found.prior, "change": levels - found.change}
        return Likelihood(total=sum(terms.values()), terms=terms, density=not self.levels)

    # --- what the parts above share ---------------------------------------------------------------

    def schedule_of(self, params: Tree) -> Schedule:
        """The schedule, which nothing learns."""
        del params
        return self.schedule
