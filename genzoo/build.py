"""The only table of names: what a config calls "ddpm", "unet" or "cifar10", and what it builds.

A new family, network, schedule or sampler is one row here. A section's keys and their types are
read off the builder's signature; `check.py` holds a config against them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ml_collections import FrozenConfigDict

from genzoo.config import Section, freeze, keys_of, unknown
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.data import cifar, embedded, folder, idx, tfds
from genzoo.data.source import Source, Spec
from genzoo.families import ddpm as ddpm_family
from genzoo.math import gaussian, prediction, schedules, weighting
from genzoo.nets.unet import unet
from genzoo.nets.unet_check import unet_problems
from genzoo.samplers import grids, predictor, steps
from genzoo.samplers.loop import Sampler
from genzoo.settings import SECTIONS, DataSettings, EvalSettings, SampleSettings
from genzoo.train import optimizer as optimizers
from genzoo.train.averages import Average

# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set known by name: (split, dir) -> source, and its spec before it is opened."""

    open: Callable[..., Source]
    spec: Spec


DATA: Mapping[str, DataRow] = {
    "fashion_mini": DataRow(
        open=lambda split, dir: embedded.open_fashion_mini(split), spec=idx.FASHION_SPEC
    ),
    "cifar10": DataRow(open=cifar.open_cifar10, spec=cifar.SPEC),
    "mnist": DataRow(open=idx.open_mnist, spec=idx.MNIST_SPEC),
    "fashion_mnist": DataRow(open=idx.open_fashion_mnist, spec=idx.FASHION_SPEC),
}


def open_source(data: DataSettings, split: str) -> Source:
    """The data set's split; reads, and where needed fetches, its files."""
    kind, _, rest = data.name.partition(":")
    fit = {"size": data.size, "channels": data.channels, "resize": data.resize}
    if kind == "folder":
        own = {"labels": data.labels, "holdout": data.holdout}
        return folder.open_folder(rest, split=split, **fit, **own)
    if kind == "tfds":
        return tfds.open_tfds(rest, split, directory=data.dir, **fit)
    return DATA[data.name].open(split, data.dir)


def example_shape(data: DataSettings) -> tuple[int, int, int]:
    """(H, W, C) of one example, without opening the data."""
    row = DATA.get(data.name)
    return row.spec.shape if row else (data.size, data.size, data.channels)


def class_count(data: DataSettings) -> int:
    """How many classes the data has, by names alone: no image is read."""
    row = DATA.get(data.name)
    if row:
        return len(row.spec.classes)
    if data.num_classes:
        return data.num_classes
    kind, _, rest = data.name.partition(":")
    if kind == "folder":
        return len(folder.class_names(rest, labels=data.labels))
    return len(tfds.class_names(rest, data.dir))


def settled(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with the number of classes in it where the model depends on it, so that the model
    can be built again without the data. Raises UserError where the data has no classes."""
    data = section(config, "data")
    if not config.family.get("conditional"):
        return config
    count = class_count(data)
    if not count:
        raise UserError(
            f"family.conditional = True, but {data.name} has no classes: set it to False, or sort "
            "the images into one folder per class."
        )
    if data.name in DATA or data.num_classes:
        return config
    return freeze(config.to_dict() | {"data": {**config.data, "num_classes": count}})


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """build(out_channels=, num_classes=, **section) -> Network; problems(shape, **section)."""

    build: Callable
    problems: Callable[..., list[str]]

    @property
    def keys(self) -> Section:
        """What may stand in the section `network`."""
        return keys_of(self.build, given=("out_channels", "num_classes"))


NETWORKS: Mapping[str, NetworkRow] = {"unet": NetworkRow(build=unet, problems=unet_problems)}


# --- DDPM -----------------------------------------------------------------------------------------

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


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a family's builder is handed beside its own section."""

    shape: tuple[int, int, int]
    num_classes: int
    network: Callable  # (out_channels, num_classes) -> Network
    sample: SampleSettings
    eval: EvalSettings


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
        network=parts.network(parts.shape[-1] * (1 + reverse.learned), classes),
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


def _ddpm_problems(config: FrozenConfigDict) -> list[str]:
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


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """build(parts=, **section) -> Family; problems(config) looks across sections."""

    build: Callable[..., Family]
    problems: Callable[[FrozenConfigDict], list[str]]

    @property
    def keys(self) -> Section:
        """What may stand in the section `family`."""
        return keys_of(self.build, given=("parts",))


FAMILIES: Mapping[str, FamilyRow] = {"ddpm": FamilyRow(build=ddpm, problems=_ddpm_problems)}
DECAYS = {
    "constant": optimizers.constant,
    "linear": optimizers.linear,
    "cosine": optimizers.cosine,
}


# --- building -------------------------------------------------------------------------------------


def section(config: FrozenConfigDict, name: str):
    """A section that is the same in every config, as its dataclass."""
    return SECTIONS[name](**config[name])


def family(config: FrozenConfigDict) -> Family:
    """The family that the config describes."""
    data = section(config, "data")
    own = {k: v for k, v in config.family.items() if k != "name"}
    net = {k: v for k, v in config.network.items() if k != "name"}
    build_network = NETWORKS[config.network.name].build
    parts = Parts(
        shape=example_shape(data),
        num_classes=class_count(data) if own.get("conditional") else 0,
        network=lambda channels, classes: build_network(
            out_channels=channels, num_classes=classes, **net
        ),
        sample=section(config, "sample"),
        eval=section(config, "eval"),
    )
    return FAMILIES[config.family.name].build(parts=parts, **own)


def optimizer(config: FrozenConfigDict) -> optimizers.Optimizer:
    """The optimizer that the config describes."""
    own = dict(config.optimizer)
    decay = DECAYS[own.pop("decay")]
    return optimizers.Optimizer(decay=decay, total_steps=config.train.steps, **own)


def averages(config: FrozenConfigDict) -> dict[str, Average]:
    """The averages that the config names."""
    return {name: Average(**values) for name, values in config.train.averages.items()}
