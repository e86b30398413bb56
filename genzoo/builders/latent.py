"""Builds models in the latent space of a first stage: systems/latent.py."""

from collections.abc import Mapping
from dataclasses import replace

from ml_collections import FrozenConfigDict

from genzoo.builders.conditions import sources
from genzoo.builders.rows import Parts
from genzoo.builders.space import KINDS, LATENT, SpaceSettings
from genzoo.core.contract import Family
from genzoo.core.latents import Compresses
from genzoo.data.fields import Latents
from genzoo.data.latents import Moments
from genzoo.families.alignment import ENCODER
from genzoo.systems.latent import FIRST, Latent


def inside(parts: Parts) -> Parts:
    """The parts of the inner family: its datum is a latent, a real number without levels."""
    shape = parts.frozen[FIRST].latent_shape
    fields = {**parts.fields, "x": Latents(shape=shape)}
    return replace(parts, shape=shape, levels=False, fields=fields)


def around(inner: Family, parts: Parts, settings: SpaceSettings) -> Latent:
    """The family whose inner family is given. parts: of the data, as before `inside`."""
    return Latent(
        first=parts.frozen[FIRST],
        inner=inner,
        sampled=settings.moments == "sampled",
        encoded=isinstance(parts.fields["x"], Moments),
    )


def problems(config: FrozenConfigDict) -> list[str]:
    """Settings that do not suit latents, whichever first stage makes them."""
    sample, family, problems = config.sample, config.family, []
    if sample.get("clip", "none") != "none":
        problems.append(
            f"sample.clip = {sample.clip!r} clips the predicted data to [-1, 1], but latents have "
            "no bounds: set it to 'none'."
        )
    if sample.get("classifier"):
        problems.append(
            "sample.classifier sees noisy data, but with space.name = 'latent' the noise is in the "
            "latents: leave it empty."
        )
    if family.get("align") == ENCODER:
        problems.append(
            "family.align = 'encoder' compares with features of the data that the model denoises, "
            "but with space.name = 'latent' these are latents: leave it empty, or use 'average'."
        )
    if family.get("augment"):
        problems.append(
            f"family.augment = {family.augment} augments images, but with space.name = 'latent' "
            "the model sees latents: set it to 0."
        )
    if family.get("dequantise"):
        problems.append(
            "family.dequantise = True spreads the levels of pixels, but latents have none: set it "
            "to False."
        )
    problems += [
        f"conditions.{name} is made from x, which space.name = 'latent' replaces by latents: leave "
        "it out."
        for name, source in sources(config.conditions).items()
        if source == "x"
    ]
    return problems


def shape_problem(shape: tuple[int, ...], kinds: Mapping[str, tuple[type, ...]]) -> str:
    """Why networks or families cannot model latents of this shape; "" if they can. kinds: of data,
    by the key and the name of each."""
    kind = KINDS.get(len(shape))
    for what, able in kinds.items():
        if kind not in able:
            wanted = " or ".join(one.plural for one in able)
            return (
                f"frozen.first has latents of shape {shape}, but {what} is for {wanted}: use "
                "another, or a first stage with latents on a grid."
            )
    return ""


def misfits(
    where: str, first: Compresses, theirs: tuple[int, ...], ours: Mapping, name: str
) -> list[str]:
    """Why a first stage does not fit our data. where: its key and workdir. theirs: the shape of its
    data. ours: the fields of our data, whose name is given."""
    x = ours["x"]
    if not isinstance(x, Moments):
        if theirs == x.shape:
            return []
        return [
            f"{where} was trained on images of shape {theirs}, but data.name = {name!r} has "
            f"{x.shape}: use the same data in both."
        ]
    if first.latent_shape == x.latent_shape:
        return []
    return [
        f"{where} has latents of shape {first.latent_shape}, but data.name = {name!r} holds some "
        f"of {x.latent_shape}: name the run that encoded them."
    ]


def mismatches(key: str, ours: FrozenConfigDict, theirs: FrozenConfigDict) -> list[str]:
    """A sentence if a model that steers ours works in another space. key: the one that names the
    run of `theirs`."""

    def first(config: FrozenConfigDict) -> object:
        if config.space.name != LATENT:
            return None
        stage = config.frozen[FIRST]
        return [stage.weights, *(stage.config[k].to_dict() for k in ("family", "network", "train"))]

    if first(ours) == first(theirs):
        return []
    return [
        f"{key} works in another space than this model: name a run with the same space.name and "
        "frozen.first."
    ]
