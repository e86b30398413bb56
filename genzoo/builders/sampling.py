"""Sampling settings of denoising families, which build methods, grids, clipping and guidance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Stage
from genzoo.core.bounds import (
    AtLeast,
    Between,
    Entries,
    Limit,
    Numbers,
    OneOf,
    ignored,
    without_effect,
)
from genzoo.core.contract import Solves
from genzoo.families.denoising import Guidance, NoisyClassifier
from genzoo.math import exponential, gaussian
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.samplers import grids, predictor
from genzoo.samplers.adaptive import AdaptiveSampler
from genzoo.samplers.churn import EDM, ChurnedDPM2, ChurnedEuler
from genzoo.samplers.dpm_multistep import Multistep
from genzoo.samplers.dpm_sde import MultistepSDE, NoiseMultistepSDE, SingleStepSDE
from genzoo.samplers.dpm_single import SingleStep
from genzoo.samplers.grids import Grid
from genzoo.samplers.linear_multistep import DEIS, FPNDM, LMS, PLMS
from genzoo.samplers.loop import Step
from genzoo.samplers.runge_kutta import RK4, EulerAncestral, Heun
from genzoo.samplers.solver import MakeSampler, Solver
from genzoo.samplers.steps import DDIM, Ancestral
from genzoo.samplers.stochastic import (
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from genzoo.samplers.unipc import UniPC
from genzoo.settings import RAW

STEERING = {
    "guide": Stage(
        capability=Solves, called="a weaker model of the same data", role="sampling", same_text=True
    ),
    "classifier": Stage(
        capability=NoisyClassifier,
        called="a classifier of the same data",
        role="sampling",
        needs={"family.noisy": True},
    ),
}
"""Models of other runs that may steer sampling, by the key of `sample` that names them."""
CLIPPINGS = {
    "none": predictor.unchanged,
    "clip": predictor.clipped,
    "dynamic": predictor.dynamic_threshold(),
}

DATA, NOISE = exponential.DATA, exponential.NOISE
Method = Callable[[Schedule, "DiffusionSampling", gaussian.ReverseVariance], Step]


def _plain(step: Callable[..., Step], **fields) -> Method:
    return lambda schedule, sample, variance: step(schedule=schedule, **fields)


def _churned(step: Callable[..., Step]) -> Method:
    return lambda schedule, sample, variance: step(
        schedule=schedule, s_churn=sample.churn, s_min=sample.churn_low, s_max=sample.churn_high,
        s_noise=sample.churn_noise,
    )  # fmt: skip


FINAL_ORDERS = {"published": None, "few": None, "always": True, "never": False}
"""Name -> whether the last steps have a lower order. None, for "few": only below 15 steps."""


def _ending(step: Callable[..., Step], **fields) -> Method:
    # A multistep method, whose order may be lower in the last steps.
    def method(schedule, sample, variance):
        del variance
        published = sample.final_order == "published"
        own = {} if published else {"lower_order_final": FINAL_ORDERS[sample.final_order]}
        return step(schedule=schedule, **fields, **own)

    return method


CORRECTORS = {"langevin": Langevin, "annealed": AnnealedLangevin}


def _corrected(schedule, sample, variance):
    del variance
    corrector = CORRECTORS[sample.corrector]
    return PredictorCorrector(
        predictor=ReverseDiffusion(schedule=schedule),
        corrector=corrector(schedule=schedule, snr=sample.corrector_snr),
    )


METHODS: Mapping[str, Method] = {
    "ancestral": lambda schedule, _, variance: Ancestral(schedule=schedule, variance=variance),
    "ddim": lambda schedule, sample, _: DDIM(schedule=schedule, eta=sample.eta),
    "euler": _churned(ChurnedEuler),
    "euler_ancestral": _plain(EulerAncestral),
    "heun": _plain(Heun),
    "rk4": _plain(RK4),
    "dpm2": _churned(ChurnedDPM2),
    "lms": _plain(LMS),
    "pndm": _plain(PLMS),
    "f_pndm": _plain(FPNDM),
    "dpm_1": _plain(SingleStep, form=NOISE, order=1),
    "dpm_2": _plain(SingleStep, form=NOISE, order=2),
    "dpm_3": _plain(SingleStep, form=NOISE, order=3),
    "dpm_2m": _ending(Multistep, form=NOISE, order=2),
    "dpm_3m": _ending(Multistep, form=NOISE, order=3),
    "dpmpp_1": _plain(SingleStep, form=DATA, order=1),
    "dpmpp_2s": _plain(SingleStep, form=DATA, order=2),
    "dpmpp_3s": _plain(SingleStep, form=DATA, order=3),
    "dpmpp_2m": _ending(Multistep, form=DATA, order=2),
    "dpmpp_3m": _ending(Multistep, form=DATA, order=3),
    "dpmpp_3m_published": _ending(Multistep, form=DATA, order=3, published=True),
    "dpmpp_sde": _plain(SingleStepSDE),
    "dpm_2m_sde": _ending(NoiseMultistepSDE, order=2),
    "dpmpp_2m_sde": _ending(MultistepSDE, order=2),
    "dpmpp_3m_sde": _ending(MultistepSDE, order=3),
    "unipc": _ending(UniPC, order=3),
    "deis": _ending(DEIS),
    "edm": _churned(EDM),
    "euler_maruyama": _plain(EulerMaruyama),
    "reverse_diffusion": _plain(ReverseDiffusion),
    "predictor_corrector": _corrected,
}
ADAPTIVE = "rk45"
"""The method that chooses its own steps, without a grid or a number of steps."""
_STEPPED = frozenset(("steps", "grid", "shift", "unroll", "last_sigma"))
_CHURN = frozenset(("churn", "churn_low", "churn_high", "churn_noise"))
_MULTISTEP = (
    "dpm_2m", "dpm_3m", "dpmpp_2m", "dpmpp_3m", "dpmpp_3m_published", "dpm_2m_sde", "dpmpp_2m_sde",
    "dpmpp_3m_sde", "unipc", "deis",
)  # fmt: skip
METHOD_KEYS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(METHODS, _STEPPED),
    "ddim": _STEPPED | {"eta"},
    **dict.fromkeys(("euler", "dpm2", "edm"), _STEPPED | _CHURN),
    **dict.fromkeys(_MULTISTEP, _STEPPED | {"final_order"}),
    "predictor_corrector": _STEPPED | {"corrector", "corrector_snr"},
    ADAPTIVE: frozenset(("tolerance",)),
}
"""Method -> the keys of `sample` that it uses and another method ignores. A method that uses `grid`
also uses the keys of that grid: see GRID_KEYS."""

RULES: Mapping[str, grids.Rule] = {
    "uniform": grids.leading,
    "quadratic": grids.quadratic,
    "trailing": grids.trailing,
    "linspace": grids.linspace,
    "uniform_open": grids.leading_open,
    "linspace_open": grids.linspace_open,
}
"""Grids that select steps of a table."""
_IN_TIME: Mapping[str, Grid] = {
    "uniform": grids.even_to_nearest,
    "quadratic": grids.squares,
    "trailing": grids.even,
    "linspace": grids.even_to_nearest,
    "uniform_open": grids.even_open,
    "linspace_open": grids.even_open,
}
_IN_NOISE: Mapping[str, Callable[[float], Grid]] = {
    "logsnr": lambda rho: grids.logsnr,
    "exponential": lambda rho: grids.logsnr,  # evenly in log(sigma / alpha): the same
    "karras": grids.karras,
}
GRIDS = {*RULES, *_IN_NOISE}
GRID_KEYS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(GRIDS, frozenset()),
    "karras": frozenset(("rho",)),
    **dict.fromkeys(("uniform", "uniform_open"), frozenset(("steps_offset",))),
}
"""Grid -> the keys of `sample` that it uses and another grid ignores."""


MethodName = Annotated[str, OneOf((*METHODS, ADAPTIVE)), "The sampler."]
Steps = Annotated[
    int, AtLeast(0), Limit(100_000), "Steps of the sampler; 0 takes every step of a table."
]
GridName = Annotated[str, OneOf(GRIDS), "Placement of the steps in time."]
ClippingName = Annotated[
    str, OneOf(CLIPPINGS), "Clipping of the predicted data: none, clip (to [-1, 1]), dynamic "
    "(Imagen)."
]


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """The keys of `sample` for denoising families."""

    method: MethodName = "ancestral"
    steps: Steps = 0
    grid: GridName = "uniform"
    eta: Annotated[
        float, Between(0, 1, "deterministic", "DDPM"), "Amount of noise in the steps of ddim."
    ] = 0.0
    rho: Annotated[float, AtLeast(1e-3), Limit(1_000), "Exponent of the grid karras."] = 7.0
    shift: Annotated[
        float,
        AtLeast(1e-6),
        Limit(1e6),
        "Shifts the grid towards noise if above 1; 1 is off.",
    ] = 1.0
    steps_offset: Annotated[
        int,
        AtLeast(0),
        Limit(100_000),
        "Added to the steps of the grids uniform and uniform_open on a table.",
    ] = 0
    last_sigma: Annotated[
        float,
        AtLeast(0),
        Limit(1e9),
        "sigma / alpha at which sampling stops, but at least that of the schedule's first step; 0 "
        "goes all the way to the data.",
    ] = 0.0
    final_order: Annotated[
        str,
        OneOf(FINAL_ORDERS),
        "Whether multistep methods end with orders 2 and 1: as published, below 15 steps (few), "
        "always or never.",
    ] = "published"
    churn: Annotated[
        float, AtLeast(0), Limit(1e6), "S_churn of edm, euler, dpm2 (Karras et al. 2022)."
    ] = 0.0
    churn_low: Annotated[
        float, AtLeast(0), Limit(1e9), "S_min: the smallest sigma with churn."
    ] = 0.0
    churn_high: Annotated[
        float, AtLeast(0), Limit(1e9), "S_max: the largest sigma with churn."
    ] = 1e9
    churn_noise: Annotated[
        float, AtLeast(0), Limit(1_000), "S_noise: the deviation of the added noise."
    ] = 1.0
    corrector: Annotated[
        str,
        OneOf(CORRECTORS),
        "Corrector of predictor_corrector: langevin, or annealed (Song & Ermon 2019) for data of "
        "few dimensions.",
    ] = "langevin"
    corrector_snr: Annotated[
        float,
        AtLeast(0),
        Limit(1_000),
        "Signal-to-noise ratio of the corrector of predictor_corrector.",
    ] = 0.16
    tolerance: Annotated[
        float, Between(1e-12, 1), "Relative and absolute tolerance of rk45."
    ] = 1e-5
    clip: ClippingName = "clip"
    guidance_scale: Annotated[
        float, Between(-1e4, 1e4), "Classifier-free guidance: 1 is off, 0 unconditional."
    ] = 1.0
    guidance: Annotated[
        tuple[tuple[str, float], ...],
        Entries(0, 64),
        Numbers(Between(-1e4, 1e4)),
        "((condition, scale), ...): guidance over several conditions, in this order.",
    ] = ()
    negative: Annotated[
        dict, "Condition -> a value that guidance moves away from, in place of its absence."
    ] = field(default_factory=dict)
    guidance_rescale: Annotated[
        float, Between(0, 1), "Rescaling of the guided prediction (phi of Lin et al. 2023)."
    ] = 0.0
    guidance_low: Annotated[float, Between(0, 1), "Earliest time t with guidance."] = 0.0
    guidance_high: Annotated[float, Between(0, 1), "Latest time t with guidance."] = 1.0
    guide: Annotated[str, "Workdir of a weaker model to move away from (autoguidance)."] = ""
    guide_weights: Annotated[str, "An average of that run, or raw."] = RAW
    classifier: Annotated[str, "Workdir of a noisy classifier that guides."] = ""
    classifier_weights: Annotated[str, "An average of that run, or raw."] = RAW
    classifier_scale: Annotated[float, Between(-1e6, 1e6), "Scale of its gradient."] = 1.0
    resample: Annotated[
        int,
        AtLeast(1),
        Limit(10_000),
        "Repetitions of each step where part of the data is known (RePaint).",
    ] = 1
    pictures: Annotated[
        str, "Further pictures to draw, separated by commas: see genzoo/samplers/README.md."
    ] = ""
    unroll: Annotated[int, AtLeast(1), Limit(1_000), "Unrolled steps of the sampling loop."] = 1

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = ignored(self, "sample", "method", _METHODS_OWN)
        if self.method != ADAPTIVE:
            problems += ignored(self, "sample", "grid", GRID_KEYS)
        if not self.guide:
            why, remedy = "without sample.guide", "name a workdir there"
            problems += without_effect(self, "sample", ("guide_weights",), why, remedy)
        if not self.classifier:
            why, keys = "without sample.classifier", ("classifier_weights", "classifier_scale")
            problems += without_effect(self, "sample", keys, why, "name a workdir there")
        if self.guidance_low > self.guidance_high:
            problems.append(
                f"sample.guidance_low = {self.guidance_low} and sample.guidance_high = "
                f"{self.guidance_high} must be times with 0 <= low <= high <= 1."
            )
        return problems


@dataclass(frozen=True, kw_only=True)
class ContinuousSampling(DiffusionSampling):
    """The same for families in continuous time, with the defaults of EDM."""

    method: MethodName = "heun"
    steps: Steps = 18
    grid: GridName = "karras"
    clip: ClippingName = "none"

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        table_only = without_effect(
            self, "sample", ("steps_offset",), "in continuous time", "sample a model with a table"
        )
        if not table_only:
            return super().problems(config)
        return table_only + replace(self, steps_offset=0).problems(config)


_GENERAL = {"steps", "grid", "unroll"}
"""Keys that only the adaptive method ignores; with it, pictures of other methods still use them."""
_METHODS_OWN = {name: keys - _GENERAL for name, keys in METHOD_KEYS.items()}


def rule(sample: DiffusionSampling) -> grids.Rule | None:
    """The rule that selects steps of a table; None if the grid consists of times instead."""
    chosen = RULES.get(sample.grid)
    if chosen and "steps_offset" in GRID_KEYS[sample.grid]:
        return grids.offset(chosen, sample.steps_offset)
    return chosen


def grid(sample: DiffusionSampling, *, table: bool) -> Grid:
    """The grid of the settings, for a table or for continuous time."""
    if sample.grid in _IN_NOISE:
        unshifted = _IN_NOISE[sample.grid](sample.rho)
    elif table:
        unshifted = grids.on_table(rule(sample))
    else:
        unshifted = _IN_TIME[sample.grid]
    return grids.shifted(unshifted, sample.shift)


def method(
    sample: DiffusionSampling, variance: gaussian.ReverseVariance
) -> Callable[[Schedule], Step]:
    """The settings' method, unless it is the adaptive one. variance: of ancestral steps."""
    return lambda schedule: METHODS[sample.method](schedule, sample, variance)


def sampler(
    sample: DiffusionSampling,
    variance: gaussian.ReverseVariance,
    *,
    table: TableSchedule | None = None,
) -> MakeSampler:
    """The sampler of the settings, as a function of the schedule. variance: of ancestral steps.
    table: the schedule of a model with a table of steps."""
    if sample.method == ADAPTIVE:
        return partial(_adaptive, sample.tolerance)
    return Solver(
        method=method(sample, variance),
        grid=grid(sample, table=table is not None),
        steps=sample.steps or table.steps,
        unroll=sample.unroll,
        last_sigma=sample.last_sigma,
    ).sampler


def _adaptive(tolerance: float, schedule: Schedule) -> AdaptiveSampler:
    return AdaptiveSampler(schedule=schedule, rtol=tolerance, atol=tolerance)


def guidance(sample: DiffusionSampling) -> Guidance:
    """The guidance of the settings."""
    return Guidance(
        scale=sample.guidance_scale,
        scales=tuple((name, scale) for name, scale in sample.guidance),
        rescale=sample.guidance_rescale,
        low=sample.guidance_low,
        high=sample.guidance_high,
        classifier_scale=sample.classifier_scale,
    )
