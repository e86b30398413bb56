"""The settings of sampling of families that denoise, and what they build: methods, grids, clipping,
guidance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from genzoo.samplers.churn import EDM
from genzoo.samplers.dpm_multistep import Multistep
from genzoo.samplers.dpm_sde import MultistepSDE, SingleStepSDE
from genzoo.samplers.dpm_single import SingleStep
from genzoo.samplers.grids import Grid
from genzoo.samplers.linear_multistep import DEIS, LMS, PLMS
from genzoo.samplers.loop import Step
from genzoo.samplers.runge_kutta import DPM2, RK4, Euler, EulerAncestral, Heun
from genzoo.samplers.solver import MakeSampler, Solver
from genzoo.samplers.steps import DDIM, Ancestral
from genzoo.samplers.stochastic import (
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


def _edm(schedule, sample, variance):
    del variance
    return EDM(
        schedule=schedule, s_churn=sample.churn, s_min=sample.churn_low, s_max=sample.churn_high,
        s_noise=sample.churn_noise,
    )  # fmt: skip


def _corrected(schedule, sample, variance):
    del variance
    return PredictorCorrector(
        predictor=ReverseDiffusion(schedule=schedule),
        corrector=Langevin(schedule=schedule, snr=sample.corrector_snr),
    )


METHODS: Mapping[str, Method] = {
    "ancestral": lambda schedule, _, variance: Ancestral(schedule=schedule, variance=variance),
    "ddim": lambda schedule, sample, _: DDIM(schedule=schedule, eta=sample.eta),
    "euler": _plain(Euler),
    "euler_ancestral": _plain(EulerAncestral),
    "heun": _plain(Heun),
    "rk4": _plain(RK4),
    "dpm2": _plain(DPM2),
    "lms": _plain(LMS),
    "pndm": _plain(PLMS),
    "dpm_1": _plain(SingleStep, form=NOISE, order=1),
    "dpm_2": _plain(SingleStep, form=NOISE, order=2),
    "dpm_3": _plain(SingleStep, form=NOISE, order=3),
    "dpm_2m": _plain(Multistep, form=NOISE, order=2),
    "dpm_3m": _plain(Multistep, form=NOISE, order=3),
    "dpmpp_1": _plain(SingleStep, form=DATA, order=1),
    "dpmpp_2s": _plain(SingleStep, form=DATA, order=2),
    "dpmpp_3s": _plain(SingleStep, form=DATA, order=3),
    "dpmpp_2m": _plain(Multistep, form=DATA, order=2),
    "dpmpp_3m": _plain(Multistep, form=DATA, order=3),
    "dpmpp_3m_published": _plain(Multistep, form=DATA, order=3, published=True),
    "dpmpp_sde": _plain(SingleStepSDE),
    "dpmpp_2m_sde": _plain(MultistepSDE, order=2),
    "dpmpp_3m_sde": _plain(MultistepSDE, order=3),
    "unipc": _plain(UniPC, order=3),
    "deis": _plain(DEIS),
    "edm": _edm,
    "euler_maruyama": _plain(EulerMaruyama),
    "reverse_diffusion": _plain(ReverseDiffusion),
    "predictor_corrector": _corrected,
}
ADAPTIVE = "rk45"
"""The method that chooses its own steps: no grid, and no number of steps."""
_STEPPED = frozenset(("steps", "grid", "shift", "unroll"))
_CHURN = frozenset(("churn", "churn_low", "churn_high", "churn_noise"))
METHOD_KEYS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(METHODS, _STEPPED),
    "ddim": _STEPPED | {"eta"},
    "edm": _STEPPED | _CHURN,
    "predictor_corrector": _STEPPED | {"corrector_snr"},
    ADAPTIVE: frozenset(("tolerance",)),
}
"""Method -> the keys of `sample` that it uses, of those that some other method ignores. A method
that uses `grid` also uses the keys of that grid: see GRID_KEYS."""

RULES: Mapping[str, grids.Rule] = {
    "uniform": grids.leading,
    "quadratic": grids.quadratic,
    "trailing": grids.trailing,
    "linspace": grids.linspace,
}
"""Grids that choose among the steps of a table."""
_IN_TIME: Mapping[str, Grid] = {
    "uniform": grids.even_to_nearest,
    "quadratic": grids.squares,
    "trailing": grids.even,
    "linspace": grids.even_to_nearest,
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
    churn: Annotated[float, AtLeast(0), "S_churn of edm."] = 0.0
    churn_low: Annotated[float, AtLeast(0), "S_min of edm: the least sigma with churn."] = 0.0
    churn_high: Annotated[float, AtLeast(0), "S_max of edm: the greatest sigma with churn."] = 1e9
    churn_noise: Annotated[float, AtLeast(0), "S_noise of edm."] = 1.0
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


_GENERAL = {"steps", "grid", "unroll"}
"""Keys of all methods but the adaptive one, which its pictures of other methods still use."""
_METHODS_OWN = {name: keys - _GENERAL for name, keys in METHOD_KEYS.items()}


def grid(sample: DiffusionSampling, *, table: bool) -> Grid:
    """The grid of the settings, for a table or for continuous time."""
    if sample.grid in _IN_NOISE:
        found = _IN_NOISE[sample.grid](sample.rho)
    elif table:
        found = grids.on_table(RULES[sample.grid])
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
