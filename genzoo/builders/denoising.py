"""What the settings of every denoising family have in common."""

from dataclasses import dataclass
from typing import Annotated

from genzoo.core.bounds import AtLeast, Below


@dataclass(frozen=True, kw_only=True)
class ConditionalSettings:
    """Of families that may be told a class."""

    conditional: Annotated[bool, "Whether the model is told the class of each example."] = False


@dataclass(frozen=True, kw_only=True)
class DenoisingSettings(ConditionalSettings):
    """Of families that denoise."""

    label_dropout: Annotated[
        float, AtLeast(0), Below(1), "Share of the labels left out in training, for guidance."
    ] = 0.0
