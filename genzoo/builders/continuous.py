"""Builders of the families of continuous time, and what can be wrong with their configs."""

from collections.abc import Callable, Mapping
from functools import partial

from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.ddpm import PREDICTIONS, SCHEDULES
from genzoo.builders.rows import Parts
from genzoo.config import unknown
from genzoo.core.conditions import Entry
from genzoo.core.contract import Family
from genzoo.data.augment import Augmentation
from genzoo.families import classifier as classifier_family
from genzoo.families import denoising, vdm
from genzoo.families import edm as edm_family
from genzoo.families import flow_matching as flow_family
from genzoo.families import score_sde as sde_family
from genzoo.math import continuous, monotone, precondition, times, weighting
from genzoo.math.schedules import Schedule
from genzoo.samplers.ode_likelihood import TRACES, OdeLikelihood

PROCESSES: Mapping[str, Callable[..., Schedule]] = {
    "vp": continuous.VariancePreserving,
    "sub_vp": continuous.SubVariancePreserving,
    "ve": continuous.VarianceExploding,
}
TOLD: Mapping[str, denoising.OfTime] = {
    "time": denoising.thousandths,
    "log_noise": sde_family.log_noise,
}
# A weighting together with the times that suit it.
OBJECTIVES: Mapping[str, tuple[weighting.Weighting, times.TimeDistribution]] = {
    "simple": (weighting.SCORE_MATCHING, times.UniformTimes()),
    "likelihood": (weighting.LIKELIHOOD, times.UniformTimes()),
    "likelihood_importance": (weighting.SCORE_MATCHING, times.LikelihoodWeighted()),
}
PATHS: Mapping[str, Callable[..., Schedule]] = {
    "straight": continuous.Straight,
    "cosine": continuous.Cosine,
    "vp": continuous.VariancePreserving,
}
# Of bounded noise: guidance on any other schedule asks at the same noise level of these.
NOISE_LEVELS: Mapping[str, Callable[[], Schedule]] = {
    **PATHS,
    **{f"ddpm_{name}": partial(table, 1000) for name, table in SCHEDULES.items()},
}
FLOW_WEIGHTINGS: Mapping[str, weighting.Weighting] = {
    "velocity": weighting.VELOCITY,
    "bounded_velocity": weighting.bounded_velocity(),
    "uniform": weighting.UNIFORM,
}
TIMES: Mapping[str, Callable[[float, float], times.TimeDistribution]] = {
    "uniform": lambda mean, deviation: times.UniformTimes(),
    "logit_normal": lambda mean, deviation: times.LogitNormalTimes(mean=mean, deviation=deviation),
    "cosine_map": lambda mean, deviation: times.CosineMapTimes(),
}
LEARNED: Mapping[str, Callable[[float, float], vdm.LearnedGamma]] = {
    "fixed": lambda low, high: vdm.LearnedGamma(
        start=lambda key: {}, gamma=lambda params, t: continuous.linear_gamma(low, high)(t)
    ),
    "linear": lambda low, high: vdm.LearnedGamma(
        start=partial(monotone.init_linear, gamma_min=low, gamma_max=high), gamma=monotone.linear
    ),
    "monotone": lambda low, high: vdm.LearnedGamma(
        start=partial(monotone.init_monotone, gamma_min=low, gamma_max=high),
        gamma=monotone.monotone,
    ),
}


_AUGMENTED = Entry(kind="vector", size=Augmentation.labels, null=False)


def _flow(parts: Parts, end: float | None = None) -> OdeLikelihood:
    score = parts.eval
    trace = TRACES[score.trace](score.probes)
    return OdeLikelihood(trace=trace, rtol=score.tolerance, atol=score.tolerance, end=end)


