"""The settings of sampling of families that denoise, and what they build: methods, grids, clipping,
guidance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Stage
from genzoo.core.bounds import AtLeast, Between, OneOf, ignored, without_effect
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
        capability=Solves, called="a weaker model of the same data", role="sampling"
    ),
    "classifier": Stage(
        capability=NoisyClassifier,
        called="a classifier of the same data",
        role="sampling",
        needs={"family.noisy": True},
    ),
}
"""The runs that sampling may ask besides: the keys of `sample` that name them."""
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
"""Name -> whether the last steps have a lower order; None of "few" means below 15 steps."""


def _ending(step: Callable[..., Step], **fields) -> Method:
    # A multistep method, whose order may fall at the end.
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
"""The method that chooses its own steps: no grid, and no number of steps."""
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
"""Method -> the keys of `sample` that it uses, of those that some other method ignores. A method
that uses `grid` also uses the keys of that grid: see GRID_KEYS."""

RULES: Mapping[str, grids.Rule] = {
    "uniform": grids.leading,
    "quadratic": grids.quadratic,
    "trailing": grids.trailing,
    "linspace": grids.linspace,
    "uniform_open": grids.leading_open,
    "linspace_open": grids.linspace_open,
}
"""Grids that choose among the steps of a table."""
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
"""Grid -> the keys of `sample` that it uses, of those that some other grid ignores."""


MethodName = Annotated[str, OneOf((*METHODS, ADAPTIVE)), "The sampler."]
Steps = Annotated[int, AtLeast(0), "Of the sampler; 0 takes every step of a table."]
GridName = Annotated[str, OneOf(GRIDS), "Where the steps lie."]
ClippingName = Annotated[
    str, OneOf(CLIPPINGS), "Of the predicted data: none, clip to [-1, 1], dynamic (Imagen)."
]


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """The keys of `sample` of families that denoise."""

    method: MethodName = "ancestral"
    steps: Steps = 0
    grid: GridName = "uniform"
    eta: Annotated[
        float, Between(0, 1, "deterministic", "DDPM"), "Share of noise in the steps of ddim."
    ] = 0.0
    rho: Annotated[float, AtLeast(1e-3), "Exponent of the grid karras."] = 7.0
    shift: Annotated[
        float, AtLeast(1e-6), "Moves the grid towards the noise where above 1; 1 leaves it."
    ] = 1.0
    steps_offset: Annotated[
        int, AtLeast(0), "Added to the steps of the grids uniform and uniform_open on a table."
    ] = 0
    last_sigma: Annotated[
        float,
        AtLeast(0),
        "sigma / alpha at which sampling stops, but at least that of the schedule's first step; 0 "
        "for the data.",
    ] = 0.0
    final_order: Annotated[
        str,
        OneOf(FINAL_ORDERS),
        "Whether multistep methods end with orders 2 and 1: as published, below 15 steps (few), "
        "always or never.",
    ] = "published"
    churn: Annotated[float, AtLeast(0), "S_churn of edm, euler, dpm2 (Karras et al. 2022)."] = 0.0
    churn_low: Annotated[float, AtLeast(0), "S_min: the least sigma with churn."] = 0.0
    churn_high: Annotated[float, AtLeast(0), "S_max: the greatest sigma with churn."] = 1e9
    churn_noise: Annotated[float, AtLeast(0), "S_noise: the deviation of the churned noise."] = 1.0
    corrector: Annotated[
        str,
        OneOf(CORRECTORS),
        "Of predictor_corrector: langevin, or annealed (Song & Ermon 2019), for data of few "
        "dimensions.",
    ] = "langevin"
    corrector_snr: Annotated[
        float, AtLeast(0), "Signal-to-noise ratio of the corrector of predictor_corrector."
    ] = 0.16
    tolerance: Annotated[float, Between(1e-12, 1), "Of rk45, relative and absolute."] = 1e-5
    clip: ClippingName = "clip"
    guidance_scale: Annotated[float, "Classifier-free guidance: 1 is off, 0 unconditional."] = 1.0
    guidance: Annotated[
        tuple[tuple[str, float], ...],
        "((condition, scale), ...): guidance over several conditions, one after the other.",
    ] = ()
    negative: Annotated[
        dict, "Condition -> a value that guidance leans away from, in place of its absence."
    ] = field(default_factory=dict)
    guidance_rescale: Annotated[
        float, Between(0, 1), "Of the guided prediction's deviation (Lin et al. 2023)."
    ] = 0.0
    guidance_low: Annotated[float, Between(0, 1), "Earliest time t with guidance."] = 0.0
    guidance_high: Annotated[float, Between(0, 1), "Latest time t with guidance."] = 1.0
    guide: Annotated[str, "Workdir of a weaker model to lean away from (autoguidance)."] = ""
    guide_weights: Annotated[str, "An average of that run, or raw."] = RAW
    classifier: Annotated[str, "Workdir of a noisy classifier to lean towards."] = ""
    classifier_weights: Annotated[str, "An average of that run, or raw."] = RAW
    classifier_scale: Annotated[float, "How much the classifier's gradient counts."] = 1.0
    resample: Annotated[
        int, AtLeast(1), "How often a step is taken where part of the data is known (RePaint)."
    ] = 1
    pictures: Annotated[
        str, "What else to draw, names with commas: see --mode=sample in the README."
    ] = ""
    unroll: Annotated[int, AtLeast(1), "Steps of the sampling loop that are written out."] = 1

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What does not fit together."""
        found = ignored(self, "sample", "method", _METHODS_OWN)
        if self.method != ADAPTIVE:
            found += ignored(self, "sample", "grid", GRID_KEYS)
        if not self.guide:
            why, remedy = "without sample.guide", "name a workdir there"
            found += without_effect(self, "sample", ("guide_weights",), why, remedy)
        if not self.classifier:
            why, keys = "without sample.classifier", ("classifier_weights", "classifier_scale")
            found += without_effect(self, "sample", keys, why, "name a workdir there")
        if self.guidance_low > self.guidance_high:
            found.append(
                f"sample.guidance_low = {self.guidance_low} and sample.guidance_high = "
                f"{self.guidance_high} must be times with 0 <= low <= high <= 1."
            )
        return found


