"""The section `space`: whether a model is of the data or of latents of a frozen first stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from genzoo.core.bounds import AtLeast, Limit, OneOf, ignored
from genzoo.data.fields import Field, Image, Points, Signal

DATA, LATENT = "data", "latent"
KINDS: Mapping[int, type[Field]] = {1: Points, 2: Signal, 3: Image}
"""Axes of a latent -> the kind of data that it is to a network."""


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """The space in which the model works: systems/latent.py."""

    name: Annotated[
        str,
        OneOf((DATA, LATENT)),
        "data, or latent for standardised latents of the frozen model in frozen.first.workdir.",
    ] = DATA
    moments: Annotated[
        str,
        OneOf(("sampled", "mean")),
        "Whether latents are drawn from their distribution given an example, or are its mean.",
    ] = "sampled"
    examples: Annotated[
        int,
        AtLeast(0),
        Limit(10**9),
        "Training examples, evenly spaced, that standardise the latents; 0 for all.",
    ] = 0

    def problems(self) -> list[str]:
        """Keys without effect."""
        return ignored(self, "space", "name", {LATENT: {"moments", "examples"}})
