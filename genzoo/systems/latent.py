"""A denoising model in the latent space of a frozen first stage.

Latent diffusion (Rombach et al. 2022), and score models in the latent space of a VAE (Vahdat et al.
2021). The first stage gives the moments of the latents u of an example x, by place and channel:

    u = m(x) + s(x) eps,   or u = m(x)                                                          (1)
    z = (u - shift) / scale                         by channel                                  (2)
    shift = E m,   scale^2 = Var m + E s^2          over examples and places                    (3)

where E s^2 is left out if u = m(x). The inner family, of any kind that denoises, models z, of zero
mean and unit variance, as it would model real-valued data. Its samples are decoded. The statistics
(3) are measured over the training data once, before the first step, and kept in the stats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.conditions import Condition, Conditions
from genzoo.core.contract import Aux, Context, Likelihood, Loss, Player, Solution, Variables
from genzoo.core.latents import Compresses
from genzoo.core.types import (
    Array,
    Batch,
    Examples,
    Factors,
    Floats,
    Key,
    Keys,
    PerExample,
    Tree,
)
from genzoo.families.denoising import Denoising
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.predictor import Predict
from genzoo.samplers.solver import MakeSampler

FIRST = "first"
"""The name of the first stage in `Variables.frozen` and in a config."""
_SCORED = "a density of the latents of the first stage, standardised: it has no bits/dim"


@dataclass(frozen=True, kw_only=True, eq=False)
class Latent:
    """A family of latents. Capabilities: Samples, Solves, Reconstructs, Likelihoods (of the
    latents), Measures.

    first: the first stage, whose variables are in `frozen`. inner: the family of the latents, whose
    params are those of this one. sampled: whether latents are drawn by (1) or are their means.
    encoded: whether the datum x of a batch holds the moments [B, 2, *latent_shape], means and
    standard deviations, and not what the first stage encodes. guide: a weaker model in the same
    space, as in `Denoising`.
    """

    first: Compresses
    inner: Denoising
    sampled: bool
    encoded: bool = False
    guide: "Latent | None" = None

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the inner family. Those of the first stage come from its own run."""
        shape = self.first.latent_shape
        latents = jnp.zeros((len(example["x"]), *shape))
        inner = self.inner.init(key, {**example, "x": latents})
        standard = {"shift": jnp.zeros(shape[-1]), "scale": jnp.ones(shape[-1])}
        return replace(inner, stats={"inner": inner.stats, "standard": standard})

    @property
    def losses(self) -> Mapping[str, Player]:
        """The players of the inner family."""
        return {
            name: replace(player, loss=partial(self._loss, player.loss))
            for name, player in self.inner.losses.items()
        }

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """The conditions of the inner family."""
        return self.inner.conditions

    def _loss(self, inner: Loss, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        variables = Variables(params=params, stats=context.stats, frozen=context.frozen)
        key = streams.named(context.key, "latents")
        z = self._latents(variables, context.batch, partial(jax.random.normal, key))
        batch, stats = {**context.batch, "x": z}, context.stats
        values, aux = inner(params, replace(context, batch=batch, stats=stats["inner"]))
        return values, replace(aux, stats={**stats, "inner": aux.stats})

    def measure(self, variables: Variables, batch: Batch) -> Mapping[str, Floats]:
        """The mean over places and the variance of each example's latents, by channel: [B, C]."""
        mean, deviation = self._moments(variables, batch)
        places = tuple(range(1, mean.ndim - 1))
        variance = mean.var(places)
        if self.sampled:
            variance = variance + jnp.square(deviation).mean(places)
        return {"mean": mean.mean(places), "variance": variance}

    def with_measured(self, stats: Tree, measured: Mapping[str, Floats]) -> Tree:
        """The stats with (3); a channel that never varies has scale 1."""
        mean, variance = (np.asarray(measured[k], np.float64) for k in ("mean", "variance"))
        scale = np.sqrt(variance.mean(0) + mean.var(0))
        scale = np.where(scale > 0, scale, 1)
        standard = {"shift": mean.mean(0), "scale": scale}
        return {**stats, "standard": {k: v.astype(np.float32) for k, v in standard.items()}}

    # --- sampling -----------------------------------------------------------------------------

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Decoded samples [B, ...], one per key."""
        return self.solve(variables, keys, conditions).x

    def solve(
        self,
        variables: Variables,
        keys: Keys,
        conditions: Conditions,
        *,
        sampler: MakeSampler | None = None,
        guidance_scale: Factors | None = None,
        negative: Conditions | None = None,
        trajectory: bool = False,
    ) -> Solution:
        """Decoded samples, as by `Denoising.solve`; the trajectory is that of the latents z."""
        solution = self._inner.solve(
            self._inside(variables), keys, conditions, sampler=sampler,
            guidance_scale=guidance_scale, negative=negative, trajectory=trajectory,
        )  # fmt: skip
        return replace(solution, x=self._decoded(variables, solution.x))

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The latents' means, reconstructed by the inner family and decoded: [B, ...]."""
        z = self._latents(variables, batch, None)
        inside = self._inside(variables)
        return self._decoded(variables, self.inner.reconstruct(inside, {**batch, "x": z}, keys))

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """-log p(z) in nats per example, or a bound on it, as the inner family computes it."""
        own = jax.vmap(partial(streams.named, name="latents"))(keys)
        z = self._latents(variables, batch, lambda shape: streams.normal(own, shape[1:]))
        density = self.inner.likelihood(self._inside(variables), {**batch, "x": z}, keys)
        dimensions = int(np.prod(self.first.latent_shape))
        return replace(density, density=True, of=_SCORED, dimensions=dimensions)

    def schedule_of(self, params: Tree) -> Schedule:
        """The noise schedule of the latents."""
        return self.inner.schedule_of(params)

    def predictor(
        self,
        variables: Variables,
        conditions: Conditions,
        guidance_scale: Factors | None = None,
        negative: Conditions | None = None,
    ) -> Predict:
        """The predictor of the latents z."""
        inside = self._inside(variables)
        return self._inner.predictor(inside, conditions, guidance_scale, negative)

    @property
    def variance(self) -> gaussian.ReverseVariance:
        """That of the inner family's reverse steps."""
        return getattr(self.inner, "variance", gaussian.FIXED_SMALL)

    # --- shared by the methods above ----------------------------------------------------------

    @property
    def _inner(self) -> Denoising:
        """The inner family with its guide."""
        return self.inner if self.guide is None else replace(self.inner, guide=self.guide.inner)

    def _inside(self, variables: Variables) -> Variables:
        return replace(variables, stats=variables.stats["inner"])

    def _moments(self, variables: Variables, batch: Batch) -> tuple[Array, Array]:
        if self.encoded:
            return batch["x"][:, 0], batch["x"][:, 1]
        moments = self.first.moments(Variables(**variables.frozen[FIRST]), batch)
        return jax.lax.stop_gradient(moments)

    def _latents(
        self, variables: Variables, batch: Batch, normal: Callable[..., Array] | None
    ) -> Floats:
        """z [B, *latent_shape]; normal: shape -> noise, None for the mean."""
        latents, deviation = self._moments(variables, batch)
        if self.sampled and normal is not None:
            latents = latents + deviation * normal(latents.shape)
        standard = variables.stats["standard"]
        return (latents - standard["shift"]) / standard["scale"]

    def _decoded(self, variables: Variables, z: Floats) -> Examples:
        standard = variables.stats["standard"]
        latents = z * standard["scale"] + standard["shift"]
        return self.first.decode_latents(Variables(**variables.frozen[FIRST]), latents)

