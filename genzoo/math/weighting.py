"""Weightings of a denoising loss over time, and distributions of the steps of a table.

A weighting says in which kind of prediction the error is measured (None: the network's own) and
gives its factor at each time of a schedule. Steps are drawn uniformly from a table or in proportion
to their past losses (Nichol & Dhariwal 2021, section 3.3), with weights 1 / (T p_n) that preserve
the expectation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genzoo.core.types import Array, ArrayLike, Key, PerExample, Times, Tree
from genzoo.math import gaussian, likelihood, prediction
from genzoo.math.schedules import Schedule, TableSchedule

Drawn = tuple[Int[Array, " {count}"], Float[Array, " {count}"]]


@dataclass(frozen=True)
class Weighting:
    """weight: (schedule, t [B]) -> [B], the factor of the mean squared error of `kind`."""

    weight: Callable[[Schedule, Times], Times]
    kind: prediction.Kind | None


def _one(schedule: Schedule, t: Times) -> Times:
    del schedule
    return jnp.ones_like(t)


def _snr(schedule: Schedule, t: Times) -> Times:
    return jnp.exp(schedule.logsnr(t))


UNIFORM = Weighting(_one, kind=None)
"""L_simple (Ho et al. 2020, eq. 14), on whatever the network predicts."""


def min_snr(gamma: float) -> Weighting:
    """min(SNR, gamma) on the x_0 error (Hang et al. 2023): min(1, gamma / SNR) on the eps error."""
    return Weighting(lambda schedule, t: jnp.minimum(1, gamma / _snr(schedule, t)), prediction.EPS)


def p2(gamma: float, k: float) -> Weighting:
    """1 / (k + SNR)^gamma on the eps error (Choi et al. 2022, eq. 8)."""
    return Weighting(lambda schedule, t: (k + _snr(schedule, t)) ** -gamma, prediction.EPS)


def vlb(variance: gaussian.ReverseVariance) -> Weighting:
    """L_{n-1} of Ho et al. 2020, eq. 12, in nats per dimension up to a constant; for tables only.

    The reverse variance must be fixed. It weights the x_0 error, because lambda_t on eps would be
    infinite at alpha = 0. At n = 1 it gives the error of the mean, where the bound has the decoder.
    """

    def weight(schedule: TableSchedule, t: Times) -> Times:
        s = schedule.step_before(t)
        log_variance = variance.log_variance(schedule, t, s, None)
        return likelihood.bound_weight(schedule, t, s, jnp.exp(log_variance))

    return Weighting(weight, prediction.X_0)


SCORE_MATCHING = Weighting(_one, kind=prediction.EPS)
"""sigma^2 |score error|^2, "simple" in Song et al. 2021: all noise levels count equally."""


def _logsnr_rate(schedule: Schedule, t: Times) -> Times:
    return schedule.diffusion_square(t) / jnp.square(schedule.sigma(t))


LIKELIHOOD = Weighting(_logsnr_rate, kind=prediction.EPS)
"""g^2 |score error|^2 = -dlogsnr/dt |eps error|^2: half its mean over t, summed over dimensions,
bounds the negative log-likelihood up to a constant (Song et al. 2021b, theorem 1; Kingma et al.
2021, eq. 17)."""

VELOCITY = Weighting(_one, kind=prediction.VELOCITY)
"""|velocity error|^2 (Lipman et al. 2023), whatever the network predicts."""


def bounded_velocity(least: float) -> Weighting:
    """|velocity error|^2 of a predicted x_0, with t kept above `least` in its weight.

    At a given x_t, an error in x_0 is -alpha / sigma times as large in eps, so that

        |velocity error|^2 = (alpha' - sigma' alpha / sigma)^2 |x_0 error|^2,

    which is |x_0 error|^2 / t^2 on the straight path (Li & He 2025, "Back to basics", where 1 - t
    is our t and `least` is 0.05).
    """

    def weight(schedule: Schedule, t: Times) -> Times:
        t = jnp.maximum(t, least)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        alpha_rate, sigma_rate = schedule.rates(t)
        return jnp.square((alpha_rate * sigma - sigma_rate * alpha) / sigma)

    return Weighting(weight, prediction.X_0)


class StepDistribution(Protocol):
    """The distribution of the steps n of a batch. `stats` is its history, a nested dict."""

    def init(self) -> Tree:
        """The initial history."""

    def draw(self, key: Key, stats: Tree, count: int) -> Drawn:
        """(n int32 [count] in 1..T, weights [count] with mean 1 under uniform losses)."""

    def update(self, stats: Tree, n: Int[ArrayLike, " B"], losses: PerExample) -> Tree:
        """The history with the unweighted losses [B] at the steps n [B] added."""


@dataclass(frozen=True, kw_only=True)
class UniformSteps:
    """All steps 1..T equally likely; no history."""

    steps: int

    def init(self) -> Tree:
        """No history."""
        return {}

    def draw(self, key: Key, stats: Tree, count: int) -> Drawn:
        """Independent uniform steps, weights 1."""
        del stats
        return jax.random.randint(key, (count,), 1, self.steps + 1), jnp.ones((count,))

    def update(self, stats: Tree, n: Int[ArrayLike, " B"], losses: PerExample) -> Tree:
        """The history, unchanged."""
        del n, losses
        return stats


@dataclass(frozen=True, kw_only=True)
class LossAwareSteps:
    """p_n proportional to sqrt(E[L_n^2]) over the last `history` losses at n.

    The share `uniform` of the probability is uniform, and all of it until every step has a full
    history (Nichol & Dhariwal 2021, eq. 18).
    """

    steps: int
    history: int = 10
    uniform: float = 0.001

    def init(self) -> Tree:
        """losses [T, history], a ring buffer for each step, and the counts seen [T]."""
        return {
            "losses": jnp.zeros((self.steps, self.history)),
            "seen": jnp.zeros((self.steps,), jnp.int32),
        }

    def probabilities(self, stats: Tree) -> Float[Array, " T"]:
        """p_n for n = 1..T: [T], sums to one."""
        root = jnp.sqrt(jnp.mean(jnp.square(stats["losses"]), axis=-1))
        shaped = root / jnp.maximum(root.sum(), jnp.finfo(root.dtype).tiny)
        warm = jnp.all(stats["seen"] >= self.history) & (root.sum() > 0)
        flat = jnp.full_like(root, 1 / self.steps)
        return jnp.where(warm, (1 - self.uniform) * shaped + self.uniform * flat, flat)

    def draw(self, key: Key, stats: Tree, count: int) -> Drawn:
        """Independent steps from p_n, weights 1 / (T p_n)."""
        p = self.probabilities(stats)
        index = jax.random.categorical(key, jnp.log(p), shape=(count,))
        return index.astype(jnp.int32) + 1, 1 / (self.steps * p[index])

    def update(self, stats: Tree, n: Int[ArrayLike, " B"], losses: PerExample) -> Tree:
        """Writes each loss to the next place of its step's ring buffer, as if one by one."""
        index = n - 1
        same = index[:, None] == index[None, :]
        order = jnp.arange(len(index))
        before = jnp.sum(same & (order[None, :] < order[:, None]), axis=1)
        after = jnp.sum(same & (order[None, :] > order[:, None]), axis=1)
        place = (stats["seen"][index] + before) % self.history
        # Entries that later ones of the same batch would overwrite are sent out of range and
        # dropped: no place is written twice, and the order of the scatter does not matter.
        target = jnp.where(after < self.history, index, self.steps)
        return {
            "losses": stats["losses"].at[target, place].set(losses, mode="drop"),
            "seen": stats["seen"].at[index].add(1),
        }
