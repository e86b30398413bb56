"""SDE-DPM-Solver++ (Lu et al. 2022b, section 5, and the samplers of k-diffusion): the reverse SDE.

Equation (3) of genzoo.math.exponential. In terms of the pair (x_0, eps) that makes up x_t,

    x_s = alpha_s x_0 + sigma_s (c(h) eps + d(h) z) + reach bend,
    c(h) = exp(-eta h),   d(h) = sqrt(1 - exp(-2 eta h))                                        (1)

where `bend` combines differences of predicted x_0 with phi functions of z = -(1 + eta) h; 2M and 3M
use their own bend at this z. eta = 0 is the ODE. With eta = 1 and no bend it is ancestral sampling:
sigma_s^2 d(h)^2 is the posterior variance. eta means the same for all methods here: the SDE's noise
is sqrt(eta) g dw. k-diffusion uses this meaning for 2M and 3M; the eta of its dpmpp_sde is that of
DDIM, which agrees at 0 and 1 only.

The single-step method evaluates at the midpoint of the move, h / 2, with the SDE's noise at that
point, which is part of the noise at the end:

    d(h) z = c(h/2) d(h/2) z_1 + d(h/2) z_2,   z_1 the noise at the midpoint                    (2)

Weak orders observed on Gaussian data. Variance: 1 for order 1, otherwise 2, even for 3M unless
eta = 0; the prediction at the start of a move knows nothing of the noise drawn in that move, and
the differences make up for it by the noise of the previous move. Slope of the mean: 2 for the
single-step method and 2M, 3 for 3M; exact for eta = 1, where the predicted x_0 is a martingale.

3M deliberately differs from other implementations: that of k-diffusion takes half the second
difference (see dpm_multistep), and that of diffusers 0.42 has a wrong sign in its factor
(-phi_2(z) - 1/2, which does not vanish with h, instead of -phi_2(z) + 1/2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Count, Examples, Keys, Scalar
from genzoo.math import exponential
from genzoo.math.exponential import phi
from genzoo.math.schedules import Schedule
from genzoo.samplers.dpm_multistep import History, Multistep
from genzoo.samplers.dpm_single import time_inside
from genzoo.samplers.loop import EndsInData, Memoryless
from genzoo.samplers.predictor import Predict, Prediction


def _kept_and_fresh(eta: float, h: Scalar) -> tuple[Scalar, Scalar]:
    # c(h) and d(h) of equation (1); from pure noise (h = inf) no noise is kept.
    return jnp.exp(-eta * h), jnp.sqrt(-jnp.expm1(-2 * eta * h))


def _noised_line(
    schedule: Schedule, seen: Prediction, s: Scalar, noise: Examples
) -> Examples:
    return schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * noise


@dataclass(frozen=True, kw_only=True)
class MultistepSDE(EndsInData):
    """SDE-DPM-Solver++ 2M and 3M: equation (1) with the bend of `Multistep`.

    The fields mean the same as there. From pure noise, and for eta > 0, the move gives alpha_s x_0
    plus fresh noise.
    """

    schedule: Schedule
    order: int = 2
    eta: float = 1.0
    midpoint: bool = True
    lower_order_final: bool | None = None

    evaluations = 1

    @property
    def form(self) -> exponential.Form:
        """The function that is expanded, with its kernel."""
        return exponential.reverse_sde(self.eta)

    def shares(self, h: Scalar) -> tuple[Scalar, Scalar]:
        """The factors of eps and of the fresh noise in a move of length h."""
        return _kept_and_fresh(self.eta, h)

    @property
    def drift(self) -> Multistep:
        """The method for the deterministic part."""
        return Multistep(
            schedule=self.schedule,
            form=self.form,
            order=self.order,
            midpoint=self.midpoint,
            lower_order_final=self.lower_order_final,
        )

    def init(self, x: Examples, steps: Count) -> History:
        """An empty history."""
        return self.drift.init(x, steps)

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: History,
    ) -> tuple[Examples, History]:
        """One move; deterministic for eta = 0."""
        del predict
        bend, memory = self.drift.bend(seen, t, s, memory)
        noise = seen.eps
        if self.eta > 0:
            kept, fresh = self.shares(exponential.gap(self.schedule, t, s))
            noise = kept * noise + fresh * streams.normal(keys, x.shape[1:], x.dtype)
        return _noised_line(self.schedule, seen, s, noise) + bend, memory


@dataclass(frozen=True, kw_only=True)
class NoiseMultistepSDE(MultistepSDE):
    """SDE-DPM-Solver 2M, and by the same rule 3M, which expands eps instead of x_0.

    Equation (5) of genzoo.math.exponential, "sde-dpmsolver" in diffusers. As the line of DDIM it is

        x_s = alpha_s x_0 + sigma_s ([1 - eta (exp(h) - 1)] eps + sqrt(eta (exp(2 h) - 1)) z)
              + reach bend                                                                      (3)

    For long moves it is inaccurate, unstable and noisier than necessary: prefer `MultistepSDE`
    unless results are to be compared. From pure noise, where (3) is infinite, the move is that of
    `MultistepSDE`.
    """

    @property
    def form(self) -> exponential.Form:
        """Equation (5) of genzoo.math.exponential."""
        return exponential.reverse_sde_in_noise(self.eta)

    def shares(self, h: Scalar) -> tuple[Scalar, Scalar]:
        """The factors of eps and z in (3)."""
        finite = jnp.isfinite(h)
        h = jnp.where(finite, h, 0)
        kept = 1 - self.eta * jnp.expm1(h)
        fresh = jnp.sqrt(self.eta * jnp.expm1(2 * h))
        return jnp.where(finite, kept, 0), jnp.where(finite, fresh, 1)


@dataclass(frozen=True, kw_only=True)
class SingleStepSDE(Memoryless):
    """The stochastic form of DPM-Solver++ 2S, "dpmpp_sde" in k-diffusion.

    The noise follows equation (2); k-diffusion takes it from a Brownian path in sigma, whose two
    draws are correlated slightly differently.
    """

    schedule: Schedule
    eta: float = 1.0

    evaluations = 2

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The midpoint of the move in lambda."""
        move = exponential.reverse_sde(self.eta).move(self.schedule, t, s)
        return (time_inside(self.schedule, s, move, 1 / 2),)

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Any,
    ) -> tuple[Examples, Any]:
        """One move; deterministic for eta = 0."""
        move = exponential.reverse_sde(self.eta).move(self.schedule, t, s)
        (middle,) = self.inner(t, s)
        middle_noise = noise = seen.eps
        if self.eta > 0:
            first, second = (
                streams.normal(streams.fold(keys, part), x.shape[1:], x.dtype) for part in (0, 1)
            )
            # From pure noise the first half is infinitely long, and none of eps is left after it.
            whole = exponential.gap(self.schedule, t, s)
            kept, fresh = _kept_and_fresh(self.eta, whole - move.h / 2)
            middle_noise = kept * noise + fresh * first
            kept, fresh = _kept_and_fresh(self.eta, move.h / 2)
            noise = kept * middle_noise + fresh * second
        inside = predict(_noised_line(self.schedule, seen, middle, middle_noise), middle)
        bend = phi(1, move.z) * (inside.x_0 - seen.x_0)
        return _noised_line(self.schedule, seen, s, noise) + move.reach * bend, memory
