"""Flow matching (Lipman et al. 2023) and rectified flow (Liu et al. 2023): a velocity is learned
that carries noise to data along the paths of a schedule.

    x_t = alpha(t) x_0 + sigma(t) eps,   velocity = alpha' x_0 + sigma' eps                     (1)
    loss = E |velocity_theta(x_t, t) - velocity|^2                                              (2)

Here t = 0 is the data and t = 1 the noise, the reverse of the papers; the straight path is alpha =
1 - t, sigma = t, with velocity eps - x_0. Noise and data are drawn independently, or paired within
the batch so that the sum of squared distances is least (Pooladian et al. 2023; Tong et al. 2024).
"""

from dataclasses import dataclass

from genzoo.core.types import Array, Key
from genzoo.families.continuous import ContinuousDenoising
from genzoo.math import coupling


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowMatching(ContinuousDenoising):
    """The family. paired: whether noise goes to the data of the batch that are nearest to it, all
    in all."""

    paired: bool = False

    def noise(self, key: Key, x_0: Array) -> Array:
        """Standard normal noise [B, ...], each example with its own or its nearest."""
        eps = super().noise(key, x_0)
        return eps[coupling.optimal_assignment(x_0, eps)] if self.paired else eps
