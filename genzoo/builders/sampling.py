"""What the sampling of denoising families is built from: methods, grids, clipping, guidance; and
what can be wrong with it."""

from collections.abc import Callable, Mapping
from functools import partial

from genzoo.builders.rows import Parts
from genzoo.config import unknown
from genzoo.core.conditions import Condition, Entry, field
from genzoo.families.denoising import Denoiser, Guidance, OfTime, thousandths, unscaled
from genzoo.math import exponential, gaussian
from genzoo.math.prediction import Kind
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
from genzoo.settings import DiffusionSampling

CLIPPINGS = {
    "none": predictor.unchanged,
    "clip": predictor.clipped,
    "dynamic": predictor.dynamic_threshold(),
}

DATA, NOISE = exponential.DATA, exponential.NOISE
Method = Callable[[Schedule, DiffusionSampling, gaussian.ReverseVariance], Step]


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
        rescale=sample.guidance_rescale,
        low=sample.guidance_low,
        high=sample.guidance_high,
        classifier_scale=sample.classifier_scale,
    )


def told(
    parts: Parts, conditional: bool, label_dropout: float
) -> tuple[dict[str, Condition], dict[str, Entry]]:
    """(what a model is told, how it enters the network)."""
    if not conditional:
        return {}, {}
    label = Condition(read=field("label"), dropout=label_dropout)
    return {"label": label}, {"label": Entry(kind="class", size=parts.num_classes)}


def shared(
    parts: Parts,
    conditional: bool,
    label_dropout: float,
    *,
    prediction: Kind,
    level: OfTime = thousandths,
    input_scale: OfTime = unscaled,
    entries: Mapping[str, Entry] | None = None,
    variance: gaussian.ReverseVariance = gaussian.FIXED_SMALL,
    table: TableSchedule | None = None,
) -> dict:
    """What every denoising family is given alike. prediction, level, input_scale: of its
    `Denoiser`. entries: of conditions that are the family's own. table: where its schedule is
    one."""
    conditions, ways = told(parts, conditional, label_dropout)
    channels = parts.shape[-1] * (1 + variance.learned)
    return {
        "denoiser": Denoiser(
            network=parts.network(out_channels=channels, entries={**ways, **(entries or {})}),
            prediction=prediction,
            told=level,
            input_scale=input_scale,
            learns_variance=variance.learned,
        ),
        "conditions": conditions,
        "shape": parts.shape,
        "sampler": sampler(parts.sample, variance, table=table),
        "clipping": CLIPPINGS[parts.sample.clip],
        "guidance": guidance(parts.sample),
        "levels": parts.levels,
    }


def problems(family: Mapping, network: Mapping, sample: Mapping) -> list[str]:
    """What is wrong with the sampling settings of a family, whatever its schedule."""
    found = unknown("sample.method", sample.method, {*METHODS, ADAPTIVE})
    found += unknown("sample.grid", sample.grid, GRIDS)
    found += unknown("sample.clip", sample.clip, CLIPPINGS)
    if not 0 <= sample.eta <= 1:
        found.append(f"sample.eta = {sample.eta} must be between 0 (deterministic) and 1 (DDPM).")
    if not 0 <= sample.guidance_low <= sample.guidance_high <= 1:
        found.append(
            f"sample.guidance_low = {sample.guidance_low} and sample.guidance_high = "
            f"{sample.guidance_high} must be times with 0 <= low <= high <= 1."
        )
    dropped = family.get("label_dropout", 0.0)
    if not 0 <= dropped < 1:
        found.append(f"family.label_dropout = {dropped} must be in [0, 1).")
    if dropped and not family.conditional:
        found.append(f"family.label_dropout = {dropped} needs family.conditional = True.")
    if sample.guidance_scale != 1 and not (sample.guide or (family.conditional and dropped)):
        found.append(
            f"sample.guidance_scale = {sample.guidance_scale} needs a null class that was trained: "
            "set family.conditional = True and family.label_dropout above 0, name a weaker model "
            "in sample.guide, or leave it at 1."
        )
    return found
