"""Cascades: a model of small images, and models that enlarge them, one after another.

Ho et al. 2022 (Cascaded diffusion models for high fidelity image generation). Each of the K models
is a run of its own. The first draws x_1; the k-th draws an image given a noisy x_{k-1}, whose level
s_k it is told (conditioning augmentation, section 4.2, "non-truncated"):

    x_k ~ p_k(x | sqrt(1 - s_k^2) x_{k-1} + s_k eps_k, s_k, c)                                  (1)

c are the conditions of the cascade, of which every model is told those that it has. Noise hides the
errors of x_{k-1}, at the price of its details, so that s_k is searched for after training.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Condition, Conditions, Given, level_of, noised
from genzoo.core.contract import Aux, Context, Player, Samples, Variables
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample, Tree

NAMES = ("base", "second", "third", "fourth")
"""The names of the models in `Variables.frozen` and in a config, from small to large."""


@dataclass(frozen=True, kw_only=True)
class Enlarger:
    """A model k > 1. low: its condition that is x_{k-1}. level: s_k; 0 if it was trained without
    noise in that condition."""

    family: Samples
    low: str
    level: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Cascade:
    """A cascade. Capabilities: Samples, Fits (there is nothing to train).

    base: the first model. enlargers: the others, in order. conditions: those of the cascade.
    """

    base: Samples
    enlargers: tuple[Enlarger, ...]
    conditions: Mapping[str, Condition]

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """No params: those of the models are in `frozen`."""
        del key, example
        return Variables(params={})

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """Nothing; no batch is read."""
        del batches, key
        return Variables(params={})

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model", whose loss is zero."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Zeros [B], since nothing is trained."""
        del params
        return jnp.zeros(len(context.batch["x"])), Aux(stats=context.stats)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Samples [B, ...] of the last model, one per key."""
        own, base = _keys_of(keys, NAMES[0]), Variables(**variables.frozen[NAMES[0]])
        x = self.base.sample(base, own, _known(self.base, conditions))
        for name, step in zip(NAMES[1:], self.enlargers, strict=False):
            own, model = _keys_of(keys, name), Variables(**variables.frozen[name])
            low = self._low(step, x, _keys_of(own, "low"))
            x = step.family.sample(model, own, {**_known(step.family, conditions), **low})
        return x

    def _low(self, step: Enlarger, x: Examples, keys: Keys) -> Conditions:
        """The conditions that tell a model the image before. Samples may lie outside [-1, 1], data
        do not."""
        present, level = jnp.ones(len(x), bool), jnp.full(len(x), step.level)
        low = noised(jnp.clip(x, -1, 1), level, streams.normal(keys, x.shape[1:]))
        given = {step.low: Given(low, present)}
        if step.family.conditions[step.low].noise:
            given[level_of(step.low)] = Given(level, present)
        return given


def _keys_of(keys: Keys, name: str) -> Keys:
    return jax.vmap(partial(streams.named, name=name))(keys)


def _known(model: Samples, conditions: Conditions) -> Conditions:
    """Those that the model has."""
    return {name: conditions[name] for name in model.conditions if name in conditions}
