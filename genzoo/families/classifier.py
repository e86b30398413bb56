"""An image classifier, plain or noise-conditional.

    loss = -log p(y | x_t),   x_t = alpha(t) x_0 + sigma(t) eps                                 (1)

With t = 0 it is an ordinary classifier, whose penultimate features are a representation learned for
one task. Trained at every noise level, it can guide a diffusion model with the same schedule by the
gradient of (1) (Dhariwal & Nichol 2021, section 4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import (
    Batch,
    Examples,
    Key,
    Keys,
    Labels,
    Logits,
    PerExample,
    Times,
    Tree,
    Vectors,
)
from genzoo.families.denoiser import by_quarter, thousandths
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.math.times import TimeDistribution
from genzoo.nets.interface import Network

PENULTIMATE = "pool"
"""The module of the network whose output is the input of the last layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """The classifier family. Capabilities: Encodes, Classifies.

    network: takes (x, noise level, no conditions) and returns logits [B, classes]. times: how t is
    drawn in training. noisy: whether it is trained at every noise level of the schedule or on clean
    data only.
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
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) per example in nats [B]; metrics: accuracy, by quarter of t if noisy."""
        key = context.key
        x, labels = context.batch["x"], context.batch["label"]
        t = jnp.zeros(x.shape[:1], x.dtype)
        if self.noisy:
            t = self.times.draw(streams.named(key, "time"), len(x), self.schedule).astype(x.dtype)
            eps = jax.random.normal(streams.named(key, "noise"), x.shape, x.dtype)
            x = gaussian.q_sample(self.schedule, x, t, eps)
        drop = streams.named(key, "dropout") if context.train else None
        level = self._noise_level(t)
        logits = self.network.apply(params, x, level, {}, train=context.train, key=drop)
        losses = -_at_labels(jax.nn.log_softmax(logits), labels)
        correct = (logits.argmax(-1) == labels).astype(losses.dtype)
        metrics = {"accuracy": correct}
        if self.noisy:
            metrics |= by_quarter("accuracy", correct, t)
        return losses, Aux(metrics=metrics)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The penultimate features of the clean data [B, D]."""
        del keys
        return self._outputs(variables, batch)[0]

    def classify(self, variables: Variables, batch: Batch) -> tuple[Vectors, Logits]:
        """The penultimate features [B, D] and the logits [B, classes] of the clean data."""
        return self._outputs(variables, batch)

    def _outputs(self, variables: Variables, batch: Batch) -> tuple:
        x = batch["x"]
        level = self._noise_level(jnp.zeros(x.shape[:1], x.dtype))
        logits, inner = self.network.features(
            variables.params, x, level, {}, names=(PENULTIMATE,)
        )
        return inner[PENULTIMATE], logits

    # --- for guidance -----------------------------------------------------------------------------

    def log_prob(self, params: Tree, labels: Labels) -> Callable[[Examples, Times], PerExample]:
        """(x_t [B, ...], t [] or [B]) -> log p(label | x_t) in nats [B]."""

        def log_prob_of_labels(x: Examples, t: Times) -> PerExample:
            level = self._noise_level(jnp.broadcast_to(t, x.shape[:1]))
            logits = self.network.apply(params, x, level, {})
            return _at_labels(jax.nn.log_softmax(logits), labels)

        return log_prob_of_labels

    def _noise_level(self, t: PerExample) -> PerExample:
        return thousandths(self.schedule, t)


def _at_labels(values: Vectors, labels: Labels) -> PerExample:
    """values [B, K] at labels [B]."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]
