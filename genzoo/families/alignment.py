"""Representation alignment: a denoiser's inner features are pulled towards better ones.

Yu et al. 2024 (Representation alignment for generation: REPA) and Jiang et al. 2025 (No other
representation component is needed: SRA). The loss of a family gains the term

    weight distance(projector(h(x_t, t)), y)                                                    (1)

where h is an inner map of the network in the same pass, and the projector an MLP that sampling does
not use. The target y is one of

    REPA  a frozen encoder's features of the patches of x_0; distance: minus the cosine
    SRA   a later inner map of the network with averaged params, at x_s made of the same x_0 and
          eps with less noise; distance: smooth L1                                              (2)

No gradient flows through y. The distances are in math/alignment.py. Evaluation leaves (1) out, so
that the losses of models with and without it can be compared.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Context, EncodesPatches, Variables
from genzoo.core.types import Array, Key, PerExample, Times, Tree
from genzoo.families.denoiser import Seen
from genzoo.math.alignment import Maps
from genzoo.math.schedules import Schedule
from genzoo.nets.interface import InnerMap, Network

PROJECTOR = "alignment"
"""The name of the projector among the params."""
ENCODER = "encoder"
"""The name of the frozen encoder in `Variables.frozen` and in a config."""
GAP = 0.2
"""The largest t - s of (2) on the straight path; it is drawn uniformly (Jiang et al. 2025)."""

FeaturesAt = Callable[[Tree, Times, Collection[str]], Mapping[str, Array]]
"""(params, s, paths) -> the outputs of inner modules for the same x_0, eps and conditions at s."""
Target = Callable[[Context, Seen, Schedule, FeaturesAt], Maps]
"""y of (1)."""


@dataclass(frozen=True, kw_only=True)
class EncoderTarget:
    """The target of REPA: a frozen encoder's features of the clean data."""

    encoder: EncodesPatches

    def __call__(
        self, context: Context, seen: Seen, schedule: Schedule, features_at: FeaturesAt
    ) -> Maps:
        """[B, *grid, D]."""
        del schedule, features_at
        batch = {**context.batch, "x": seen.x_0}
        return self.encoder.encode_patches(Variables(**context.frozen[ENCODER]), batch)


@dataclass(frozen=True, kw_only=True)
class AverageTarget:
    """The target of SRA: an inner map of the network with averaged params, nearer the data. The
    run keeps exactly one average."""

    inner: InnerMap

    def __call__(
        self, context: Context, seen: Seen, schedule: Schedule, features_at: FeaturesAt
    ) -> Maps:
        """[B, *grid, D]."""
        (average,) = context.averages.values()
        drawn = jax.random.uniform(streams.named(context.key, PROJECTOR), seen.t.shape)
        s = nearer(schedule, seen.t, GAP * drawn)
        return self.inner.of(features_at(average, s, (self.inner.path,)), seen.x_0.shape[1:-1])


def nearer(schedule: Schedule, t: PerExample, gap: PerExample) -> PerExample:
    """The times s [B] that lie nearer the data by `gap`, measured on the straight path, where
    t = sigma / (alpha + sigma)."""
    straight = jax.nn.sigmoid(-schedule.logsnr(t) / 2)
    less = jnp.clip(straight - gap, 1e-6, 1 - 1e-6)
    s = schedule.time_of_logsnr(-2 * jax.scipy.special.logit(less))
    return jnp.clip(s, min=jnp.minimum(schedule.nearest, t), max=t)


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Equation (1). inner: h. projector: from its width to that of y."""

    inner: InnerMap
    projector: Network
    target: Target
    distance: Callable[[Maps, Maps], PerExample]
    weight: float

    @property
    def names(self) -> tuple[str, ...]:
        """The path of the inner module whose output is h."""
        return (self.inner.path,)

    def init(self, key: Key) -> Tree:
        """The projector's initial params."""
        return self.projector.init(key, jnp.zeros((1, self.inner.width)))

    def __call__(
        self,
        params: Tree,
        context: Context,
        seen: Seen,
        schedule: Schedule,
        features_at: FeaturesAt,
    ) -> PerExample:
        """The distance in (1), [B]. params: of the projector."""
        h = self.inner.of(seen.features, seen.x_0.shape[1:-1])
        y = jax.lax.stop_gradient(self.target(context, seen, schedule, features_at))
        if y.shape[:-1] != h.shape[:-1]:
            y = jax.image.resize(y, (*h.shape[:-1], y.shape[-1]), "linear")
        return self.distance(self.projector.apply(params, h), y)
