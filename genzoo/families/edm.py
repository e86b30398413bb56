"""EDM (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models").

    x = x_0 + sigma eps,   ln sigma ~ N(P_mean, P_std^2) in training                            (1)
    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)                                           (2)
    loss = lambda(sigma) |D - x_0|^2,   lambda c_out^2 = 1                                      (3)

(2) is a kind of prediction and an input scale (math/precondition.py). Because lambda c_out^2 = 1,
(3) is the plain mean squared error of F. Augmentations do not leak into samples, because the
network is conditioned on them, and samples are drawn without any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Given
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Batch, Key, Keys, PerExample, Tree
from genzoo.data.augment import Augmentation
from genzoo.families.continuous import by_noise, flow_likelihood
from genzoo.families.denoiser import weighted_error
from genzoo.families.denoising import Denoising
from genzoo.math.times import TimeDistribution
from genzoo.math.weighting import Weighting
from genzoo.samplers.ode_likelihood import OdeLikelihood

AUGMENTATION = "augment"
"""The condition that describes the augmentation to the network; absent in sampling."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EDM(Denoising):
    """The EDM family. Capabilities: Samples, Solves, Reconstructs, Likelihoods.

    times: how sigma is drawn in training. weighting: of the error of F over time. ode: how the
    likelihood is integrated. augmentation: of the training images and of every other spatial field
    of their records, or None; a vector condition describes it to the network.
    """

    times: TimeDistribution
    weighting: Weighting
    ode: OdeLikelihood
    augmentation: Augmentation | None = None

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        return Variables(params=self.initial_params(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (3) per example [B]; metrics: the same by quarter of the logsnr range."""
        key, schedule, described = context.key, self.schedule, {}
        if self.augmentation is not None and context.train:
            own = streams.named(key, "augmentation")
            batch, applied = self.augmentation.records(context.batch, own)
            context = replace(context, batch=batch)
            described = {AUGMENTATION: Given(applied, jnp.ones(len(applied), bool))}
        x_0, conditions = context.batch["x"], {**self.gathered(context), **described}
        eps = jax.random.normal(streams.named(key, "noise"), x_0.shape, x_0.dtype)
        t = self.times.draw(streams.named(key, "time"), len(x_0), schedule).astype(x_0.dtype)
        seen = self.see(params, context, x_0, eps, t, conditions)
        losses = weighted_error(self.weighting, self.denoiser.prediction, schedule, seen)
        added, metrics = self.aligned(params, context, seen, conditions)
        return losses + added, Aux(metrics={**by_noise(losses, schedule, t), **metrics})

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The change of variables along the probability flow: `continuous.flow_likelihood`."""
        return flow_likelihood(self, self.ode, variables, batch, keys)
