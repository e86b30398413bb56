"""Settings of the generator and the critic, and their size."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Annotated

from genzoo.core.bounds import AtLeast, Between, Each, Entries, Limit, OneOf
from genzoo.core.conditions import Entry
from genzoo.core.size import Size
from genzoo.nets.gan.networks import Critic, Generator
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import check_ways
from genzoo.nets.parts.counts import added
from genzoo.nets.parts.layers import DTYPES


@dataclass(frozen=True)
class Adversaries:
    """generator: (z [B, latent], conditions) -> x [B, *size, C]. critic: (x, conditions) -> [B];
    its module `networks.BASIS` gives the features [B, `features`]."""

    generator: Network
    critic: Network
    features: int


@dataclass(frozen=True, kw_only=True)
class R3GANSettings:
    """R3GAN. The defaults are those for CIFAR-10: a generator of 20,732,160 params and a critic of
    20,683,776 without classes, with ten of them 20,781,952 and 21,280,512."""

    widths: Annotated[
        tuple[int, ...],
        Entries(1, 12),
        Each(Between(1, 65_536)),
        "Channels of each stage, the coarsest first; every stage doubles the sides of the one "
        "before.",
    ] = (768, 768, 768, 768)
    blocks: Annotated[int, AtLeast(1), Limit(1_000), "Residual blocks of a stage."] = 2
    expansion: Annotated[int, AtLeast(1), Limit(64), "Hidden channels of a block, in widths."] = 2
    group: Annotated[
        int, AtLeast(1), Limit(65_536), "Channels in a group of the 3 x 3 convolutions."
    ] = 16
    embedding: Annotated[
        int, AtLeast(1), Limit(65_536), "Width of the conditions in the generator's input."
    ] = 64
    dtype: Annotated[str, OneOf(DTYPES), "Type of the computations."] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for data of `shape` (*size, C), as sentences."""
        factor = 2 ** (len(self.widths) - 1)
        problems = []
        if any(side % factor for side in shape[:-1]):
            sides = " x ".join(map(str, shape[:-1]))
            problems.append(
                f"network.widths has {len(self.widths)} stages, which need sides divisible by "
                f"{factor}, but the data has {sides}: give fewer widths, or another size."
            )
        problems += [
            f"network.group = {self.group} does not divide the {width * self.expansion} hidden "
            f"channels of network.widths = {width}: change one of them."
            for width in dict.fromkeys(self.widths)
            if width * self.expansion % self.group
        ]
        return problems

    def size(
        self, x: tuple[int, ...], *, shape: tuple[int, ...], latent: int,
        entries: Mapping[str, Entry],
    ) -> Size:  # fmt: skip
        """The size of `build`; x is `shape`, that of the data."""
        del x
        axes, stages = len(shape) - 1, len(self.widths)
        base = prod(side // 2 ** (stages - 1) for side in shape[:-1])
        both = 0  # the residual blocks and changes of width of one network
        for i, width in enumerate(self.widths):
            hidden = self.expansion * width
            block = 2 * width * hidden + 3**axes * hidden * self.group + 2 * hidden
            both += self.blocks * block
            if i and width != self.widths[i - 1]:
                both += width * self.widths[i - 1]
        first, last, channels = self.widths[0], self.widths[-1], shape[-1]
        params = 2 * (both + base * first + last * channels)
        params += first * (latent + (self.embedding if entries else 0))
        params += first * (first if entries else 1)
        for entry in entries.values():
            params += added(entry, self.embedding) + added(entry, first)
        itemsize = DTYPES[self.dtype].itemsize
        return Size(params=params, layer=prod(shape[:-1]) * self.expansion * last * itemsize)

    def build(
        self, *, shape: tuple[int, ...], entries: Mapping[str, Entry], latent: int
    ) -> Adversaries:
        """The networks for data of `shape` (*size, C). Raises UserError if a condition cannot
        enter."""
        del latent  # the width of the generator's first argument
        check_ways(entries, ("add",))
        shared = dict(
            widths=self.widths, blocks=self.blocks, expansion=self.expansion, group=self.group,
            entries=entries, dtype=DTYPES[self.dtype],
        )  # fmt: skip
        generator = Generator(
            size=shape[:-1], channels=shape[-1], embedding=self.embedding, **shared
        )
        return Adversaries(
            generator=network(generator),
            critic=network(Critic(**shared)),
            features=self.widths[0],
        )
