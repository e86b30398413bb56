"""DiT: a transformer over patches with adaLN-Zero.

Peebles & Xie 2023 (Scalable diffusion models with transformers). SiT (Ma et al. 2024) is the same
network trained by flow matching.
"""

from dataclasses import dataclass

from genzoo.core.conditions import Entries
from genzoo.nets.interface import Network
from genzoo.nets.transformer.settings import PatchSettings


@dataclass(frozen=True, kw_only=True)
class DiTSettings(PatchSettings):
    """DiT. The defaults are DiT-B/2; a class label is one of its conditions.

    (depth, width, heads) are (12, 384, 6) for S, (12, 768, 12) for B, (24, 1024, 16) for L and
    (28, 1152, 16) for XL. With 1000 classes, latents of 32 x 32 x 4 and a learned variance, B/2 has
    130,315,808 params and XL/2 674,834,720. The authors also count their frozen table of positions:
    130,512,416 and 675,129,632.
    """

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """A network (x [B, *size, C], time [B], conditions) -> [B, *size, out_channels].

        out_channels: twice those of the data for a learned variance. entries: how each condition
            enters, by name; conditions without an entry are ignored. With a condition that is
            attended to, every block has cross-attention.
        """
        return self.made(out_channels, entries)
