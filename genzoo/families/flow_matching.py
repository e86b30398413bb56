"""Flow matching (Lipman et al. 2023) and rectified flow (Liu et al. 2023).

The network learns a velocity that carries noise to data along the paths of a schedule.

    x_t = alpha(t) x_0 + sigma(t) eps,   velocity = alpha' x_0 + sigma' eps                     (1)
    loss = E |velocity_theta(x_t, t) - velocity|^2                                              (2)

Here t = 0 is the data and t = 1 the noise, the reverse of the papers. The straight path is alpha =
1 - t, sigma = t, with velocity eps - x_0. A network that predicts x_0 or eps is trained by (2) as
well: its velocity is (x_t - x_0) / t or (eps - x_t) / (1 - t), with the divisions bounded by
`weighting.bounded_velocity` and `prediction.bounded` (Li & He 2025).

Noise and data are drawn independently, or paired within the batch to minimise the sum of squared
distances (Pooladian et al. 2023; Tong et al. 2024). Pairing is for unconditional models: it ignores
the condition c, so that p(eps | c) is no longer N(0, I), where conditional sampling starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Likelihood, Player, Variables
from genzoo.core.types import Batch, Key, Keys, PerExample, Tree
from genzoo.families.continuous import by_noise, flow_likelihood
from genzoo.families.denoiser import weighted_error
from genzoo.families.denoising import Denoising
from genzoo.math import coupling
from genzoo.math.times import TimeDistribution
from genzoo.math.weighting import Weighting
from genzoo.samplers.ode_likelihood import OdeLikelihood


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowMatching(Denoising):
    """The flow matching family. Capabilities: Samples, Solves, Reconstructs, Likelihoods.

    times: how t is drawn in training. weighting: of the error (2) over time. ode: how the
    likelihood is integrated. paired: whether noise and data are paired within the batch by the
    optimal assignment, in evaluation too: the loss then depends on the size of the batch. It
    excludes conditions.
    """

    times: TimeDistribution
    weighting: Weighting
    ode: OdeLikelihood
    paired: bool

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        return Variables(params=self.initial_params(key, example))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"; if noise and data are paired, its loss couples the rows."""
        return {"model": Player(loss=self.loss, couples_rows=self.paired)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (2) per example [B]; metrics: the same by quarter of the logsnr range."""
        key, schedule, x_0 = context.key, self.schedule, context.batch["x"]
        conditions = self.gathered(context)
        eps = jax.random.normal(streams.named(key, "noise"), x_0.shape, x_0.dtype)
        if self.paired:
            eps = eps[coupling.optimal_assignment(x_0, eps, context.mask)]
        t = self.times.draw(streams.named(key, "time"), len(x_0), schedule).astype(x_0.dtype)
        seen = self.see(params, context, x_0, eps, t, conditions)
        losses = weighted_error(self.weighting, self.denoiser.prediction, schedule, seen)
        added, metrics = self.aligned(params, context, seen, conditions)
        return losses + added, Aux(metrics={**by_noise(losses, schedule, t), **metrics})

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The change of variables along the flow: `continuous.flow_likelihood`."""
        return flow_likelihood(self, self.ode, variables, batch, keys)
