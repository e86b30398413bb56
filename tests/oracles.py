"""Cases with exact answers, shared by the tests: schedules, data distributions, tiny networks.

The two fixtures at the top run a mathematical test with and without jit, and in float64; each
folder whose tests use them imports them in its conftest.py.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from genzoo.core.conditions import Entry, Given
from genzoo.math import continuous, schedules
from genzoo.samplers.predictor import Prediction


@pytest.fixture(params=["plain", "jit"])
def compiled(request):
    """Wraps a function of arrays: unchanged, or jitted."""
    return jax.jit if request.param == "jit" else lambda function: function


@pytest.fixture
def float64():
    """Enables float64 for one test."""
    with jax.enable_x64(True):
        yield


def few(cases, kept=1):
    """Values for `parametrize`, of which most are marked slow. kept: how many of the first are not,
    or the places of those that are not, which then come first."""
    cases, places = list(cases), range(kept) if isinstance(kept, int) else kept
    slow = [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for place, case in enumerate(cases)
        if place not in places
    ]
    return [*(cases[place] for place in places), *slow]


class StraightLine(schedules.Schedule):
    """alpha = 1 - t, sigma = t: not variance preserving, alpha = 0 at the end."""

    farthest = 1 - 1e-3

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t


class Exploding(schedules.Schedule):
    """alpha = 1, sigma = 3 t: variance exploding."""

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return 3.0 * t


def name_of(value):
    """Test ids: the names of makers and grids, and pytest's own ids for anything else."""
    return getattr(value, "__name__", None)


def every_schedule(steps: int = 100) -> list[schedules.Schedule]:
    """One schedule of each table, and two that are not variance preserving."""
    return [*(make(steps) for make in schedules.TABLES), StraightLine(), Exploding()]


def continuous_schedules() -> list[schedules.Schedule]:
    """One schedule of each process in continuous time."""
    return list(continuous.ALL)


def naive_table(betas):
    """(alpha_bar, posterior variance with nan first), from the formulas printed in Ho et al."""
    alpha_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    variance = (1 - before) / (1 - alpha_bar) * betas
    variance[0] = np.nan
    return alpha_bar, variance


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture in one dimension, every pixel independent; its denoiser is exact."""

    weights: tuple = (0.3, 0.7)
    means: tuple = (-1.0, 0.5)
    stds: tuple = (0.3, 0.2)

    def denoise(self, x, alpha, sigma):
        """E[x_0 | x_t = x]: the components' regressions, weighted by their responsibilities."""
        weights, means, stds = (np.array(v) for v in (self.weights, self.means, self.stds))
        variance = alpha**2 * stds**2 + sigma**2
        offset = x[..., None] - alpha * means
        log_joint = np.log(weights) - 0.5 * jnp.log(variance) - 0.5 * offset**2 / variance
        regression = means + alpha * stds**2 / variance * offset
        return (jax.nn.softmax(log_joint, axis=-1) * regression).sum(-1)

    def predictor(self, schedule):
        """The exact predictor at every t > 0."""

        def predict(x, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            x_0 = self.denoise(x, alpha, sigma)
            return Prediction(x_0, (x - alpha * x_0) / sigma)

        return predict

    def cdf(self, x, alpha=1.0, sigma=0.0):
        """P(x_t <= x), in NumPy: a deterministic flow in one dimension leaves it unchanged."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(w * norm.cdf(x, alpha * m, np.hypot(alpha * s, sigma)) for w, m, s in parts)


STANDARD_NORMAL = Mixture((1.0,), (0.0,), (1.0,))


def perfect(schedule, x_0):
    """The predictor that knows the data: it returns x_0 and the noise that gives x_t."""

    def predict(x, t):
        return Prediction(x_0, (x - schedule.alpha(t) * x_0) / schedule.sigma(t))

    return predict


@dataclass(frozen=True)
class Network:
    """(init, apply) around a function (params, x, n, conditions) -> output. told: the conditions of
    all calls."""

    function: object
    told: list = field(default_factory=list)

    def init(self, key, x, n, conditions):
        del key, x, n, conditions
        return {}

    def apply(self, params, x, n, conditions, *, train=False, key=None):
        del train, key
        self.told.append(conditions)
        return self.function(params, x, n.reshape(-1, *(1,) * (x.ndim - 1)), conditions)


def entry_of(classes: int, null: bool = True) -> dict[str, Entry]:
    """The entry of a label; empty without classes."""
    return {"label": Entry(kind="class", size=classes, null=null)} if classes else {}


def label_of(labels, absent: int | None = None) -> dict[str, Given]:
    """Labels [B] as conditions; those equal to `absent` are absent."""
    labels = jnp.asarray(labels, jnp.int32)
    return {"label": Given(labels, labels != (-1 if absent is None else absent))}
