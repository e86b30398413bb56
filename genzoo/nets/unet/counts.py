"""The size of a U-Net in closed form: the params and the largest array of its layers, in order."""

from collections.abc import Sequence

from genzoo.core.size import Size
from genzoo.nets.parts.counts import conv, dense, largest, norm, spatial_transformer
from genzoo.nets.unet.trunk import Trunk, heads_of


class Count:
    """The layers of a U-Net or of its encoder, as `Trunk` and `UNet` make them.

    size: the sides of the input. channels: those of the input. features: the width of the features
    of time and conditions. context: the width of tokens.
    """

    def __init__(
        self,
        trunk: Trunk,
        size: Sequence[int],
        channels: int,
        *,
        features: int,
        context: int = 0,
    ):
        self._trunk = trunk
        self._features, self._context, self._axes = features, context, len(size)
        self._itemsize = trunk.style.dtype.itemsize
        self.params, self.layer = 0, 0
        self.sides = tuple(side // trunk.patch for side in size)
        self.channels = trunk.entry
        source = channels * trunk.patch**self._axes
        self._conv(source, trunk.entry)
        self._skips = [trunk.entry]
        for level, width in enumerate(trunk.widths):
            for _ in range(trunk.blocks):
                self._block(self.channels, width, self._attends())
                self._skips.append(width)
            if level < len(trunk.widths) - 1:
                self.sides = tuple(-(-side // 2) for side in self.sides)
                self._resample(width)
                if trunk.pyramid:
                    self._conv(source, width)
                    source = width
                self._skips.append(width)
        self._block(self.channels, self.channels, trunk.middle)
        self._block(self.channels, self.channels, False)

    def ascend(self, out_channels: int, *, attention_up: bool) -> Size:
        """The whole U-Net with its decoder."""
        trunk = self._trunk
        for level, width in reversed(list(enumerate(trunk.widths))):
            for i in range(trunk.blocks + 1):
                attentive = self._attends() and (attention_up or i == trunk.blocks)
                self._block(self.channels + self._skips.pop(), width, attentive)
            if level:
                self.sides = tuple(2 * side for side in self.sides)
                self._resample(width)
        self.params += norm(self.channels)
        self._conv(self.channels, out_channels * trunk.patch**self._axes)
        return Size(params=self.params, layer=self.layer)

    def branch(self, hint: int, widths: Sequence[int]) -> Size:
        """The control branch instead, for hints with `hint` channels; see `ControlBranch`. widths:
        of the hint network."""
        axes, inner = self._axes, [w for width in widths for w in (width, width)][:-1]
        layers = zip([hint, *inner], [*inner, self._trunk.entry], strict=True)
        self.params += sum(conv(axes, *channels) for channels in layers)
        for channels in (*self._skips, self.channels):
            self.params += conv(axes, channels, channels, window=1)
        return Size(params=self.params, layer=self.layer)

    def _attends(self) -> bool:
        return min(self.sides) in self._trunk.attention

    def _made(self, channels: int) -> None:
        self.channels = channels
        self.layer = max(self.layer, largest(self.sides, channels, self._itemsize))

    def _conv(self, inputs: int, outputs: int) -> None:
        self.params += conv(self._axes, inputs, outputs)
        self._made(outputs)

    def _resample(self, channels: int) -> None:
        if self._trunk.resample.kind == "conv":
            self._conv(channels, channels)
        elif self._trunk.resample.kind == "block":
            self._block(channels, channels, False, resized=True)

    def _block(self, inputs: int, channels: int, attentive: bool, resized: bool = False) -> None:
        style, axes = self._trunk.style, self._axes
        width = 2 * channels if style.scale_shift else channels
        self.params += norm(inputs) + conv(axes, inputs, channels)
        self.params += self._features * width + style.condition_bias * width
        self.params += norm(channels) + conv(axes, channels, channels)
        if inputs != channels or (style.project and resized):
            self.params += conv(axes, inputs, channels, window=1)
        self._made(channels)
        if attentive:
            self._attention(channels)

    def _attention(self, channels: int) -> None:
        trunk = self._trunk
        if trunk.depth:
            self.params += spatial_transformer(channels, self._context, trunk.depth)
        else:
            self.params += norm(channels) + dense(channels, 3 * channels)
            self.params += dense(channels, channels)
        heads, positions = heads_of(channels, trunk.heads, trunk.head_width), 1
        for side in self.sides:
            positions *= side
        self.layer = max(self.layer, 4 * heads * positions**2)  # the logits are float32
