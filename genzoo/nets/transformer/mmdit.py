"""The settings of MM-DiT, which build the network."""

from dataclasses import dataclass, replace
from typing import Annotated

from genzoo.core.bounds import AtLeast, Limit, without_effect
from genzoo.core.conditions import Entries
from genzoo.core.errors import UserError
from genzoo.nets.interface import InnerMap, Network, network
from genzoo.nets.transformer.block import TransformerBlock
from genzoo.nets.transformer.counts import block_params
from genzoo.nets.transformer.joint import JointTransformer
from genzoo.nets.transformer.patches import grid_of
from genzoo.nets.transformer.settings import PatchSettings


@dataclass(frozen=True, kw_only=True)
class MMDiTSettings(PatchSettings):
    """MM-DiT. It needs a sequence as a condition with way = "attend".

    SD3 medium has depth 24 and width 1536 with 24 heads. For 16 latent channels, tokens of width
    4096 and a pooled vector of width 2048, neither with a null, it has 2,028,328,000 params besides
    its frozen table of positions. SD 3.5 medium has qk_norm and dual = 13 as well.
    """

    dual: Annotated[
        int,
        AtLeast(0),
        Limit(1_000),
        "Number of first blocks in which patches also attend to themselves alone (SD 3.5).",
    ] = 0
    table: Annotated[
        int,
        AtLeast(0),
        Limit(65_536),
        "Side, in patches, of the largest grid: its positions are stretched to base, and smaller "
        "grids take those in its middle (192 with base (64, 64) in SD3); 0 for none.",
    ] = 0

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = super().problems(shape)
        if self.dual > self.depth:
            problems.append(
                f"network.dual = {self.dual} must be at most network.depth = {self.depth}."
            )
        if self.positions == "learned":
            why, remedy = "with network.positions = 'learned'", "set that to 'sincos'"
            problems += without_effect(self, "network", ("table",), why, remedy)
        elif self.table and max(grid := grid_of(shape[:-1], self.patch)) > self.table:
            problems.append(
                f"network.table = {self.table} must be at least {max(grid)}, the longest side of "
                "the data in patches, or 0."
            )
        return problems

    @property
    def deep_vectors(self) -> bool:
        """Conditions that are vectors go through two layers, as SD3's pooled texts do."""
        return True

    def inner(self, block: int, key: str) -> InnerMap:
        """The patches' tokens after this many blocks; see `PatchSettings.inner`."""
        return replace(super().inner(block, key), output=0)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """As for every transformer, with one after the dual blocks and one before the last."""
        return 0, min(self.dual, self.depth - 1), self.depth - 1, self.depth

    def blocks_params(self, entries: Entries) -> int:
        """The number of params of all blocks."""
        own = self.block(entries)
        attention = own.pop("attention")
        total = 0
        for i in range(self.depth):
            dual = replace(attention, dual=i < self.dual)
            total += block_params(**own, attention=dual)
            total += block_params(**own, attention=attention, ends=i == self.depth - 1)
        return total

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """A network (x [B, *size, C], time [B], conditions) -> [B, *size, out_channels].

        out_channels, entries: as for DiT. Raises UserError without a sequence to attend to.
        """
        if not any(entry.way == "attend" for entry in entries.values()):
            raise UserError(
                "network.name = 'mmdit' has a stream of tokens, but no condition has way = "
                "'attend': give one, or use network.name = 'dit'."
            )
        own = self.block(entries)
        attention = own.pop("attention")

        def stream(dual: bool, ends: bool) -> TransformerBlock:
            return TransformerBlock(attention=replace(attention, dual=dual), ends=ends, **own)

        module = JointTransformer(
            stream=stream,
            dual=self.dual,
            boundaries=self.boundaries,
            table=self.table,
            **self.fields(out_channels, entries),
        )
        return network(module)

    def cross(self, entries: Entries) -> bool:
        """Whether blocks have cross-attention: tokens are a stream of their own."""
        return False
