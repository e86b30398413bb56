"""JiT: a plain transformer over large patches of pixels.

Li & He 2025 (Back to basics: let denoising generative models denoise, arXiv 2511.13720). The data
lie near a manifold of low dimension, so that a network that predicts them may be narrower than its
patches; noise fills all dimensions of a patch. RMSNorm, SwiGLU, rotary positions and query-key
normalisation are those of language models (LLaMA).
"""

from dataclasses import dataclass
from typing import Annotated

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.conditions import Entries
from genzoo.nets.interface import Network
from genzoo.nets.parts import counts
from genzoo.nets.transformer.block import Norm
from genzoo.nets.transformer.settings import (
    MLPName,
    Patch,
    PatchSettings,
    QKNorm,
    TimeEmbedding,
    UsesRotary,
)


@dataclass(frozen=True, kw_only=True)
class JiTSettings(PatchSettings):
    """JiT. The defaults are JiT-B/16 for images of 256 x 256.

    (depth, width, heads, bottleneck, class_start) are (12, 768, 12, 128, 4) for B, (24, 1024, 16,
    128, 8) for L and (32, 1280, 16, 256, 10) for H. B/16 with 1000 classes has 131,123,712 params;
    the authors' 131,320,320 include a frozen table of positions. Their dropout acts within MLPs
    too; ours, like theirs, acts in the middle half of the blocks only.
    """

    patch: Patch = 16
    mlp: MLPName = "swiglu"
    qk_norm: QKNorm = True
    rotary: UsesRotary = True
    time_embedding: TimeEmbedding = "sinusoidal_slow"
    bottleneck: Annotated[
        int,
        AtLeast(0),
        Limit(65_536),
        "Rank of the linear embedding of patches; 0 for one map to the width.",
    ] = 128
    class_tokens: Annotated[
        int,
        AtLeast(0),
        Limit(65_536),
        "Number of tokens with the added conditions, which patches attend to; 0 for none.",
    ] = 32
    class_start: Annotated[
        int, AtLeast(0), Limit(1_000), "The first block that these tokens go through."
    ] = 4

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = super().problems(shape)
        if self.class_tokens and self.class_start >= self.depth:
            problems.append(
                f"network.class_start = {self.class_start} must be below network.depth = "
                f"{self.depth}: lower it, or set network.class_tokens = 0."
            )
        if not self.class_tokens and self.class_start != type(self).class_start:
            problems.append(
                f"network.class_start = {self.class_start} has no effect with "
                "network.class_tokens = 0: leave it out."
            )
        return problems

    @property
    def norm(self) -> Norm:
        """The norms of the blocks."""
        return Norm(rms=True)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """As for every transformer, with one where the class tokens join."""
        return (0, self.class_start, self.depth) if self.class_tokens else (0, self.depth)

    @property
    def rates(self) -> tuple[float, ...]:
        """The dropout of every block."""
        middle = range(self.depth // 4, self.depth // 4 * 3)
        return tuple(self.dropout * (i in middle) for i in range(self.depth))

    def entry_params(self, inputs: int) -> int:
        """The params of the embedding of patches of `inputs` numbers, and of the class tokens."""
        tokens = self.class_tokens * self.width
        if not self.bottleneck:
            return tokens + counts.dense(inputs, self.width)
        return tokens + inputs * self.bottleneck + counts.dense(self.bottleneck, self.width)

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """A network (x [B, *size, C], time [B], conditions) -> [B, *size, out_channels].

        out_channels, entries: as for DiT.
        """
        return self.made(
            out_channels,
            entries,
            bottleneck=self.bottleneck,
            class_tokens=self.class_tokens,
            class_start=self.class_start,
        )
