"""Principal component analysis (Pearson 1901; probabilistic: Tipping & Bishop 1999).

The best linear autoencoder in closed form, and a Gaussian model of the data with an exact
likelihood (math.pca). It is fitted in one pass over the data, without gradient steps.

The reconstruction is the orthogonal projection mean + U U^T (x - mean), which is optimal among
linear ones; the posterior mean of the probabilistic model would shrink it towards the mean.

For documents x stands for the logarithms of the word counts, scaled to unit length (math.counts):
latent semantic analysis (Deerwester et al. 1990) with the mean subtracted.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.conditions import Conditions
from genzoo.core.contract import Aux, Context, Likelihood, Player, Report, Variables
from genzoo.core.errors import UserError
from genzoo.core.types import (
    Batch,
    Examples,
    Floats,
    Key,
    Keys,
    PerExample,
    Tree,
    Vectors,
    mean_per_example,
)
from genzoo.math import pca

_ROUNDING = (2 / 255) ** 2 / 12
"""The variance of the rounding error of 256 levels in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PCA:
    """The PCA family.

    Capabilities: Fits, Samples, Reconstructs, Encodes, Decodes, Likelihoods, Reports.

    components: q, their number. shape: of one example, (H, W, C) or (V,), with D values. inputs:
    data [B, D] -> x [B, D]. scored: what the likelihood is that of, if not the data. Raises
    UserError for fewer than one component and for more than D.
    """

    components: int
    shape: tuple[int, ...]
    inputs: Callable[[Vectors], Vectors] = lambda x: x
    scored: str = ""

    def __post_init__(self):
        size = int(np.prod(self.shape))
        if not 0 < self.components <= size:
            raise UserError(
                f"family.components is {self.components}: it must be between 1 and {size}, the "
                "number of values in an example."
            )

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Zeros in the shapes of the params that `fit` returns."""
        size = int(np.prod(self.shape))
        zeros = pca.Probabilistic(
            mean=jnp.zeros(size),
            components=jnp.zeros((size, self.components)),
            variances=jnp.zeros(self.components),
            noise_variance=jnp.zeros(()),
        )
        return Variables(params=zeros._asdict())

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """The maximum-likelihood model, computed in float64 and stored as float32 params.

        The variance in any direction is at least that of rounding to 256 levels: otherwise the
        likelihood would be unbounded if no direction is left over for the noise or if some pixels
        are constant. Raises UserError for identical examples.
        """
        moments = pca.Moments.none(int(np.prod(self.shape)))
        for batch in batches:
            moments = moments.with_batch(self._flat(np.asarray(batch["x"])))
        principal = pca.principal_components(moments, self.components)
        if not principal.rank:
            raise UserError(
                f"The {moments.count} training examples are identical: there is nothing to fit."
            )
        noise = max(principal.noise_variance, _ROUNDING)
        variances = np.maximum(principal.variances, noise)
        model = pca.Probabilistic(principal.mean, principal.components, variances, noise)
        return Variables(
            params={name: jnp.asarray(v, jnp.float32) for name, v in model._asdict().items()}
        )

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model", whose loss is only measured."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The mean squared error of the reconstruction per example [B].

        Metrics: this `loss`, and `variance`, the same error with the data's mean in its place.
        """
        x, model = self._flat(context.batch["x"]), self._model(params)
        values = mean_per_example(jnp.square(x - self._projected(model, x)))
        variance = mean_per_example(jnp.square(x - model.mean))
        return values, Aux(metrics={"loss": values, "variance": variance}, stats=context.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """The loss, and the share of the variance around the fitted mean that is explained."""
        loss, variance = float(measured["loss"]), float(measured["variance"])
        values = {"loss": loss}
        if variance > 0:
            values["explained_variance"] = 1 - loss / variance
        return Report(values=values)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """E[x | z] of the probabilistic model at z ~ N(0, I): [B, H, W, C].

        It leaves out the noise of p(x | z), which is white and would dominate the image.
        """
        z = streams.normal(keys, (self.components,))
        return self._shaped(self._model(variables.params).mean_given(z))

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The orthogonal projection of each example."""
        model = self._model(variables.params)
        return self._shaped(self._projected(model, self._flat(batch["x"])))

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The coefficients U^T (x - mean) [B, q], not whitened.

        Their distances are those of the reconstructions, and their variances are the eigenvalues.
        """
        return self._model(variables.params).coefficients(self._flat(batch["x"]))

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """mean + U c for coefficients c [B, q]; for those of `encode`, the reconstruction."""
        return self._shaped(self._model(variables.params).from_coefficients(latent))

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """The exact -log p(x) of probabilistic PCA, a density, in nats per example.

        Terms: "fit", half the squared Mahalanobis distance, and "volume", half of log det (2 pi C).
        """
        model = self._model(variables.params)
        fit, volume = model.negative_log_likelihood(self._flat(batch["x"]))
        terms = {"fit": fit, "volume": jnp.broadcast_to(volume, fit.shape)}
        return Likelihood(total=fit + volume, terms=terms, density=True, of=self.scored)

    # --- shared by the methods above -----------------------------------------------------------

    def _model(self, params: Tree) -> pca.Probabilistic:
        return pca.Probabilistic(**params)

    def _projected(self, model: pca.Probabilistic, x: Vectors) -> Vectors:
        return model.from_coefficients(model.coefficients(x))

    def _flat(self, x: Examples) -> Vectors:
        return self.inputs(x.reshape(len(x), -1))

    def _shaped(self, x: Vectors) -> Examples:
        return x.reshape(-1, *self.shape)
