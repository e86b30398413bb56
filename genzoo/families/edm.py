"""EDM (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models").

    x = x_0 + sigma eps,   ln sigma ~ N(P_mean, P_std^2) in training                            (1)
    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)                                           (2)
    loss = lambda(sigma) |D - x_0|^2,   lambda c_out^2 = 1                                      (3)

(2) is a kind of prediction and an input scale (math/precondition.py); because lambda c_out^2 = 1,
(3) is the plain mean squared error of F. Augmentations do not leak into samples because the network
is told of each of them, and asked for none when it samples.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core.contract import Variables
from genzoo.core.types import Array, Batch, Key, Labels, Tree, broadcast
from genzoo.data.augment import Augmentation
from genzoo.families.continuous import ContinuousDenoising
from genzoo.families.denoising import Seen
from genzoo.math import gaussian, precondition
from genzoo.math.schedules import Schedule


@dataclass(frozen=True, kw_only=True, eq=False)
class EDM(ContinuousDenoising):
    """The family. data_deviation: sigma_data. augmentation: of the training images, or None; the
    network then has an input for what was done."""

    data_deviation: float = 0.5
    augmentation: Augmentation | None = None

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        x = example["x"]
        inputs = (x, jnp.zeros(x.shape[:1]), self.labels(example), *self._unaugmented(x))
        return Variables(params=self.network.init(key, *inputs))

    def noise_label(self, schedule: Schedule, t: Array) -> Array:
        """c_noise = ln(sigma) / 4."""
        return precondition.noise_label(schedule, t)

    def scaled_input(self, schedule: Schedule, x: Array, t: Array) -> Array:
        """c_in x."""
        scale = precondition.input_scale(self.data_deviation)(schedule, jnp.asarray(t))
        return broadcast(scale, x) * x

    def see(
        self,
        params: Tree,
        x_0: Array,
        eps: Array,
        t: Array,
        labels: Labels | None,
        train: bool,
        key: Key | None,
    ) -> Seen:
        """x_t of the augmented data, and what the network predicts that is told of it."""
        others = self._unaugmented(x_0)
        if self.augmentation is not None and train:
            key, own = jax.random.split(key)
            x_0, done = self.augmentation(x_0, own)
            others = (done,)
        x_t = gaussian.q_sample(self.schedule, x_0, t, eps)
        predicted = self.predict(
            params, self.schedule, x_t, t, labels, *others, train=train, key=key
        )
        return Seen(x_0, eps, x_t, t, predicted)

    def _unaugmented(self, x: Array) -> tuple[Array, ...]:
        # A network without that input is not given it.
        if self.augmentation is None:
            return ()
        return (jnp.zeros((x.shape[0], self.augmentation.labels), x.dtype),)