@dataclass(frozen=True, kw_only=True)
class ContinuousSampling(DiffusionSampling):
    """The same of families of continuous time, with the defaults of EDM."""

    method: MethodName = "heun"
    steps: Steps = 18
    grid: GridName = "karras"
    clip: ClippingName = "none"

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What does not fit together."""
        table_only = without_effect(
            self, "sample", ("steps_offset",), "in continuous time", "sample a model with a table"
        )
        if not table_only:
            return super().problems(config)
        return table_only + replace(self, steps_offset=0).problems(config)


_GENERAL = {"steps", "grid", "unroll"}
"""Keys of all methods but the adaptive one, which its pictures of other methods still use."""
_METHODS_OWN = {name: keys - _GENERAL for name, keys in METHOD_KEYS.items()}


def rule(sample: DiffusionSampling) -> grids.Rule | None:
    """How the settings choose among the steps of a table; None where they choose times."""
    found = RULES.get(sample.grid)
    if found and "steps_offset" in GRID_KEYS[sample.grid]:
        return grids.offset(found, sample.steps_offset)
    return found


def grid(sample: DiffusionSampling, *, table: bool) -> Grid:
    """The grid of the settings, for a table or for continuous time."""
    if sample.grid in _IN_NOISE:
        found = _IN_NOISE[sample.grid](sample.rho)
    elif table:
        found = grids.on_table(rule(sample))
    else:
        found = _IN_TIME[sample.grid]
    return grids.shifted(found, sample.shift)


def sampler(
    sample: DiffusionSampling,
    variance: gaussian.ReverseVariance,
    *,
    table: TableSchedule | None = None,
) -> MakeSampler:
    """What the settings say takes noise to data, once the schedule is known."""
    if sample.method == ADAPTIVE:
        return partial(_adaptive, sample.tolerance)
    method = METHODS[sample.method]
    return Solver(
        method=lambda schedule: method(schedule, sample, variance),
        grid=grid(sample, table=table is not None),
        steps=sample.steps or table.steps,
        unroll=sample.unroll,
        last_sigma=sample.last_sigma,
    ).sampler


def _adaptive(tolerance: float, schedule: Schedule) -> AdaptiveSampler:
    return AdaptiveSampler(schedule=schedule, rtol=tolerance, atol=tolerance)


def guidance(sample: DiffusionSampling) -> Guidance:
    """How sampling leans towards its condition."""
    return Guidance(
        scale=sample.guidance_scale,
        scales=tuple((name, scale) for name, scale in sample.guidance),
        rescale=sample.guidance_rescale,
        low=sample.guidance_low,
        high=sample.guidance_high,
        classifier_scale=sample.classifier_scale,
    )
