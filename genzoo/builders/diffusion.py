"""Builders of the diffusion families, and what can be wrong with their configs."""

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.config import unknown
from genzoo.core.contract import Family
from genzoo.families import ddpm as ddpm_family
from genzoo.math import gaussian, prediction, schedules, weighting
from genzoo.samplers import grids, predictor, steps
from genzoo.samplers.loop import Sampler

SCHEDULES = {
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
}
PREDICTIONS = {
    "eps": prediction.EPS,
    "x_0": prediction.X_0,
    "v": prediction.V,
    "score": prediction.SCORE,
    "velocity": prediction.VELOCITY,
}
VARIANCES = {
    "fixed_small": gaussian.FIXED_SMALL,
    "fixed_large": gaussian.FIXED_LARGE,
    "learned": gaussian.LEARNED,
    "learned_range": gaussian.LEARNED_RANGE,
}
WEIGHTINGS = {
    "uniform": weighting.UNIFORM,
    "min_snr": weighting.min_snr(),
    "p2": weighting.p2(),
}
STEP_DISTRIBUTIONS = {"uniform": weighting.UniformSteps, "loss_aware": weighting.LossAwareSteps}
OBJECTIVES = {
    "simple": ddpm_family.simple,
    "vlb": ddpm_family.vlb,
    "hybrid": ddpm_family.hybrid,
}
CLIPPINGS = {
    "none": predictor.unchanged,
    "clip": predictor.clipped,
    "dynamic": predictor.dynamic_threshold(),
}
GRIDS = {
    "uniform": grids.uniform,
    "quadratic": grids.quadratic,
    "trailing": grids.trailing,
    "linspace": grids.linspace,
}
METHODS = {
    "ancestral": lambda table, variance, sample: steps.Ancestral(schedule=table, variance=variance),
    "ddim": lambda table, variance, sample: steps.DDIM(schedule=table, eta=sample.eta),
}


def ddpm(
    *,
    parts: Parts,
    steps: int = 1000,
    schedule: str = "linear",
    prediction: str = "eps",
    variance: str = "fixed_large",
    weighting: str = "uniform",
    step_distribution: str = "uniform",
    objective: str = "simple",
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """DDPM, improved DDPM and DDIM: families/ddpm.py."""
    table = SCHEDULES[schedule](steps)
    reverse = VARIANCES[variance]
    classes = parts.num_classes if conditional else 0
    sample = parts.sample
    visited = GRIDS[sample.grid](steps, sample.steps or steps)
    sampler = Sampler(
        step=METHODS[sample.method](table, reverse, sample),
        times=grids.times(steps, visited),
        unroll=sample.unroll,
    )
    return ddpm_family.DDPM(
        network=parts.network(
            out_channels=parts.shape[-1] * (1 + reverse.learned), num_classes=classes
        ),
        shape=parts.shape,
        schedule=table,
        prediction=PREDICTIONS[prediction],
        variance=reverse,
        weighting=WEIGHTINGS[weighting],
        step_distribution=STEP_DISTRIBUTIONS[step_distribution](steps=steps),
        objective=OBJECTIVES[objective],
        sampler=sampler,
        clipping=CLIPPINGS[sample.clip],
        num_classes=classes,
        label_dropout=label_dropout,
        guidance_scale=sample.guidance_scale,
        bound_steps=parts.eval.bound_steps,
    )


def ddpm_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of DDPM."""
    family, sample = config.family, config.sample
    found = []
    for key, table in {
        "family.schedule": SCHEDULES,
        "family.prediction": PREDICTIONS,
        "family.variance": VARIANCES,
        "family.weighting": WEIGHTINGS,
        "family.step_distribution": STEP_DISTRIBUTIONS,
        "family.objective": OBJECTIVES,
        "sample.method": METHODS,
        "sample.grid": GRIDS,
        "sample.clip": CLIPPINGS,
    }.items():
        found += unknown(key, config[key.split(".")[0]][key.split(".")[1]], table)
    if found:
        return found
    if family.steps < 2:
        return [f"family.steps = {family.steps} must be at least 2."]
    wrong = grids.problem(GRIDS[sample.grid], family.steps, sample.steps or family.steps)
    if wrong:
        found.append(f"sample.steps = {sample.steps} with sample.grid = {sample.grid!r}: {wrong}")
    if not 0 <= config.eval.bound_steps < family.steps:
        found.append(
            f"eval.bound_steps = {config.eval.bound_steps} must be between 0 (every step) and "
            f"{family.steps - 1}, the steps of the bound."
        )
    learned = VARIANCES[family.variance].learned
    if learned and family.objective == "simple":
        found.append(
            f"family.variance = {family.variance!r} gets no gradient from family.objective = "
            "'simple': take 'hybrid' or 'vlb', or a fixed variance."
        )
    if not learned and family.objective == "hybrid":
        found.append(
            "family.objective = 'hybrid' teaches a learned variance: set family.variance = "
            "'learned_range', or take family.objective = 'simple'."
        )
    if family.label_dropout and not (family.conditional and config.network.get("null_class", True)):
        found.append(
            f"family.label_dropout = {family.label_dropout} needs family.conditional = True and "
            "a network with a null class (network.null_class = True)."
        )
    if not 0 <= sample.eta <= 1:
        found.append(f"sample.eta = {sample.eta} must be between 0 (deterministic) and 1 (DDPM).")
    if not 0 <= family.label_dropout < 1:
        found.append(f"family.label_dropout = {family.label_dropout} must be in [0, 1).")
    if sample.guidance_scale != 1 and not (family.conditional and family.label_dropout):
        found.append(
            f"sample.guidance_scale = {sample.guidance_scale} needs a null class that was trained: "
            "set family.conditional = True and family.label_dropout above 0, or leave it at 1."
        )
    return found
