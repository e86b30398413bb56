"""Builder of the discrete diffusion family, and what can be wrong with its configs."""

from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.rows import Parts
from genzoo.config import unknown
from genzoo.core.contract import Family
from genzoo.families import ddpm as ddpm_family
from genzoo.math import gaussian, prediction, schedules, weighting
from genzoo.samplers import grids

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


def ddpm(
    *,
    parts: Parts,
    steps: int = 1000,
    schedule: str = "linear",
    zero_terminal: bool = False,
    prediction: str = "eps",
    variance: str = "fixed_large",
    weighting: str = "uniform",
    step_distribution: str = "uniform",
    objective: str = "simple",
    conditional: bool = False,
    label_dropout: float = 0.0,
) -> Family:
    """DDPM, improved DDPM and DDIM: families/ddpm.py. zero_terminal: whether the table is rescaled
    so that nothing is left of the data at its end (Lin et al. 2023)."""
    table = SCHEDULES[schedule](steps)
    if zero_terminal:
        table = schedules.rescaled_to_zero_terminal(table)
    reverse = VARIANCES[variance]
    return ddpm_family.DDPM(
        schedule=table,
        variance=reverse,
        weighting=WEIGHTINGS[weighting],
        step_distribution=STEP_DISTRIBUTIONS[step_distribution](steps=steps),
        objective=OBJECTIVES[objective],
        bound_steps=parts.eval.bound_steps,
        **sampling.shared(
            parts,
            conditional,
            label_dropout,
            prediction=PREDICTIONS[prediction],
            level=ddpm_family.steps_before,
            variance=reverse,
            table=table,
        ),
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
    }.items():
        found += unknown(key, config[key.split(".")[0]][key.split(".")[1]], table)
    found += sampling.problems(family, config.network, sample)
    if found:
        return found
    if family.steps < 2:
        return [f"family.steps = {family.steps} must be at least 2."]
    rule = sampling.RULES.get(sample.grid)
    wrong = rule and grids.problem(rule, family.steps, sample.steps or family.steps)
    if wrong and sample.method != sampling.ADAPTIVE:
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
    if family.zero_terminal and family.prediction not in ("v", "x_0"):
        found.append(
            f"family.zero_terminal = True leaves family.prediction = {family.prediction!r} nothing "
            "to tell the data by at the last step: take 'v' or 'x_0'."
        )
    return found
