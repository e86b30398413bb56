"""The agreement of reconstructions with test images, which `--mode=eval` measures on request."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.builders.sampling import ADAPTIVE
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.data.fields import Image
from genzoo.evaluate.distances import FeatureSet, frechet_distance
from genzoo.evaluate.features import vgg16
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.evaluate.features.table import NETWORKS
from genzoo.evaluate.reconstructions import RFD, averaged, parsed
from genzoo.evaluate.similarity import psnr
from genzoo.experiment import Experiment, require, require_kind
from genzoo.modes.reconstruct import pairs
from genzoo.modes.rulers import features, fitting, noise, read

_TIMES = ("grid", "steps", "shift", "rho", "last_sigma", "steps_offset")
"""Keys of `sample` on which the times of a sampler depend."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What the measures of eval.reconstructions need. networks: of rfd, by name."""

    lpips: vgg16.Lpips | None
    networks: Mapping[str, FeatureNetwork]


def check(experiment: Experiment) -> Judges:
    """The judges. Raises UserError unless eval.reconstructions can be measured for this run."""
    config, settings = experiment.config, experiment.config.eval
    require(experiment.family, config.family.name, "reconstruct", "eval", "eval.reconstructions")
    require_kind(experiment, (Image,), "eval", "measures reconstructions of images")
    named = parsed(settings.reconstructions)
    names = dict.fromkeys(one.network for one in named if one.name == RFD)
    if names and settings.count == 1:
        raise UserError(f"eval.count = 1, but a Fréchet distance ({RFD}) takes at least 2 images.")
    return Judges(
        lpips=vgg16.open_lpips() if any(one.name == "lpips" for one in named) else None,
        networks={
            name: fitting(
                NETWORKS[name].open(settings.features, settings.resize),
                experiment,
                "eval.reconstructions",
            )
            for name in names
        },
    )


def measure(experiment: Experiment, judges: Judges, variables: Variables, step: int) -> dict:
    """Name of a measure -> its numbers, with their protocol. judges: of `check`."""
    settings = experiment.config.eval
    source = experiment.open(settings.split)
    count = min(settings.count or len(source), len(source))
    pixels = {"mean_squared_error": [], "ssim": [], "lpips": []}
    sets = {name: (FeatureSet(keep=False), FeatureSet(keep=False)) for name in judges.networks}
    for part in pairs(experiment, variables, {}, source, count):
        for name in ("mean_squared_error", "ssim"):
            pixels[name].append(part[name])
        if judges.lpips:
            pixels["lpips"].append(judges.lpips.distances(part["copy"], part["original"]))
        for name, (copies, originals) in sets.items():
            copies.add(*judges.networks[name].outputs(part["copy"]))
            originals.add(*judges.networks[name].outputs(part["original"]))
    each = {name: np.concatenate(parts) for name, parts in pixels.items() if parts}
    each["psnr"] = psnr(each["mean_squared_error"].astype(np.float64))
    common = {
        "n": count,
        "data": experiment.config.data.name,
        "split": settings.split,
        "weights": settings.weights,
        "step": step,
        "seed": settings.seed,
        **_inversion(experiment.config.sample),
    }
    report = {}
    for one in parsed(settings.reconstructions):
        if one.name == RFD:
            network = judges.networks[one.network]
            copies, originals = sets[one.network]
            others = read(experiment.open(_other(settings.split)), count)
            uniform = ({"x": x} for x in noise(experiment.shape, count))
            numbers = frechet_distance(copies, originals)
            for end, records in (("floor", others), ("ceiling", uniform)):
                found = features(network, records, keep=False)
                numbers[end] = {**frechet_distance(found, originals), "n": found.moments.count}
            protocol = {**common, **network.protocol, "reference": source.identity()}
        else:
            numbers, protocol = averaged(each[one.name]), common
            if one.name == "lpips":
                own = judges.lpips
                protocol = {**common, "network": own.name, "version": own.version, "hash": own.hash}
        report[f"{one}@{count}"] = {**numbers, "protocol": protocol}
    return report


def _inversion(sample: FrozenConfigDict) -> dict:
    """What reconstructions by DDIM inversion depend on; nothing for a family without a solver."""
    if "method" not in sample:
        return {}
    times = () if sample.method == ADAPTIVE else _TIMES  # else its own even times
    return {"inversion": {key: sample[key] for key in (*times, "clip") if key in sample}}


def _other(split: str) -> str:
    """The split whose images set the floor: real images other than the originals."""
    return "test" if split == "train" else "train"