def score_sde(
    *,
    parts: Parts,
    process: str = "vp",
    sigma_min: float = 0.02,
    sigma_max: float = 100.0,
    prediction: str = "eps",
    objective: str = "simple",
    told: str = "time",
    dequantise: bool = False,
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """Score SDEs: families/score_sde.py. sigma_min, sigma_max: of the process ve; the published
    0.01 and 50 are for data in [0, 1]. dequantise: whether the levels of the training data are
    spread over their bins, as they are where the likelihood is measured."""
    ends = {"sigma_min": sigma_min, "sigma_max": sigma_max} if process == "ve" else {}
    chosen, drawn = OBJECTIVES[objective]
    return sde_family.ScoreSDE(
        schedule=PROCESSES[process](**ends),
        weighting=chosen,
        times=drawn,
        dequantises=dequantise and parts.levels,
        ode=_flow(parts, end=sde_family.LIKELIHOOD_END),
        **sampling.shared(
            parts,
            conditional,
            label_dropout,
            prediction=PREDICTIONS[prediction],
            level=TOLD[told],
        ),
    )


def edm(
    *,
    parts: Parts,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    data_deviation: float = 0.5,
    noise_mean: float = -1.2,
    noise_deviation: float = 1.2,
    augment: float = 0.0,
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """EDM: families/edm.py. noise_mean, noise_deviation: of ln sigma in training. augment: the
    probability of each augmentation, 0 for none."""
    return edm_family.EDM(
        schedule=continuous.LinearNoise(sigma_min=sigma_min, sigma_max=sigma_max),
        weighting=weighting.UNIFORM,
        times=times.LogNormalNoise(mean=noise_mean, deviation=noise_deviation),
        augmentation=Augmentation(p=augment) if augment else None,
        ode=_flow(parts),
        **sampling.shared(
            parts,
            conditional,
            label_dropout,
            prediction=precondition.preconditioned(data_deviation),
            level=precondition.noise_level,
            input_scale=precondition.input_scale(data_deviation),
            entries={edm_family.AUGMENTATION: _AUGMENTED} if augment else {},
        ),
    )


def flow_matching(
    *,
    parts: Parts,
    path: str = "straight",
    prediction: str = "velocity",
    weighting: str = "velocity",
    times_drawn: str = "uniform",
    times_mean: float = 0.0,
    times_deviation: float = 1.0,
    shift: float = 1.0,
    paired: bool = False,
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """Flow matching: families/flow_matching.py. times_mean, times_deviation: of logit_normal.
    shift: of times towards the noise, for large images. paired: optimal transport in a batch."""
    drawn = TIMES[times_drawn](times_mean, times_deviation)
    return flow_family.FlowMatching(
        schedule=PATHS[path](),
        weighting=FLOW_WEIGHTINGS[weighting],
        times=drawn if shift == 1 else times.Shifted(inner=drawn, shift=shift),
        paired=paired,
        ode=_flow(parts),
        **sampling.shared(
            parts, conditional, label_dropout, prediction=PREDICTIONS[prediction]
        ),
    )


def variational(
    *,
    parts: Parts,
    schedule: str = "linear",
    gamma_min: float = -13.3,
    gamma_max: float = 5.0,
    prediction: str = "eps",
    steps: int = 0,
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """Variational diffusion: families/vdm.py. schedule: fixed, linear (two learned ends), monotone
    (a learned network). gamma_min, gamma_max: the ends at the start. steps: of the discrete bound,
    0 for continuous time."""
    return vdm.VDM(
        schedule=LEARNED[schedule](gamma_min, gamma_max),
        steps=steps,
        draws=parts.eval.draws,
        **sampling.shared(
            parts,
            conditional,
            label_dropout,
            prediction=PREDICTIONS[prediction],
            level=vdm.rescaled_gamma(gamma_min, gamma_max),
        ),
    )


def classifier(*, parts: Parts, noisy: bool = False, process: str = "vp") -> Family:
    """A classifier: families/classifier.py. noisy: at every noise level of the process."""
    return classifier_family.Classifier(
        network=parts.network(num_classes=parts.num_classes),
        noisy=noisy,
        schedule=NOISE_LEVELS[process](),
        times=times.UniformTimes(),
    )


# --- what can be wrong ----------------------------------------------------------------------------


def _found(
    config: FrozenConfigDict, tables: Mapping[str, Mapping], *, label_of_one: bool = False
) -> list[str]:
    """label_of_one: whether the network is told numbers of order 1, and not of order 1000."""
    found = []
    unfit = "fourier" if label_of_one else "fourier_noise_level"
    if config.network.get("time_embedding") == unfit:
        other = "fourier_noise_level" if label_of_one else "fourier"
        found.append(
            f"network.time_embedding = {unfit!r} does not suit what {config.family.name} tells the "
            f"network: take {other!r} or 'sinusoidal'."
        )
    for key, table in tables.items():
        found += unknown(f"family.{key}", config.family[key], table)
    if "trace" in config.eval:
        found += unknown("eval.trace", config.eval.trace, TRACES)
    found += sampling.problems(config.family, config.network, config.sample)
    if config.sample.steps < 1 and config.sample.method != sampling.ADAPTIVE:
        found.append(
            f"sample.steps = {config.sample.steps}: continuous time has no table to take all steps "
            "of, so it must be at least 1."
        )
    return found


def _ordered(config: FrozenConfigDict, low: str, high: str, least: float) -> list[str]:
    values = config.family[low], config.family[high]
    if least < values[0] < values[1]:
        return []
    return [f"family.{low} = {values[0]} must be above {least} and below family.{high}."]


def score_sde_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a score SDE."""
    tables = {"process": PROCESSES, "prediction": PREDICTIONS, "objective": OBJECTIVES}
    found = _found(config, {**tables, "told": TOLD})
    return found + _ordered(config, "sigma_min", "sigma_max", 0)


def edm_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of EDM."""
    found = _found(config, {}, label_of_one=True)
    found += _ordered(config, "sigma_min", "sigma_max", 0)
    family = config.family
    if not 0 <= family.augment <= 1:
        found.append(f"family.augment = {family.augment} is a probability: 0 to 1.")
    for key in ("data_deviation", "noise_deviation"):
        if family[key] <= 0:
            found.append(f"family.{key} = {family[key]} must be above 0.")
    return found


def flow_matching_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of flow matching."""
    tables = {"path": PATHS, "prediction": PREDICTIONS, "weighting": FLOW_WEIGHTINGS}
    found = _found(config, {**tables, "times_drawn": TIMES})
    family = config.family
    if family.path in ("straight", "cosine") and family.prediction in ("eps", "score"):
        found.append(
            f"family.prediction = {family.prediction!r} says nothing of the data at t = 1, where "
            f"family.path = {family.path!r} has none: take 'velocity', 'v' or 'x_0'."
        )
    for key in ("shift", "times_deviation"):
        if config.family[key] <= 0:
            found.append(f"family.{key} = {config.family[key]} must be above 0.")
    return found


def variational_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a variational diffusion model."""
    found = _found(config, {"schedule": LEARNED, "prediction": PREDICTIONS})
    found += _ordered(config, "gamma_min", "gamma_max", float("-inf"))
    if config.family.steps < 0:
        found.append(f"family.steps = {config.family.steps} must be 0 (continuous) or more.")
    return found


def classifier_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a classifier."""
    return unknown("family.process", config.family.process, NOISE_LEVELS)
