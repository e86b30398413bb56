"""Variational diffusion models (Kingma et al. 2021): a continuous-time bound on the likelihood
whose noise schedule is learned.

    alpha^2 = sigmoid(-gamma(t)),   sigma^2 = sigmoid(gamma(t)),   gamma rising                 (1)
    -log p(x) <= KL(q(z_1 | x) || N(0, I)) + E_q(z_0 | x)[-log p(x | z_0)]
                 + 1/2 E_t E_eps [gamma'(t) |eps - eps_theta(z_t, t)|^2]                        (2)
    p(x | z_0): over the 256 levels, in proportion to N(z_0; alpha_0 x, sigma_0^2)              (3)

The diffusion loss depends on gamma through its two ends alone; what lies between sets the variance
of the estimate. Nothing is trained for that here: the paper's second objective is left out, so that
a monotone network keeps about the shape it starts with. For points (3) is a Gaussian about z_0 /
alpha_0. With T > 0 steps the last term is the sum over steps, T/2 E [expm1(gamma_t - gamma_s)
|..|^2] (eq. 14), which is larger.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Conditions, gather
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Array, Batch, Key, Keys, Tree, sum_per_example
from genzoo.families.denoising import Denoising, OfTime
from genzoo.math import gaussian, likelihood
from genzoo.math.continuous import OfLogsnr
from genzoo.math.schedules import Schedule
from genzoo.math.times import AntitheticTimes, UniformTimes


@dataclass(frozen=True, kw_only=True)
class LearnedGamma:
    """A learned schedule, equation (1). start: key -> params. gamma: (params, t) -> gamma(t)."""

    start: Callable[[Key], Tree]
    gamma: Callable[[Tree, Array], Array]

    def init(self, key: Key) -> Tree:
        """Its params at the start."""
        return self.start(key)

    def at(self, params: Tree) -> Schedule:
        """Equation (1) with these params."""
        return OfLogsnr(gamma=lambda t: self.gamma(params, jnp.asarray(t, jnp.float32)))


def rescaled_gamma(low: float, high: float) -> OfTime:
    """gamma from 0 to 1000 between low and high, its ends at the start: the network is told the
    noise level and not the time, so that the schedule may change."""
    return lambda schedule, t: 1000 * (-schedule.logsnr(t) - low) / (high - low)


@dataclass(frozen=True, kw_only=True, eq=False)
class VDM(Denoising):
    """The family; its schedule is a `LearnedGamma`, and one without params is fixed. Capabilities:
    Samples, Solves, Reconstructs, Likelihoods.

    steps: T of the discrete bound, 0 for continuous time. draws: how many times the likelihood of
    an example averages over, spread evenly.
    """

    steps: int
    draws: int

    # --- the contract -----------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network and of the schedule."""
        return Variables(params=self.initial_params(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[Array, Aux]:
        """The bound (2) per example, in bits per dimension of levels or in nats of points [B], with
        its three terms as metrics."""
        key, x = context.key, context.batch["x"]
        spread = AntitheticTimes(inner=UniformTimes(low=0.0))
        t = spread.draw(streams.named(key, "time"), len(x), self.schedule_of(params))
        eps = jax.random.normal(streams.named(key, "noise"), x.shape, x.dtype)
        first = jax.random.normal(streams.named(key, "first noise"), x.shape, x.dtype)
        conditions = self.gathered(context)
        terms = {
            **self.ends(params, x, first),
            "diffusion": self.diffusion(
                params, x, t, eps, conditions, train=context.train, key=key
            ),
        }
        if self.levels:
            dimensions = x[0].size
            terms = {k: likelihood.bits_per_dim(v, dimensions) for k, v in terms.items()}
        ends = {"gamma_0": self._gamma(params, 0.0), "gamma_1": self._gamma(params, 1.0)}
        metrics = terms | {k: jnp.broadcast_to(v, x.shape[:1]) for k, v in ends.items()}
        return sum(terms.values()), Aux(metrics=metrics)

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The bound (2) in nats per example, its last term averaged over `draws` times, one from
        each of so many equal parts of [0, 1]."""
        x, params = batch["x"], variables.params
        conditions = gather(self.conditions, batch, variables.frozen)

        def part(_, index):
            here = streams.fold(keys, index)
            t = (index + streams.uniform(streams.fold(here, 0))) / self.draws
            eps = streams.normal(streams.fold(here, 1), x.shape[1:], x.dtype)
            return None, self.diffusion(params, x, t.astype(x.dtype), eps, conditions)

        _, values = jax.lax.scan(part, None, jnp.arange(self.draws))
        first = streams.normal(streams.fold(keys, self.draws), x.shape[1:], x.dtype)
        terms = {**self.ends(params, x, first), "diffusion": values.mean(0)}
        centres = (jnp.arange(self.draws) + 0.5) / self.draws
        curve = (centres, values.T / self.draws)
        total = sum(terms.values())
        return Likelihood(total=total, terms=terms, curve=curve, density=not self.levels)

    # --- the terms of the bound, in nats per example [B] ------------------------------------------

    def diffusion(
        self,
        params: Tree,
        x: Array,
        t: Array,
        eps: Array,
        conditions: Conditions,
        *,
        train: bool = False,
        key: Key | None = None,
    ) -> Array:
        """The last term of (2) at times t [B]; for T steps, that of the step in which t lies."""
        if self.steps:
            t = jnp.ceil(jnp.maximum(t, 1e-6) * self.steps) / self.steps
        schedule = self.schedule_of(params)
        gamma, rate = jax.jvp(lambda t: self._gamma(params, t), (t,), (jnp.ones_like(t),))
        seen = self.denoiser.see(
            params["network"], schedule, x, eps, t, conditions, train=train, key=key
        )
        error = sum_per_example(jnp.square(eps - seen.predicted.eps))
        if self.steps:
            before = self._gamma(params, t - 1 / self.steps)
            rate = self.steps * jnp.expm1(gamma - before)
        return 0.5 * rate * error

    def ends(self, params: Tree, x: Array, eps: Array) -> Mapping[str, Array]:
        """The first two terms of (2); eps: the noise of z_0."""
        gamma_0, gamma_1 = self._gamma(params, 0.0), self._gamma(params, 1.0)
        mean, variance = jnp.sqrt(jax.nn.sigmoid(-gamma_1)) * x, jax.nn.sigmoid(gamma_1)
        zero = jnp.zeros((), x.dtype)
        prior = sum_per_example(gaussian.kl(mean, jnp.log(variance), zero, zero))
        # z_0 / alpha_0 = x + exp(gamma_0 / 2) eps, compared with every level, or with the point.
        deviation = jnp.exp(gamma_0 / 2)
        if self.levels:
            decoded = likelihood.log_level(x, x + deviation * eps, gamma_0)
        else:
            decoded = gaussian.log_density(x, x + deviation * eps, gamma_0)
        return {"prior": prior, "reconstruction": -sum_per_example(decoded)}

    # --- what the parts above share ---------------------------------------------------------------

    def _gamma(self, params: Tree, t: Array | float) -> Array:
        return self.schedule.gamma(params["gamma"], jnp.asarray(t, jnp.float32))
