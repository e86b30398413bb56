"""What the families share that are trained to denoise: a network that says of a noisy x_t, told the
time and perhaps a class, which data and noise it is made of; and everything that can be done with
such a predictor once it is trained.

A family adds its loss and, where it has one, its likelihood. Its schedule may be learned, so it is
asked for with the params.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Solution, Variables
from genzoo.core.types import Array, Batch, Images, Key, Keys, Labels, Tree, mean_per_example
from genzoo.math.prediction import Kind
from genzoo.math.schedules import Schedule
from genzoo.math.weighting import Weighting
from genzoo.samplers.grids import even
from genzoo.samplers.guidance import (
    Scale,
    autoguided,
    classifier_guided,
    doubled,
    elsewhere,
    within,
)
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Predict, Prediction, Wrapper
from genzoo.samplers.solver import MakeSampler, start
from genzoo.samplers.steps import DDIM

_INVERTED = 100  # steps of an inversion where the sampler has no grid

Noise = Callable[[Schedule, Array], Array]
"""(schedule, t) -> what the network is told of the time, same shape as t."""


def thousandths(schedule: Schedule, t: Array) -> Array:
    """1000 t: the time in the unit of DDPM steps."""
    del schedule
    return 1000 * t


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far sampling leans towards its condition. scale: 1 is off, 0 is unconditional. rescale:
    how far the deviation of the guided data is drawn back (Lin et al. 2023). low, high: the times
    between which there is guidance. classifier_scale: of a classifier's gradient, 0 is off."""

    scale: float = 1.0
    rescale: float = 0.0
    low: float = 0.0
    high: float = 1.0
    classifier_scale: float = 1.0

    @property
    def limited(self) -> bool:
        """Whether there is guidance at some times only."""
        return self.low > 0 or self.high < 1

    def over_time(self, scale: Scale, off: float = 1.0) -> Scale:
        """The scale at those times, `off` at others."""
        return within(scale, self.low, self.high, off) if self.limited else scale


