"""ControlNet: a trained denoiser that follows hints, such as edges, by a branch for each of them.

Zhang et al. 2023 (Adding conditional control to text-to-image diffusion models). The base is any
family that is trained to denoise, with a U-Net:

    prediction(x_t, t, c, hints) = base(x_t, t, c; sum_k present_k r_k(x_t, t, c, hint_k))      (1)

The residuals r_k of branch k (`nets/unet/control.py`) are added inside the U-Net. The branches, and
on demand a copy of the base's decoder, are trained by the loss of the base, which stays frozen and
without dropout. Training starts from (1) = base: an absent hint, and a fresh branch, leave the base
as it is. In sampling, the n arrays i = 0 .. n - 1 of r_k, from fine to coarse, have the factors

    scale decay^(n - 1 - i)   at times low <= t <= high,   0 at all others                      (2)

In the published guess mode the decay is 0.825, and guidance leaves out the hints along with the
other conditions, so that it moves towards the hints. It needs no other conditions then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import jax.numpy as jnp

from genzoo.core import streams, tree
from genzoo.core.conditions import Condition, Conditions
from genzoo.core.contract import Aux, Context, Likelihood, Loss, Player, Solution, Variables
from genzoo.core.types import (
    Array,
    Batch,
    Examples,
    Factors,
    Floats,
    Key,
    Keys,
    PerExample,
    Times,
    Tree,
    broadcast,
)
from genzoo.families.denoising import Denoising, Guidance, LearnedSchedule, NoisyClassifier
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.nets.interface import Network, Steerable, Wanted
from genzoo.samplers.predictor import Predict, Rows
from genzoo.samplers.solver import MakeSampler

BASE = "base"
"""The name of the base in `Variables.frozen` and in a config."""
TUNED = "tuned"
"""The same for the model that takes the place of the base in sampling."""
GUESS_DECAY = 0.825
"""The decay of equation (2) in guess mode."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """How the branches act in sampling: equation (2). guess: whether guidance leaves out the hints
    along with the other conditions."""

    scale: float = 1.0
    decay: float = 1.0
    low: float = 0.0
    high: float = 1.0
    guess: bool = False


def steered(
    base: Steerable, branches: Mapping[str, Network], control: Control | None = None
) -> Network:
    """Equation (1) as a network with params {"base": .., "branches": {name: ..}}.

    branches: by the name of the condition that is the hint, a map in [-1, 1], which the branch sees
    in [0, 1]. control: scale and decay of equation (2).
    """
    control = control or Control()

    def parted(conditions: Conditions) -> tuple[Conditions, Conditions]:
        hints = {name: given for name, given in conditions.items() if name in branches}
        return {name: conditions[name] for name in conditions if name not in hints}, hints

    def init(key: Key, x: Array, time: Array, conditions: Conditions) -> Tree:
        own, hints = parted(conditions)
        made = {
            name: branch.init(streams.named(key, name), x, time, own, _unit(hints[name].value))
            for name, branch in branches.items()
        }
        return {"base": base.init(key, x, time, own), "branches": made}

    def inputs(params: Tree, x, time, conditions, train: bool, key: Key | None) -> tuple:
        own, hints = parted(conditions)
        total: tuple[Array, ...] = ()
        for name, given in hints.items():
            drop = None if key is None else streams.named(key, name)
            own_params, hint = params["branches"][name], _unit(given.value)
            made = branches[name].apply(own_params, x, time, own, hint, train=train, key=drop)
            scales = [control.scale * control.decay**i for i in reversed(range(len(made)))]
            acting = [
                jnp.where(broadcast(given.present, r), scale * r, 0)
                for r, scale in zip(made, scales, strict=True)
            ]
            total = tuple(a + b for a, b in zip(total, acting, strict=True)) if total else acting
        return params["base"], x, time, own, total

    def apply(
        params: Tree, x, time, conditions, *, train: bool = False, key: Key | None = None
    ) -> Array:
        return base.apply(*inputs(params, x, time, conditions, train, key))

    def features(
        params: Tree, x, time, conditions, *, names: Wanted, train: bool = False,
        key: Key | None = None,
    ) -> tuple[Array, dict[str, Array]]:  # fmt: skip
        return base.features(*inputs(params, x, time, conditions, train, key), names=names)

    return Network(init=init, apply=apply, features=features)


def _unit(hint: Floats) -> Floats:
    return (hint + 1) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlNet:
    """A ControlNet. Capabilities: Samples, Solves, Reconstructs, Likelihoods, Starts.

    base: the trained family, whose sampler and clipping are used; its U-Net is `Steerable`.
    branches: by the name of the condition that is the hint. conditions: those of the base, and the
    hints. decoder: whether a copy of the base's decoder is trained along. guidance: in sampling.
    control: how the branches act there. guide, classifier: see `Denoising`. tuned: a model trained
    from the base, in whose place it is sampled.

    Params: {"branches": {name: ..}}, with a decoder {"decoder": ..} too, and for a base with a
    learned schedule also {"gamma": ..}, which is that of the base and is not trained.
    """

    base: Denoising
    branches: Mapping[str, Network]
    conditions: Mapping[str, Condition]
    decoder: bool = False
    guidance: Guidance = field(default_factory=Guidance)
    control: Control = field(default_factory=Control)
    guide: Denoising | None = None
    classifier: NoisyClassifier | None = None
    tuned: Denoising | None = None

    # --- the contract -----------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Fresh params of what is trained."""
        made = self._trained.init(key, example)
        network = made.params["network"] if self._learned else made.params
        params = {"branches": network["branches"]}
        if self.decoder:
            copies = next(iter(network["branches"].values()))
            copied = tree.by_path(copies).keys()
            params["decoder"] = tree.split(network["base"], lambda path: path not in copied)[0]
        if self._learned:
            params["gamma"] = made.params["gamma"]
        return Variables(params=params, stats=made.stats)

    def start(self, variables: Variables) -> Tree:
        """The params that copy those of the base wherever these have the same paths."""
        params, theirs = variables.params, variables.frozen[BASE]["params"]
        network = self.base.opened(theirs)[1]
        copies = {name: tree.replaced(own, network) for name, own in params["branches"].items()}
        started = {**params, "branches": copies}
        if self.decoder:
            started["decoder"] = tree.replaced(params["decoder"], network)
        if self._learned:
            started["gamma"] = theirs["gamma"]
        return started

    @property
    def losses(self) -> Mapping[str, Player]:
        """The players of the base, which train the branches and the copy of the decoder."""
        return {
            name: replace(
                player, loss=partial(self._loss, player.loss), trains=("branches/", "decoder/")
            )
            for name, player in self._trained.losses.items()
        }

    def _loss(self, loss: Loss, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        inside = self._inside(Variables(params=params, frozen=context.frozen))
        return loss(inside.params, replace(context, frozen=inside.frozen))

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The likelihood given the conditions and the hints, as the base computes it."""
        return self._trained.likelihood(self._inside(variables), batch, keys)

    def schedule_of(self, params: Tree) -> Schedule:
        """The noise schedule of the base."""
        return self.base.schedule.at(params["gamma"]) if self._learned else self.base.schedule

    # --- sampling ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.base.shape

    @property
    def sampler(self) -> MakeSampler:
        """Schedule -> the sampler that takes noise to data."""
        return self.base.sampler

    @property
    def variance(self) -> gaussian.ReverseVariance:
        """The variance of ancestral steps."""
        return getattr(self.base, "variance", gaussian.FIXED_SMALL)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Samples [B, ...] in [-1, 1], one per key."""
        return self.solve(variables, keys, conditions).x

    def solve(
        self,
        variables: Variables,
        keys: Keys,
        conditions: Conditions,
        *,
        sampler: MakeSampler | None = None,
        guidance_scale: Factors | None = None,
        negative: Conditions | None = None,
        trajectory: bool = False,
    ) -> Solution:
        """Samples, with their cost: see `Denoising.solve`."""
        return self._sampling.solve(
            self._inside(variables), keys, conditions, sampler=sampler, negative=negative,
            guidance_scale=guidance_scale, trajectory=trajectory,
        )  # fmt: skip

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """Reconstructions [B, ...] by DDIM inversion, told the conditions and the hints."""
        return self._sampling.reconstruct(self._inside(variables), batch, keys)

    def predictor(
        self,
        variables: Variables,
        conditions: Conditions,
        guidance_scale: Factors | None = None,
        negative: Conditions | None = None,
    ) -> Predict:
        """The predictor that sampling uses: guided, then clipped."""
        inside = self._inside(variables)
        return self._sampling.predictor(inside, conditions, guidance_scale, negative)

    def network_rows(self, guidance_scale: Factors | None = None) -> Rows:
        """The network rows of one prediction of `predictor`."""
        return self._sampling.network_rows(guidance_scale)

    # --- equation (1) as a family -----------------------------------------------------------------

    @property
    def _learned(self) -> bool:
        return isinstance(self.base.schedule, LearnedSchedule)

    @property
    def _trained(self) -> Denoising:
        """The base with the branches, as they are trained."""
        network = steered(self.base.denoiser.network, self.branches)
        denoiser = replace(self.base.denoiser, network=network)
        return replace(self.base, denoiser=denoiser, conditions=self.conditions, alignment=None)

    @property
    def _sampling(self) -> Denoising:
        """The same under `control`, with the models that steer sampling."""
        own, conditions = self.control, dict(self.conditions)
        network = steered(self.base.denoiser.network, self.branches, own)
        if own.guess:  # the base is what is left without them, so this takes no training
            conditions |= {name: replace(conditions[name], dropout=1.0) for name in self.branches}
        denoiser = replace(self.base.denoiser, network=network)
        if own.low > 0 or own.high < 1:
            denoiser = replace(denoiser, told=self._within)
        return replace(
            self.base, denoiser=denoiser, conditions=conditions, alignment=None,
            guidance=self.guidance, guide=self.guide, classifier=self.classifier,
        )  # fmt: skip

    def _within(self, conditions: Conditions, t: Times) -> Conditions:
        """The conditions at t, with hints absent where the branches do not act."""
        acting = (t >= self.control.low) & (t <= self.control.high)
        return {
            name: given._replace(present=given.present & acting) if name in self.branches else given
            for name, given in conditions.items()
        }

    def _inside(self, variables: Variables) -> Variables:
        """The variables of equation (1) as a family."""
        params, frozen = variables.params, variables.frozen
        theirs = frozen[BASE if self.tuned is None else TUNED]
        network = tree.replaced(self.base.opened(theirs["params"])[1], params.get("decoder", {}))
        both = {"base": network, "branches": params["branches"]}
        return Variables(
            params={"network": both, "gamma": params["gamma"]} if self._learned else both,
            stats=variables.stats,
            frozen={**theirs.get("frozen", {}), **frozen},
        )
