"""Principal component analysis (Pearson 1901; probabilistic: Tipping & Bishop 1999).

The linear autoencoder that loses least, in closed form, and a Gaussian of the data with an exact
likelihood (math.pca). Fitted from one pass over the data; gradient steps have nothing to do here.

Reconstruction is the orthogonal projection mean + U U^T (x - mean), the best of all linear ones;
the posterior mean of the probabilistic model would shrink it towards the mean.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.conditions import Conditions
from genzoo.core.contract import Aux, Context, Likelihood, Player, Report, Variables
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch, Images, Key, Keys, Tree, mean_per_example
from genzoo.math import pca

_ROUNDING = (2 / 255) ** 2 / 12
"""The variance of the error of rounding to 256 levels in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PCA:
    """The family. Capabilities: Fits, Samples, Reconstructs, Encodes, Decodes, Likelihoods,
    Reports.

    components: q, how many. shape: of one example, (H, W, C); D is the number of its values.
    """

    components: int
    shape: tuple[int, ...]

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Zeros: the shapes of what `fit` finds."""
        size = int(np.prod(self.shape))
        zeros = pca.Probabilistic(
            mean=jnp.zeros(size),
            components=jnp.zeros((size, self.components)),
            variances=jnp.zeros(self.components),
            noise_variance=jnp.zeros(()),
        )
        return Variables(params=zeros._asdict())

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """The maximum-likelihood model, computed in float64, as float32 params.

        No direction has less variance than rounding to 256 levels makes: with so many components
        that none is left over, or where pixels are constant, the likelihood would be unbounded.
        Raises UserError for less than one component, for more than there are numbers, and for
        examples that are all alike.
        """
        moments = pca.Moments.none(int(np.prod(self.shape)))
        for batch in batches:
            moments = moments.with_batch(self._flat(np.asarray(batch["x"])))
        found = pca.principal_components(moments, self.components)
        size = len(moments.mean)
        if not 0 < self.components <= size:
            raise UserError(
                f"family.components is {self.components}: take from 1 to {size}, the numbers of an "
                "example."
            )
        if not found.rank:
            raise UserError(
                f"The {moments.count} training examples are all alike: there is nothing to fit."
            )
        noise = max(found.noise_variance, _ROUNDING)
        variances = np.maximum(found.variances, noise)
        model = pca.Probabilistic(found.mean, found.components, variances, noise)
        return Variables(
            params={name: jnp.asarray(v, jnp.float32) for name, v in model._asdict().items()}
        )

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, which is there to be measured."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[Array, Aux]:
        """The squared error of the reconstruction, a mean over the values of each example [B];
        metrics: this `loss`, and `variance`, the same of the data's mean in its place."""
        x, model = self._flat(context.batch["x"]), self._model(params)
        values = mean_per_example(jnp.square(x - self._projected(model, x)))
        variance = mean_per_example(jnp.square(x - model.mean))
        return values, Aux(metrics={"loss": values, "variance": variance}, stats=context.stats)

    def report(self, measured: Mapping[str, np.ndarray]) -> Report:
        """The loss, and the share of the variance around the fitted mean that it leaves out."""
        loss, variance = float(measured["loss"]), float(measured["variance"])
        values = {"loss": loss}
        if variance > 0:
            values["explained_variance"] = 1 - loss / variance
        return Report(values=values)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Images:
        """E[x | z] of the probabilistic model at z ~ N(0, I): without the noise of p(x | z), which
        is white and would be all that one sees."""
        z = streams.normal(keys, (self.components,))
        return self._shaped(self._model(variables.params).mean_given(z))

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """The orthogonal projection of each example."""
        model = self._model(variables.params)
        return self._shaped(self._projected(model, self._flat(batch["x"])))

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The coefficients U^T (x - mean) [B, q], not whitened: their distances are distances of
        reconstructions, and their variances the eigenvalues."""
        return self._model(variables.params).coefficients(self._flat(batch["x"]))

    def decode(self, variables: Variables, latent: Array) -> Images:
        """mean + U c for coefficients c [B, q]: of `encode` it gives the reconstruction."""
        return self._shaped(self._model(variables.params).from_coefficients(latent))

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """-log p(x) of probabilistic PCA, exactly: a density. Terms: "fit", half the squared
        Mahalanobis distance, and "volume", half of log det (2 pi C)."""
        model = self._model(variables.params)
        fit, volume = model.negative_log_likelihood(self._flat(batch["x"]))
        terms = {"fit": fit, "volume": jnp.broadcast_to(volume, fit.shape)}
        return Likelihood(total=fit + volume, terms=terms, density=True)

    # --- what the parts above share ------------------------------------------------------------

    def _model(self, params: Tree) -> pca.Probabilistic:
        return pca.Probabilistic(**params)

    def _projected(self, model: pca.Probabilistic, x: Array) -> Array:
        return model.from_coefficients(model.coefficients(x))

    def _flat(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def _shaped(self, x: Array) -> Images:
        return x.reshape(-1, *self.shape)
