"""Score-based models by stochastic differential equations (Song et al. 2021).

The paper is "Score-based generative modeling through stochastic differential equations".

    dx = f(t) x dt + g(t) dw,   f = alpha' / alpha,   g^2 = d sigma^2 / dt - 2 f sigma^2        (1)
    dx = (f x - g^2 score) dt + g dw,   backwards in time                                       (2)
    dx = (f x - g^2 score / 2) dt,      with the same marginals: the probability flow           (3)
    loss = E_t E_eps weight(t) |target - prediction|^2,   x_t = alpha(t) x_0 + sigma(t) eps     (4)

VP, sub-VP and VE differ only in their schedule. With the "simple" weighting all noise levels count
equally. With the likelihood weighting g^2 the loss bounds the likelihood of (3), and drawing t in
proportion to g^2 / sigma^2 removes the variance due to that weight (Song et al. 2021b).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Batch, Key, Keys, PerExample, Times, Tree
from genzoo.families.continuous import by_noise, dequantised, flow_likelihood
from genzoo.families.denoiser import weighted_error
from genzoo.families.denoising import Denoising
from genzoo.math.schedules import Schedule
from genzoo.math.times import TimeDistribution
from genzoo.math.weighting import Weighting
from genzoo.samplers.ode_likelihood import OdeLikelihood

LIKELIHOOD_END = 1e-5
"""The time at which the likelihood takes x as x_t; it is closer to 0 than samplers go."""


def log_noise(schedule: Schedule, t: Times) -> Times:
    """1000 log sigma: NCSN++'s time input for VE, in the units that its Fourier features expect."""
    return 1000 * jnp.log(schedule.sigma(t))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSDE(Denoising):
    """The score SDE family: its schedule gives (1), and its samplers follow (2) and (3).

    Capabilities: Samples, Solves, Reconstructs, Likelihoods.

    times: how t is drawn in training. weighting: of the error over time. ode: how the likelihood is
    integrated. dequantises: whether training spreads the levels of images over their bins, as the
    likelihood does. A model trained on exact levels finds values between them unlikely.
    """

    times: TimeDistribution
    weighting: Weighting
    ode: OdeLikelihood
    dequantises: bool

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        return Variables(params=self.initial_params(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (4) per example [B]; metrics: the same by quarter of the logsnr range."""
        key, schedule, x_0 = context.key, self.schedule, context.batch["x"]
        if self.dequantises:
            x_0 = dequantised(x_0, streams.named(key, "levels"))
        conditions = self.gathered(context)
        eps = jax.random.normal(streams.named(key, "noise"), x_0.shape, x_0.dtype)
        t = self.times.draw(streams.named(key, "time"), len(x_0), schedule).astype(x_0.dtype)
        seen = self.see(params, context, x_0, eps, t, conditions)
        losses = weighted_error(self.weighting, self.denoiser.prediction, schedule, seen)
        added, metrics = self.aligned(params, context, seen, conditions)
        return losses + added, Aux(metrics={**by_noise(losses, schedule, t), **metrics})

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The change of variables along the flow (3): `continuous.flow_likelihood`."""
        return flow_likelihood(self, self.ode, variables, batch, keys)
