"""The settings of cascades, which build the system."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo.builders import one_pass
from genzoo.builders.conditions import conditions_and_entries
from genzoo.builders.rows import Parts, Stage
from genzoo.core.bounds import Between, Each, Entries
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.families.denoising import Denoising
from genzoo.systems import cascade

_CALLED = "a denoising model with smaller images as a condition, such as sr_emoji"
STAGES = {
    name: Stage(
        capability=Denoising,
        called=_CALLED if number else "a denoising model of small images",
        same_shape=False,
        same_text=True,
        same_conditions=True,
        only={"models": tuple(range(number + 1, len(cascade.NAMES) + 1))} if number > 1 else {},
    )
    for number, name in enumerate(cascade.NAMES)
}
"""The models of a cascade."""


@dataclass(frozen=True, kw_only=True)
class CascadeSampling:
    """The keys of `sample` for a cascade. The models sample as the configs of their runs say."""

    noise: Annotated[
        tuple[float, ...],
        Entries(1, 3),
        Each(Between(0, 1)),
        "Level of the noise in the image that each model but the first enlarges: one for all, or "
        "one for each.",
    ] = (0.0,)

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        if len(self.noise) in (1, config.family.models - 1):
            return []
        return [
            f"sample.noise = {self.noise} has {len(self.noise)} levels for "
            f"{config.family.models - 1} enlarging models: give one for all, or one for each."
        ]


@dataclass(frozen=True, kw_only=True)
class CascadeSettings:
    """A cascade: systems/cascade.py."""

    models: Annotated[
        int,
        Between(2, len(cascade.NAMES)),
        "Number of models: frozen.base, frozen.second, and so on.",
    ] = 2

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        return one_pass.problems(config, "a cascade is put together")

    def build(self, parts: Parts) -> Family:
        """Builds the system. Raises UserError if two models do not fit each other."""
        conditions, _ = conditions_and_entries(parts.conditions, parts.fields, parts.frozen)
        names = cascade.NAMES[: self.models]
        levels = parts.sample.noise
        levels = levels * (self.models - 1) if len(levels) == 1 else levels
        shape = parts.frozen[names[0]].shape
        enlargers, problems = [], _missing(names[0], parts, set(conditions))
        for name, level in zip(names[1:], levels, strict=True):
            own = parts.frozen[name]
            low, wrong = _low(name, own, shape, set(conditions))
            if not wrong and level and not own.conditions[low].noise:
                wrong = [
                    f"sample.noise has a level of {level} for frozen.{name}, which was trained "
                    f"with conditions.{low}.noise = 0: leave it at 0."
                ]
            problems += wrong
            if not wrong:
                enlargers.append(cascade.Enlarger(family=own, low=low, level=level))
            shape = own.shape
        if shape != parts.shape:
            problems.append(
                f"frozen.{names[-1]} makes images of shape {shape}, but those of this run have "
                f"{parts.shape}: set data.size to theirs."
            )
        if problems:
            raise UserError(*problems)
        return cascade.Cascade(
            base=parts.frozen[names[0]], enlargers=tuple(enlargers), conditions=conditions
        )


def _missing(name: str, parts: Parts, known: set[str]) -> list[str]:
    """Conditions of the first model that the cascade lacks."""
    return [
        f"conditions.{other} is a condition of frozen.{name}, but not of this run: add it."
        for other in parts.frozen[name].conditions
        if other not in known
    ]


def _low(
    name: str, own: Denoising, before: tuple[int, ...], known: set[str]
) -> tuple[str, list[str]]:
    """(the condition that is the image before, problems). before: the shape of that image."""
    others = [other for other in own.conditions if other not in known]
    if len(others) != 1:
        named = f"has {', '.join(others)}" if others else "has none"
        return "", [
            f"frozen.{name} must have one condition besides those of this run, the smaller image, "
            f"but {named}: name a run trained with, for instance, conditions.low = dict(of='x', "
            "transform='downsample2'), or add the others to conditions."
        ]
    (low,) = others
    example = {"x": jnp.zeros((1, *own.shape))}
    made = jax.eval_shape(lambda batch: own.conditions[low].read(batch, {}), example)
    if made.shape[1:] != before:
        return "", [
            f"frozen.{name} enlarges images of shape {made.shape[1:]}, but the model before it "
            f"makes images of shape {before}: put models that fit one after another."
        ]
    return low, []
