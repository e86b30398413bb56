"""How a denoising loss is weighted over time, and how times are drawn.

A weighting says in which kind of prediction the error is measured (None: the network's own) and
what it is multiplied by at each time of a schedule. Times are drawn uniformly over the steps of a
table or in proportion to the loss seen there (Nichol & Dhariwal 2021, section 3.3), with weights
1 / (T p_n) that keep the expectation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, Key, Tree
from genzoo.math import gaussian, likelihood, prediction
from genzoo.math.schedules import Schedule, TableSchedule


@dataclass(frozen=True)
class Weighting:
    """weight: (schedule, t [B]) -> [B], multiplies the mean squared error of `kind`."""

    weight: Callable[[Schedule, Array], Array]
    kind: prediction.Kind | None


def _one(schedule: Schedule, t: Array) -> Array:
    del schedule
    return jnp.ones_like(t)


def _snr(schedule: Schedule, t: Array) -> Array:
    return jnp.exp(schedule.logsnr(t))


UNIFORM = Weighting(_one, kind=None)
"""L_simple (Ho et al. 2020, eq. 14), on whatever the network predicts."""


def min_snr(gamma: float) -> Weighting:
    """min(SNR, gamma) on the x_0 error (Hang et al. 2023), written on eps: min(1, gamma / SNR)."""
    return Weighting(lambda schedule, t: jnp.minimum(1, gamma / _snr(schedule, t)), prediction.EPS)


def p2(gamma: float, k: float) -> Weighting:
    """1 / (k + SNR)^gamma on the eps error (Choi et al. 2022, eq. 8)."""
    return Weighting(lambda schedule, t: (k + _snr(schedule, t)) ** -gamma, prediction.EPS)


def vlb(variance: gaussian.ReverseVariance) -> Weighting:
    """L_{n-1} of Ho et al. 2020, eq. 12, in nats per dimension but for a constant, for a reverse
    variance that is fixed; on the x_0 error, where lambda_t on eps would be infinite at alpha = 0.
    Tables alone. At n = 1 it is the error of the mean, where the bound has the decoder."""

    def weight(schedule: TableSchedule, t: Array) -> Array:
        s = schedule.step_before(t)
        log_variance = variance.log_variance(schedule, t, s, None)
        return likelihood.bound_weight(schedule, t, s, jnp.exp(log_variance))

    return Weighting(weight, prediction.X_0)


SCORE_MATCHING = Weighting(_one, kind=prediction.EPS)
"""sigma^2 |score error|^2, "simple" in Song et al. 2021: each noise level counts alike."""


def _logsnr_rate(schedule: Schedule, t: Array) -> Array:
    return schedule.diffusion_square(t) / jnp.square(schedule.sigma(t))


LIKELIHOOD = Weighting(_logsnr_rate, kind=prediction.EPS)
"""g^2 |score error|^2 = -dlogsnr/dt |eps error|^2: half its mean over t, summed over dimensions,
bounds the negative log-likelihood but for a constant (Song et al. 2021b, theorem 1; Kingma et al.
2021, eq. 17)."""

VELOCITY = Weighting(_one, kind=prediction.VELOCITY)
"""|velocity error|^2 (Lipman et al. 2023), whatever the network predicts."""


def bounded_velocity(least: float) -> Weighting:
    """|velocity error|^2 on the straight path of a predicted x_0: |x_0 error|^2 / t^2, where t is
    held above `least` (Li & He 2025, "Back to basics", where 1 - t stands for our t and `least` is
    0.05)."""

    def weight(schedule: Schedule, t: Array) -> Array:
        return 1 / jnp.square(jnp.maximum(schedule.sigma(t), least))

    return Weighting(weight, prediction.X_0)


class StepDistribution(Protocol):
    """How the steps n of a batch are drawn. `stats` is the history it needs, a nested dict."""

    def init(self) -> Tree:
        """The history at the start."""

    def draw(self, key: Key, stats: Tree, count: int) -> tuple[Array, Array]:
        """(n int32 [count] in 1..T, weights [count] with mean 1 under uniform losses)."""

    def update(self, stats: Tree, n: Array, losses: Array) -> Tree:
        """The history with the unweighted losses [B] at steps n [B] taken in."""


@dataclass(frozen=True, kw_only=True)
class UniformSteps:
    """Every step of 1..T alike; no history."""

    steps: int

    def init(self) -> Tree:
        """No history."""
        return {}

    def draw(self, key: Key, stats: Tree, count: int) -> tuple[Array, Array]:
        """Independent uniform steps, weights 1."""
        del stats
        return jax.random.randint(key, (count,), 1, self.steps + 1), jnp.ones((count,))

    def update(self, stats: Tree, n: Array, losses: Array) -> Tree:
        """Nothing to learn."""
        del n, losses
        return stats


@dataclass(frozen=True, kw_only=True)
class LossAwareSteps:
    """p_n in proportion to sqrt(E[L_n^2]) over the last `history` losses at n, mixed with a little
    uniform; uniform until every step has a full history (Nichol & Dhariwal 2021, eq. 18)."""

    steps: int
    history: int = 10
    uniform: float = 0.001

    def init(self) -> Tree:
        """losses [T, history] as a ring, seen [T]."""
        return {
            "losses": jnp.zeros((self.steps, self.history)),
            "seen": jnp.zeros((self.steps,), jnp.int32),
        }

    def probabilities(self, stats: Tree) -> Array:
        """p_n for n = 1..T: [T], sums to one."""
        root = jnp.sqrt(jnp.mean(jnp.square(stats["losses"]), axis=-1))
        shaped = root / jnp.maximum(root.sum(), jnp.finfo(root.dtype).tiny)
        warm = jnp.all(stats["seen"] >= self.history) & (root.sum() > 0)
        flat = jnp.full_like(root, 1 / self.steps)
        return jnp.where(warm, (1 - self.uniform) * shaped + self.uniform * flat, flat)

    def draw(self, key: Key, stats: Tree, count: int) -> tuple[Array, Array]:
        """Independent steps from p_n, weights 1 / (T p_n)."""
        p = self.probabilities(stats)
        index = jax.random.categorical(key, jnp.log(p), shape=(count,))
        return index.astype(jnp.int32) + 1, 1 / (self.steps * p[index])

    def update(self, stats: Tree, n: Array, losses: Array) -> Tree:
        """Each loss goes to the next place of its step's ring, as if one after the other."""
        index = n - 1
        same = index[:, None] == index[None, :]
        order = jnp.arange(len(index))
        before = jnp.sum(same & (order[None, :] < order[:, None]), axis=1)
        after = jnp.sum(same & (order[None, :] > order[:, None]), axis=1)
        place = (stats["seen"][index] + before) % self.history
        # What later entries of the same batch would overwrite is sent out of range and dropped,
        # so that no place is written twice and the result does not depend on the scatter's order.
        target = jnp.where(after < self.history, index, self.steps)
        return {
            "losses": stats["losses"].at[target, place].set(losses, mode="drop"),
            "seen": stats["seen"].at[index].add(1),
        }
