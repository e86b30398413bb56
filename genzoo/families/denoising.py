"""Shared by the families that are trained to denoise: the predictor, and all sampling with it.

The predictor is a network that predicts the clean data and the noise in x_t, given the time and
optional conditions. A family adds its loss and, where it has one, its likelihood; it overrides
nothing. The schedule may be learned, so everything begins with `Denoising.opened(params)`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.conditions import (
    Condition,
    Conditions,
    Specs,
    droppable,
    examples,
    gather,
    groups,
)
from genzoo.core.contract import Context, Solution, Variables
from genzoo.core.types import (
    Array,
    Batch,
    Examples,
    Factors,
    Key,
    Keys,
    Labels,
    PerExample,
    Times,
    Tree,
)
from genzoo.families.alignment import PROJECTOR, Alignment
from genzoo.families.denoiser import Denoiser, Seen
from genzoo.math.schedules import Schedule
from genzoo.samplers.grids import even
from genzoo.samplers.guidance import (
    GuidanceStep,
    Scale,
    autoguided,
    classifier_guided,
    composed,
    elsewhere,
    rows_of,
    within,
)
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Predict, Prediction, Rows, Wrapper, one_row
from genzoo.samplers.solver import MakeSampler, start
from genzoo.samplers.steps import DDIM

_INVERSION_STEPS = 100  # steps of an inversion if the sampler has no grid


@runtime_checkable
class LearnedSchedule(Protocol):
    """A schedule with its own params next to the network's: params = {"network", "gamma"}."""

    def init(self, key: Key) -> Tree:
        """Its initial params."""

    def at(self, params: Tree) -> Schedule:
        """The schedule with these params."""


