"""Variational diffusion models (Kingma et al. 2021): a likelihood bound with a learned schedule.

The bound is in continuous time:

    alpha^2 = sigmoid(-gamma(t)),   sigma^2 = sigmoid(gamma(t)),   gamma increasing             (1)
    -log p(x) <= KL(q(z_1 | x) || N(0, I)) + E_q(z_0 | x)[-log p(x | z_0)]
                 + 1/2 E_t E_eps [gamma'(t) |eps - eps_theta(z_t, t)|^2]                        (2)
    p(x | z_0): over the 256 levels, proportional to N(z_0; alpha_0 x, sigma_0^2)               (3)

The diffusion loss depends on gamma only through its two ends; its shape between them determines the
variance of the estimate. The paper's second objective, which trains that shape, is not implemented,
so a monotone network roughly keeps its initial shape. For real-valued data, (3) is a Gaussian
centred at z_0 / alpha_0. With T > 0 steps the last term of (2) is the sum over steps,
T/2 E [expm1(gamma_t - gamma_s) |..|^2] (eq. 14), which is larger.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import Conditions, gather
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample, Times, Tree, sum_per_example
from genzoo.families.denoiser import OfTime, Seen
from genzoo.families.denoising import Denoising
from genzoo.math import gaussian, likelihood
from genzoo.math.continuous import OfLogsnr
from genzoo.math.schedules import Schedule
from genzoo.math.times import AntitheticTimes, UniformTimes, inside


@dataclass(frozen=True, kw_only=True)
class LearnedGamma:
    """A learned schedule, equation (1). start: key -> params. gamma: (params, t) -> gamma(t)."""

    start: Callable[[Key], Tree]
    gamma: Callable[[Tree, Times], Times]

    def init(self, key: Key) -> Tree:
        """Its initial params."""
        return self.start(key)

    def at(self, params: Tree) -> Schedule:
        """The schedule of equation (1) with these params."""
        return OfLogsnr(gamma=lambda t: self.gamma(params, jnp.asarray(t, jnp.float32)))


def rescaled_gamma(low: float, high: float) -> OfTime:
    """gamma scaled linearly from [low, high], its initial range, to [0, 1000].

    The network's input is thus the noise level and not the time, so that the schedule may change.
    """
    return lambda schedule, t: 1000 * (-schedule.logsnr(t) - low) / (high - low)


@dataclass(frozen=True, kw_only=True, eq=False)
class VDM(Denoising):
    """The VDM family, whose schedule is a `LearnedGamma`; without params the schedule is fixed.

    Capabilities: Samples, Solves, Reconstructs, Likelihoods.

    steps: T of the discrete bound, 0 for continuous time. draws: the number of times t, evenly
    spread, over which the likelihood of an example is averaged.
    """

    steps: int
    draws: int

    # --- the contract -----------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network and of the schedule."""
        return Variables(params=self.initial_params(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The bound (2) per example [B]; metrics: its three terms and the ends of gamma.

        Units: bits per dimension for data on levels, nats for real-valued data.
        """
        key, x = context.key, context.batch["x"]
        spread = AntitheticTimes(inner=UniformTimes(low=0.0))
        t = spread.draw(streams.named(key, "time"), len(x), self.schedule_of(params))
        eps = jax.random.normal(streams.named(key, "noise"), x.shape, x.dtype)
        first = jax.random.normal(streams.named(key, "first noise"), x.shape, x.dtype)
        conditions = self.gathered(context)
        seen = self.see(params, context, x, eps, self.rounded(t), conditions)
        terms = {
            **self.ends(params, x, first),
            "diffusion": self.weighted(params, seen),
        }
        if self.levels:
            dimensions = x[0].size
            terms = {k: likelihood.bits_per_dim(v, dimensions) for k, v in terms.items()}
        ends = {"gamma_0": self._gamma(params, 0.0), "gamma_1": self._gamma(params, 1.0)}
        metrics = terms | {k: jnp.broadcast_to(v, x.shape[:1]) for k, v in ends.items()}
        added, aligned = self.aligned(params, context, seen, conditions)
        return sum(terms.values()) + added, Aux(metrics={**metrics, **aligned})

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The bound (2) in nats per example.

        Its last term is averaged over `draws` times, one from each of as many equal parts of
        [0, 1].
        """
        x, params = batch["x"], variables.params
        conditions = gather(self.conditions, batch, variables.frozen)

        def part(_, index):
            own = streams.fold(keys, index)
            t = (index + inside(streams.uniform(streams.fold(own, 0)))) / self.draws
            eps = streams.normal(streams.fold(own, 1), x.shape[1:], x.dtype)
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
        self, params: Tree, x: Examples, t: PerExample, eps: Examples, conditions: Conditions
    ) -> PerExample:
        """The last term of (2) at times t [B]; with T steps, that of the step that contains t."""
        schedule, network = self.opened(params)
        seen = self.denoiser.see(network, schedule, x, eps, self.rounded(t), conditions)
        return self.weighted(params, seen)

    def rounded(self, t: PerExample) -> PerExample:
        """With T steps, the end of the step that contains t; otherwise t."""
        return jnp.ceil(jnp.maximum(t, 1e-6) * self.steps) / self.steps if self.steps else t

    def weighted(self, params: Tree, seen: Seen) -> PerExample:
        """The last term of (2), given the prediction at the rounded times."""
        t = seen.t
        gamma, rate = jax.jvp(lambda t: self._gamma(params, t), (t,), (jnp.ones_like(t),))
        error = sum_per_example(jnp.square(seen.eps - seen.predicted.eps))
        if self.steps:
            before = self._gamma(params, t - 1 / self.steps)
            rate = self.steps * jnp.expm1(gamma - before)
        return 0.5 * rate * error

    def ends(self, params: Tree, x: Examples, eps: Examples) -> Mapping[str, PerExample]:
        """The first two terms of (2); eps: the noise of z_0."""
        gamma_0, gamma_1 = self._gamma(params, 0.0), self._gamma(params, 1.0)
        mean, variance = jnp.sqrt(jax.nn.sigmoid(-gamma_1)) * x, jax.nn.sigmoid(gamma_1)
        zero = jnp.zeros((), x.dtype)
        prior = sum_per_example(gaussian.kl(mean, jnp.log(variance), zero, zero))
        # z_0 / alpha_0 = x + exp(gamma_0 / 2) eps, compared with every level or with x itself.
        deviation = jnp.exp(gamma_0 / 2)
        if self.levels:
            decoded = likelihood.log_level(x, x + deviation * eps, gamma_0)
        else:
            decoded = gaussian.log_density(x, x + deviation * eps, gamma_0)
        return {"prior": prior, "reconstruction": -sum_per_example(decoded)}

    # --- shared by the methods above --------------------------------------------------------------

    def _gamma(self, params: Tree, t: Times) -> Times:
        return self.schedule.gamma(params["gamma"], jnp.asarray(t, jnp.float32))
