"""A network as a predictor of the clean data and the noise in x_t, and the errors of predictions.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Conditions
from genzoo.core.contract import Weighted
from genzoo.core.types import (
    Examples,
    Factors,
    Floats,
    Key,
    PerExample,
    Times,
    Tree,
    broadcast,
    mean_per_example,
)
from genzoo.math import gaussian
from genzoo.math.prediction import Kind, Pair
from genzoo.math.schedules import Schedule
from genzoo.math.weighting import Weighting
from genzoo.nets.interface import Network
from genzoo.samplers.predictor import Prediction

OfTime = Callable[[Schedule, Times], Times]
"""(schedule, t) -> a number for each time, in the shape of t."""


def thousandths(schedule: Schedule, t: Times) -> Times:
    """1000 t: the time in the unit of DDPM steps."""
    del schedule
    return 1000 * t


def unaltered(conditions: Conditions, t: Times) -> Conditions:
    """The conditions themselves."""
    del t
    return conditions


def unscaled(schedule: Schedule, t: Times) -> Times:
    """1: the network's input is x_t itself."""
    del schedule
    return jnp.ones_like(t)


class Seen(NamedTuple):
    """Noisy data [B, ...], the data and noise that they are made of, and the prediction. features:
    the outputs of the inner modules that were asked for, by path."""

    x_0: Examples
    eps: Examples
    x_t: Examples
    t: PerExample
    predicted: Prediction
    features: Mapping[str, Floats] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """A network as a predictor of x_0 and eps.

    network: takes (x_t, noise level, conditions). prediction: what its output is. noise_level: the
    network's input for the time. input_scale: the factor of x_t in the network's input. told:
    (conditions, t) -> those that the network is given. learns_variance: whether the second half of
    the output is the `extra` of a prediction.
    """

    network: Network
    prediction: Kind
    noise_level: OfTime = thousandths
    input_scale: OfTime = unscaled
    told: Callable[[Conditions, Times], Conditions] = unaltered
    learns_variance: bool = False

    def init(self, key: Key, x: Examples, conditions: Conditions) -> Tree:
        """The network's initial params."""
        return self.network.init(key, x, jnp.zeros(x.shape[:1]), conditions)

    def __call__(
        self,
        params: Tree,
        schedule: Schedule,
        x: Examples,
        t: Times,
        conditions: Conditions,
        *,
        train: bool = False,
        key: Key | None = None,
    ) -> Prediction:
        """The prediction for x = x_t [B, ...] at t [] or [B]. key: for dropout, in training."""
        return self.with_features(
            params, schedule, x, t, conditions, (), train=train, key=key
        )[0]

    def with_features(
        self,
        params: Tree,
        schedule: Schedule,
        x: Examples,
        t: Times,
        conditions: Conditions,
        names: Collection[str],
        *,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Prediction, Mapping[str, Floats]]:
        """The prediction, as from a call, and the outputs of the inner modules with these paths in
        the same pass."""
        t = jnp.asarray(t)
        level = jnp.broadcast_to(self.noise_level(schedule, t), x.shape[:1])
        scaled = broadcast(self.input_scale(schedule, t), x) * x
        inputs, features = (params, scaled, level, self.told(conditions, t)), {}
        if names:
            output, features = self.network.features(*inputs, names=names, train=train, key=key)
        else:
            output = self.network.apply(*inputs, train=train, key=key)
        extra = None
        if self.learns_variance:
            output, extra = jnp.split(output, 2, axis=-1)
        return Prediction(*self.prediction.to_pair(output, x, schedule, t), extra), features

    def see(
        self,
        params: Tree,
        schedule: Schedule,
        x_0: Examples,
        eps: Examples,
        t: PerExample,
        conditions: Conditions,
        *,
        names: Collection[str] = (),
        train: bool = False,
        key: Key | None = None,
    ) -> Seen:
        """x_t made of x_0 and eps [B, ...] at t [B], and the prediction for it.

        names: paths of inner modules whose outputs are kept. key: of the training step; its stream
        "dropout" is used.
        """
        x_t = gaussian.q_sample(schedule, x_0, t, eps)
        drop = streams.named(key, "dropout") if train else None
        predicted, features = self.with_features(
            params, schedule, x_t, t, conditions, names, train=train, key=drop
        )
        return Seen(x_0, eps, x_t, t, predicted, features)


def weighted_error(
    weighting: Weighting, own: Kind, schedule: Schedule, seen: Seen
) -> PerExample:
    """weight(t) |target - prediction|^2, averaged over dimensions: [B].

    The error is that of the weighting's kind of prediction or, if it names none, of `own`, the
    network's.
    """
    kind = weighting.kind or own
    target = kind.from_pair(Pair(seen.x_0, seen.eps), schedule, seen.t)
    predicted = kind.from_pair(seen.predicted.pair, schedule, seen.t)
    error = mean_per_example(jnp.square(target - predicted))
    return weighting.weight(schedule, seen.t) * error


def by_quarter(
    name: str, values: PerExample, place: PerExample, weights: Factors = 1.0
) -> Mapping[str, Weighted]:
    """The metrics NAME_q0 .. NAME_q3: values [B] by the quarter of [0, 1] in which `place` [B] is.

    q0 is nearest the data. weights: [B] or a number, of the values.
    """
    quarter = jnp.clip(jnp.floor(4 * place), 0, 3)
    return {
        f"{name}_q{q}": Weighted(values=values, weights=weights * (quarter == q))
        for q in range(4)
    }