@runtime_checkable
class NoisyClassifier(Protocol):
    """A classifier of noisy data, for guidance."""

    @property
    def schedule(self) -> Schedule:
        """The schedule of the noisy data that it is trained on."""

    def log_prob(self, params: Tree, labels: Labels) -> Callable[[Examples, Times], PerExample]:
        """(x_t [B, ...], t [] or [B]) -> log p(label | x_t) in nats [B]."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How strongly sampling is guided by its conditions.

    scale: of all conditions that training sometimes drops, jointly; 1 is off, 0 is unconditional.
    scales: instead, ((name, scale), ...) for some of them, in order (`guidance.composed`).
    rescale: how far the standard deviation of the guided data is pulled back (Lin et al. 2023).
    low, high: the times between which guidance is on. classifier_scale: of a classifier's gradient;
    0 is off.
    """

    scale: float = 1.0
    scales: tuple[tuple[str, float], ...] = ()
    rescale: float = 0.0
    low: float = 0.0
    high: float = 1.0
    classifier_scale: float = 1.0

    @property
    def limited(self) -> bool:
        """Whether guidance is limited to some times."""
        return self.low > 0 or self.high < 1

    def over_time(self, scale: Scale | None = None, off: float = 1.0) -> Scale:
        """The scale, by default its own, at those times and `off` at all others."""
        scale = self.scale if scale is None else scale
        return within(scale, self.low, self.high, off) if self.limited else scale

    def steps(self, specs: Specs, scale: Scale | None = None) -> tuple[GuidanceStep, ...]:
        """The steps of `guidance.composed` for a model's conditions; none without guidance.

        scale: replaces its own scale and scales.
        """
        if self.scales and scale is None:
            names = [name for name, _ in self.scales]
            together = groups(specs, names)
            scales = [self.over_time(scale) for _, scale in self.scales]
            return tuple(GuidanceStep(*step) for step in zip(together, scales, strict=True))
        dropped = frozenset(droppable(specs))
        if not dropped or (scale is None and self.scale == 1):
            return ()
        return (GuidanceStep(dropped, self.over_time(scale)),)


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """The shared half of a family: a denoiser on a schedule, and how it samples.

    shape: of one example. schedule: fixed, or learned with the network. sampler: schedule -> the
    sampler that takes noise to data. conditions: the model's conditions, by name. clipping,
    guidance: how a prediction is used in sampling. levels: whether the data are on 256 levels, as
    images are, or are real numbers. guide, classifier: trained models that sampling also uses, a
    weaker one of the same kind (autoguidance) and one of p(label | x_t); their variables are in
    `frozen` under these names. alignment: added to the loss in training.
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    schedule: Schedule | LearnedSchedule
    sampler: MakeSampler
    clipping: Wrapper
    guidance: Guidance = Guidance()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    guide: "Denoising | None" = None
    classifier: NoisyClassifier | None = None
    levels: bool = True
    alignment: Alignment | None = None

    def initial_params(self, key: Key, example: Batch) -> Tree:
        """Params of the network and, if it is learned, of the schedule. Those of a projector stand
        beside them, so that all others have the same paths with and without it."""
        conditions = examples(self.conditions, example)
        network = self.denoiser.init(streams.named(key, "network"), example["x"], conditions)
        beside = {}
        if self.alignment is not None:
            beside = {PROJECTOR: self.alignment.init(streams.named(key, PROJECTOR))}
        if not isinstance(self.schedule, LearnedSchedule):
            return network | beside
        gamma = self.schedule.init(streams.named(key, "gamma"))
        return {"network": network, "gamma": gamma} | beside

    def gathered(self, context: Context) -> Conditions:
        """The conditions for a loss; in training some are dropped at random."""
        key = context.key if context.train else None
        return gather(self.conditions, context.batch, context.frozen, key)

    def opened(self, params: Tree) -> tuple[Schedule, Tree]:
        """The schedule, and the network's part of the params."""
        if isinstance(self.schedule, LearnedSchedule):
            return self.schedule.at(params["gamma"]), params["network"]
        if self.alignment is not None:
            params = {name: own for name, own in params.items() if name != PROJECTOR}
        return self.schedule, params

    def see(
        self,
        params: Tree,
        context: Context,
        x_0: Examples,
        eps: Examples,
        t: PerExample,
        conditions: Conditions,
    ) -> Seen:
        """What a loss sees: `Denoiser.see` with the params of the family."""
        schedule, network = self.opened(params)
        aligned = self.alignment is not None and context.train
        names = self.alignment.names if aligned else ()
        train, key = context.train, context.key
        return self.denoiser.see(
            network, schedule, x_0, eps, t, conditions, names=names, train=train, key=key
        )

    def aligned(
        self, params: Tree, context: Context, seen: Seen, conditions: Conditions
    ) -> tuple[Factors, Mapping[str, PerExample]]:
        """(what the alignment adds to the loss, its metric); (0, {}) without one or in evaluation.
        """
        if self.alignment is None or not context.train:
            return 0.0, {}

        def features_at(params: Tree, s: Times, names: Collection[str]) -> Mapping[str, Array]:
            schedule, network = self.opened(params)
            return self.denoiser.see(
                network, schedule, seen.x_0, seen.eps, s, conditions, names=names
            ).features

        own, schedule = params[PROJECTOR], self.schedule_of(params)
        value = self.alignment(own, context, seen, schedule, features_at)
        return self.alignment.weight * value, {"alignment": value}

    def schedule_of(self, params: Tree) -> Schedule:
        """The noise schedule."""
        return self.opened(params)[0]

    # --- sampling ---------------------------------------------------------------------------------

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
        """Samples, with the number of evaluations that they took.

        sampler, guidance_scale: in place of the family's own. negative: conditions that guidance
        moves away from, in place of absent ones. trajectory: whether to keep every state.
        """
        schedule = self.schedule_of(variables.params)
        sampler = (sampler or self.sampler)(schedule)
        noise, rest = streams.fold(keys, 0), streams.fold(keys, 1)
        x = start(schedule, sampler.start, noise, self.shape)
        predict = self.predictor(variables, conditions, guidance_scale, negative)
        rows = self.network_rows(guidance_scale)
        return sampler(predict, x, rest, trajectory=trajectory, rows=rows)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """Reconstructions [B, ...] by DDIM inversion: the data are taken to noise and back.

        Song et al. 2020, section 5.4; Dhariwal & Nichol 2021, section F. Deterministic, and without
        guidance, under which the way back would differ from the way there. The times are those of
        the family's sampler, or even steps if it has none.
        """
        del keys
        schedule = self.schedule_of(variables.params)
        own = self.sampler(schedule)
        has_grid = isinstance(own, Sampler)
        times = jnp.asarray(own.times if has_grid else even(schedule, _INVERSION_STEPS))
        # The data are taken as x_t at the last time before the end, and the way back ends in data
        # wherever the sampler stops. From alpha = 0 there is no way back.
        times = jnp.minimum(times, schedule.farthest).at[-1].set(0)
        conditions = gather(self.conditions, batch, variables.frozen)
        predict = self.clipping(self.unguided(variables.params, conditions), schedule)
        step = DDIM(schedule=schedule)
        unused = streams.per_example(streams.root(0), jnp.arange(batch["x"].shape[0]))
        inversion = Sampler(step=step, times=times[:-1][::-1])
        noise = inversion(predict, batch["x"], unused).x
        return Sampler(step=step, times=times)(predict, noise, unused).x

    def predictor(
        self,
        variables: Variables,
        conditions: Conditions,
        guidance_scale: Factors | None = None,
        negative: Conditions | None = None,
    ) -> Predict:
        """The predictor that sampling uses: guided, then clipped.

        guidance_scale: a number, which may be an argument of the compiled program; None for the
        family's own.
        """
        schedule, params = self.opened(variables.params)
        own = self.guidance

        def conditioned(x: Examples, t: Times, conditions: Conditions) -> Prediction:
            return self.denoiser(params, schedule, x, t, conditions)

        predict = self.unguided(variables.params, conditions)
        if self.guide is not None:
            theirs = variables.frozen["guide"]["params"]
            weaker = self.guide.unguided(theirs, conditions)
            weaker = elsewhere(weaker, schedule, self.guide.schedule_of(theirs))
            predict = autoguided(predict, weaker, own.over_time(guidance_scale), schedule)
        elif steps := own.steps(self.conditions, guidance_scale):
            predict = composed(
                conditioned, conditions, steps, schedule, rescale=own.rescale, negative=negative
            )
        if self.classifier is not None:
            theirs, labels = variables.frozen["classifier"]["params"], conditions["label"].value
            log_prob = self.classifier.log_prob(theirs, labels)
            scale = own.over_time(own.classifier_scale, off=0.0)
            predict = classifier_guided(
                predict, log_prob, scale, schedule, theirs=self.classifier.schedule
            )
        return self.clipping(predict, schedule)

    def network_rows(self, guidance_scale: Factors | None = None) -> Rows:
        """The network rows of one prediction of `predictor`: its branches, and the classifier's."""
        own, classifier = self.guidance, int(self.classifier is not None)
        if self.guide is not None:
            guided = rows_of(2, [own.over_time(guidance_scale)])
        elif steps := own.steps(self.conditions, guidance_scale):
            guided = rows_of(len(steps) + 1, [step.scale for step in steps])
        else:
            guided = one_row
        return lambda t: guided(t) + classifier

    def unguided(self, params: Tree, conditions: Conditions) -> Predict:
        """The network's own predictions."""
        schedule, params = self.opened(params)
        return lambda x, t: self.denoiser(params, schedule, x, t, conditions)
