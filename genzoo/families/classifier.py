"""A classifier of images, plain or noise-conditional.

    loss = -log p(y | x_t),   x_t = alpha(t) x_0 + sigma(t) eps                                 (1)

With t = 0 it is an ordinary classifier, whose penultimate features are a representation made for
one task. Trained at every noise level it can guide a diffusion model of the same schedule, by the
gradient of (1) (Dhariwal & Nichol 2021, section 4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import Array, Batch, Key, Keys, Labels, Tree
from genzoo.families.denoising import by_quarter, thousandths
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.math.times import TimeDistribution
from genzoo.nets.interface import Network

PENULTIMATE = "pool"
"""The inner module of the network whose output goes into the last layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """The family. Capability: Encodes.

    network: of inputs (x, noise level, no conditions), with logits [B, classes].
    noisy: whether it sees every noise level of the schedule, or the data alone.
    """

    network: Network
    schedule: Schedule
    times: TimeDistribution
    noisy: bool

    # --- the contract -----------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        x = example["x"]
        return Variables(params=self.network.init(key, x, jnp.zeros(x.shape[:1]), {}))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[Array, Aux]:
        """Equation (1) per example in nats [B]; metrics: accuracy, by quartile of t where noisy."""
        key = context.key
        x, labels = context.batch["x"], context.batch["label"]
        t = jnp.zeros(x.shape[:1], x.dtype)
        if self.noisy:
            t = self.times.draw(streams.named(key, "time"), len(x), self.schedule).astype(x.dtype)
            eps = jax.random.normal(streams.named(key, "noise"), x.shape, x.dtype)
            x = gaussian.q_sample(self.schedule, x, t, eps)
        drop = streams.named(key, "dropout") if context.train else None
        logits = self.network.apply(params, x, self._told(t), {}, train=context.train, key=drop)
        losses = -_chosen(jax.nn.log_softmax(logits), labels)
        right = (logits.argmax(-1) == labels).astype(losses.dtype)
        metrics = {"accuracy": right}
        if self.noisy:
            metrics |= by_quarter("accuracy", right, t)
        return losses, Aux(metrics=metrics)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The penultimate features of the data [B, D]."""
        del keys
        x = batch["x"]
        told = self._told(jnp.zeros(x.shape[:1], x.dtype))
        _, found = self.network.features(variables.params, x, told, {}, names=(PENULTIMATE,))
        return found[PENULTIMATE]

    # --- what guidance asks -----------------------------------------------------------------------

    def log_prob(self, params: Tree, labels: Labels) -> Callable[[Array, Array], Array]:
        """(x_t [B, ...], t [] or [B]) -> log p(label | x_t) in nats [B]."""

        def of(x: Array, t: Array) -> Array:
            logits = self.network.apply(params, x, self._told(jnp.broadcast_to(t, x.shape[:1])), {})
            return _chosen(jax.nn.log_softmax(logits), labels)

        return of

    def _told(self, t: Array) -> Array:
        return thousandths(self.schedule, t)


def _chosen(values: Array, labels: Labels) -> Array:
    """values [B, K] at labels [B]."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]
