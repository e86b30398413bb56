"""Generative adversarial networks: a generator and a critic that are trained against each other.

Goodfellow et al. 2014 with the penalty R1 (Mescheder et al. 2018), and R3GAN (Huang et al. 2024),
which pairs each example with a generated one and penalises the critic at both. The losses are those
of math/adversarial.py, with x from the data, z ~ N(0, I), y = G(z, c) and the conditions c of x:

    critic     L_D(D(x, c), D(y, c)) + gamma/2 |grad_x D(x, c)|^2 + gamma/2 |grad_y D(y, c)|^2   (1)
    generator  L_G(D(x, c), D(y, c))                                                             (2)

The players move in turn: the generator meets the critic that has just moved, with new noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Condition, Conditions, gather
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import (
    Batch,
    Count,
    Examples,
    Key,
    Keys,
    PerExample,
    Scalar,
    Tree,
    Vectors,
)
from genzoo.math import adversarial
from genzoo.nets.gan.networks import BASIS
from genzoo.nets.gan.settings import Adversaries

Loss = Callable[[PerExample, PerExample], PerExample]
"""(scores of the data, scores of what was generated) -> losses [B]."""


@dataclass(frozen=True)
class Objective:
    """The losses of both players."""

    critic: Loss
    generator: Loss


NON_SATURATING = Objective(
    adversarial.non_saturating_critic, adversarial.non_saturating_generator
)
RELATIVISTIC = Objective(adversarial.relativistic_critic, adversarial.relativistic_generator)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """The factor gamma of (1): from `first` to `last` along half a cosine over `steps` steps, then
    constant; always `first` if `steps` is 0. generated: whether the critic is penalised at
    generated examples too."""

    first: float
    last: float
    steps: int
    generated: bool

    def at(self, step: Count) -> Scalar:
        """gamma at a step, counted from 0."""
        done = jnp.minimum(step / self.steps, 1.0) if self.steps else 0.0
        return self.last + (self.first - self.last) * (1 + jnp.cos(jnp.pi * done)) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class GAN:
    """The GAN family. Capabilities: Samples, Encodes (the critic's features).

    latent: the width of z. conditions: the model's conditions, by name; both players are given
    them.
    """

    networks: Adversaries
    latent: int
    objective: Objective
    penalty: Penalty
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of both networks."""
        x, conditions = example["x"], gather(self.conditions, example)
        z = jnp.zeros((len(x), self.latent))
        generator, critic = self.networks.generator, self.networks.critic
        return Variables(
            params={
                "critic": critic.init(streams.named(key, "critic"), x, conditions),
                "generator": generator.init(streams.named(key, "generator"), z, conditions),
            }
        )

    @property
    def losses(self) -> Mapping[str, Player]:
        """The critic, then the generator."""
        return {
            "critic": Player(loss=self.critic_loss, trains=("critic/",)),
            "generator": Player(loss=self.generator_loss, trains=("generator/",)),
        }

    def critic_loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) for each example [B]; metrics: the adversarial part, the squared gradients,
        both scores, and the share of pairs that are ranked correctly."""
        x, conditions = context.batch["x"], self._conditions(context)
        made = self._made(params, context.key, len(x), conditions)

        def scores(x: Examples) -> PerExample:
            return self.networks.critic.apply(params["critic"], x, conditions)

        real_score, real_gradient = adversarial.squared_gradient(scores, x)
        metrics = {"gradient_real": real_gradient}
        penalised = real_gradient
        if self.penalty.generated:
            made_score, made_gradient = adversarial.squared_gradient(scores, made)
            metrics["gradient_made"] = made_gradient
            penalised = penalised + made_gradient
        else:
            made_score = scores(made)
        told_apart = self.objective.critic(real_score, made_score)
        losses = told_apart + self.penalty.at(context.step) / 2 * penalised
        metrics |= {
            "adversarial": told_apart,
            "score_real": real_score,
            "score_made": made_score,
            "ranked": jnp.asarray(real_score > made_score, losses.dtype),
        }
        return losses, Aux(metrics=metrics, stats=context.stats)

    def generator_loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (2) for each example [B]."""
        x, conditions = context.batch["x"], self._conditions(context)
        made = self._made(params, context.key, len(x), conditions)
        critic = self.networks.critic
        real_score = critic.apply(params["critic"], x, conditions)
        made_score = critic.apply(params["critic"], made, conditions)
        return self.objective.generator(real_score, made_score), Aux(stats=context.stats)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Samples [B, ...], one per key, by one pass of the generator."""
        z = streams.normal(keys, (self.latent,))
        return self.networks.generator.apply(variables.params["generator"], z, conditions)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The features of the critic [B, D]."""
        del keys
        conditions = gather(self.conditions, batch, variables.frozen)
        params, critic = variables.params["critic"], self.networks.critic
        return critic.features(params, batch["x"], conditions, names=(BASIS,))[1][BASIS]

    # --- shared by the methods above -----------------------------------------------------------

    def _conditions(self, context: Context) -> Conditions:
        """The conditions for a loss; in training some are dropped at random."""
        key = context.key if context.train else None
        return gather(self.conditions, context.batch, context.frozen, key)

    def _made(self, params: Tree, key: Key, count: int, conditions: Conditions) -> Examples:
        """Generated examples [count, ...] for a loss."""
        z = jax.random.normal(streams.named(key, "latent"), (count, self.latent))
        return self.networks.generator.apply(params["generator"], z, conditions)