class Seen(NamedTuple):
    """One training example's worth of a batch: data, noisy data, and what was predicted of it."""

    x_0: Array
    eps: Array
    x_t: Array
    t: Array  # [B]
    predicted: Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """The shared half of a family.

    network: (init, apply) of inputs (x_t, noise label, class label). shape: of one example.
    prediction: what the network's output is. sampler: schedule -> what takes noise to data.
    num_classes: 0 without labels; label_dropout: the share of labels replaced, per example, by the
    null class `num_classes`. clipping, guidance: how a prediction is used in sampling.
    levels: whether the data are on 256 levels, as images are, or are points.
    guide, classifier: trained models that sampling asks besides: a weaker one of the same kind
    (autoguidance), and one that knows p(label | x_t); their variables are `frozen` by these names.
    """

    network: object
    shape: tuple[int, ...]
    prediction: Kind
    sampler: MakeSampler
    clipping: Wrapper
    guidance: Guidance = Guidance()
    num_classes: int = 0
    label_dropout: float = 0.0
    guide: "Denoising | None" = None
    classifier: object | None = None
    levels: bool = True

    # --- what a family says of itself -------------------------------------------------------------

    def schedule_of(self, params: Tree) -> Schedule:
        """The noise schedule."""
        raise TypeError(f"{type(self).__name__} does not say what its schedule is")

    def network_params(self, params: Tree) -> Tree:
        """The part of the params that is the network's: all of them, but where others are learned
        besides."""
        return params

    def noise_label(self, schedule: Schedule, t: Array) -> Array:
        """What the network is told of the time."""
        return thousandths(schedule, t)

    def scaled_input(self, schedule: Schedule, x: Array, t: Array) -> Array:
        """What the network is shown of x_t."""
        del schedule, t
        return x

    def to_prediction(self, output: Array, x: Array, schedule: Schedule, t: Array) -> Prediction:
        """What the network's output says of x_t."""
        return Prediction(*self.prediction.to_pair(output, x, schedule, t))

    # --- training ---------------------------------------------------------------------------------

    def init_network(self, key: Key, example: Batch) -> Tree:
        """The network's params at the start."""
        x = example["x"]
        return self.network.init(key, x, jnp.zeros(x.shape[:1]), self.labels(example))

    def labels(self, batch: Batch, drop: Key | None = None) -> Labels | None:
        """The labels of a batch, with a key some of them dropped; None for a family without."""
        if not self.num_classes:
            return None
        labels = batch["label"]
        if drop is None or not self.label_dropout:
            return labels
        dropped = jax.random.bernoulli(drop, self.label_dropout, labels.shape)
        return jnp.where(dropped, self.num_classes, labels)

    def predict(
        self,
        params: Tree,
        schedule: Schedule,
        x: Array,
        t: Array,
        labels: Labels | None,
        *others: Array,
        train: bool = False,
        key: Key | None = None,
    ) -> Prediction:
        """What the network says of x_t [B, ...] at t [] or [B]; others: inputs that only some
        networks have."""
        noise = jnp.broadcast_to(self.noise_label(schedule, t), x.shape[:1])
        shown = self.scaled_input(schedule, x, t)
        params = self.network_params(params)
        output = self.network.apply(params, shown, noise, labels, *others, train=train, key=key)
        return self.to_prediction(output, x, schedule, t)

    def weighted_error(self, weighting: Weighting, schedule: Schedule, seen: Seen) -> Array:
        """weight(t) |error|^2 in the weighting's kind of prediction: mean over dimensions, [B]."""
        kind = weighting.kind or self.prediction
        target = kind.from_pair(seen, schedule, seen.t)
        predicted = kind.from_pair(seen.predicted, schedule, seen.t)
        weight = weighting.weight(schedule, seen.t)
        return weight * mean_per_example(jnp.square(target - predicted))

    # --- sampling ---------------------------------------------------------------------------------

    def sample(self, variables: Variables, keys: Keys, condition: Batch) -> Images:
        """Samples [B, ...] in [-1, 1], one per key."""
        return self.solve(variables, keys, condition).x

    def solve(
        self,
        variables: Variables,
        keys: Keys,
        condition: Batch,
        *,
        sampler: MakeSampler | None = None,
        guidance_scale: Array | None = None,
        trajectory: bool = False,
    ) -> Solution:
        """Samples with what it took to draw them. sampler, guidance_scale: other than the family's
        own."""
        schedule = self.schedule_of(variables.params)
        sampler = (sampler or self.sampler)(schedule)
        noise, rest = streams.fold(keys, 0), streams.fold(keys, 1)
        x = start(schedule, sampler.start, noise, self.shape)
        predict = self.predictor(variables, condition, guidance_scale)
        return sampler(predict, x, rest, trajectory=trajectory)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """What comes back of data that DDIM has taken to their noise and back again: [B, ...]
        (Song et al. 2020, section 5.4; Dhariwal & Nichol 2021, section F).

        Deterministic; without guidance, with which the way back is another than the way there. The
        times are those of the family's sampler, or of even steps where it has none of its own.
        """
        del keys
        schedule = self.schedule_of(variables.params)
        own = self.sampler(schedule)
        times = jnp.asarray(own.times if isinstance(own, Sampler) else even(schedule, _INVERTED))
        # The data are taken to be x_t at the last time asked; from alpha = 0 nothing comes back.
        times = jnp.minimum(times, schedule.farthest)
        predict = self.clipping(self.unguided(variables.params, batch), schedule)
        step = DDIM(schedule=schedule)
        unused = streams.per_example(streams.root(0), jnp.arange(batch["x"].shape[0]))
        there = Sampler(step=step, times=times[:-1][::-1])
        noise = there(predict, batch["x"], unused).x
        return Sampler(step=step, times=times)(predict, noise, unused).x

    def predictor(
        self, variables: Variables, condition: Batch, guidance_scale: Array | None = None
    ) -> Predict:
        """The predictor that sampling uses: guided, then clipped. guidance_scale: a number that
        may be an argument of the compiled program, None for the family's own."""
        params, frozen = variables.params, variables.frozen
        schedule, labels = self.schedule_of(params), self.labels(condition)
        own = self.guidance.scale
        scale = self.guidance.over_time(own if guidance_scale is None else guidance_scale)
        guided = guidance_scale is not None or own != 1

        def labelled(x: Array, t: Array, labels: Labels | None) -> Prediction:
            return self.predict(params, schedule, x, t, labels)

        def predict(x: Array, t: Array) -> Prediction:
            return labelled(x, t, labels)

        if self.guide is not None:
            theirs = frozen["guide"]["params"]
            weaker = self.guide.unguided(theirs, condition)
            weaker = elsewhere(weaker, schedule, self.guide.schedule_of(theirs))
            predict = autoguided(predict, weaker, scale, schedule)
        elif guided and self.num_classes:
            rescale = self.guidance.rescale
            predict = doubled(labelled, labels, self.num_classes, scale, schedule, rescale=rescale)
        if self.classifier is not None:
            log_prob = self.classifier.log_prob(frozen["classifier"]["params"], condition["label"])
            log_prob = elsewhere(log_prob, schedule, self.classifier.schedule)
            scale = self.guidance.over_time(self.guidance.classifier_scale, off=0.0)
            predict = classifier_guided(predict, log_prob, scale, schedule)
        return self.clipping(predict, schedule)

    def unguided(self, params: Tree, condition: Batch) -> Predict:
        """The network's own predictions."""
        schedule, labels = self.schedule_of(params), self.labels(condition)
        return lambda x, t: self.predict(params, schedule, x, t, labels)
