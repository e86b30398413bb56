"""Sampling where a part of the data is known: inpainting, colourisation, any P x_0 that is given.

P is an orthogonal projection (P = P^T = P^2), as a function of arrays [B, ...]; "P x is known" is
inpainting where P masks pixels, and colourisation where it keeps the grey direction of the channels
(Song et al. 2021, appendix I.2 and I.3). What is known replaces what there is:

    x <- x - P x + P known                                                                     (1)

in the predicted x_0 (`known_part`), or in x_s itself by a draw of q(x_s | known) after every step
(`RePaint`: Song et al. 2021, I.2, and with resampling Lugmayr et al. 2022). Neither is exact where
known and unknown parts depend on each other: the rest hears of the known part only through the
network at later times. Resampling tells it again and again at each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Keys, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Step
from genzoo.samplers.predictor import Predict, Prediction

Projection = Callable[[Array], Array]
"""P: [B, ...] -> [B, ...], linear, orthogonal, idempotent."""


def masked(mask: Array) -> Projection:
    """P of inpainting: keeps x where `mask` is not 0. mask: broadcastable to [B, ...], such as
    [H, W, 1]. What `known` holds elsewhere counts for nothing, NaN included."""
    return lambda x: jnp.where(jnp.asarray(mask) != 0, x, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoupled:
    """P of what is known in rotated channels: rotate, mask, rotate back (Song et al. 2021, I.3).

    matrix: orthogonal [C, C], its rows the new channels. mask: not 0 where a rotated value is
    known, broadcastable to [B, ..., C]: [C] for the same channels everywhere, [H, W, C] where some
    pixels are known in colour and all in grey.
    """

    matrix: Array
    mask: Array

    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., C]."""
        matrix = jnp.asarray(self.matrix, x.dtype)
        # What is known has to come back as it was, so no rounding to the half precision of some
        # accelerators' matrix units.
        rotated = jnp.einsum("...c,kc->...k", x, matrix, precision="highest")
        kept = masked(self.mask)(rotated)
        return jnp.einsum("...k,kc->...c", kept, matrix, precision="highest")


def grey_basis(channels: int = 3) -> np.ndarray:
    """Orthogonal float64 [C, C], the first row the mean over channels times sqrt(C); the others
    are Helmert's: the k-th compares the mean of k channels with the next one."""
    rows = [np.full(channels, channels**-0.5)]
    for k in range(1, channels):
        row = np.append(np.ones(k), -k)
        rows.append(np.pad(row, (0, channels - k - 1)) / np.sqrt(k * (k + 1)))
    return np.stack(rows)


def grey(channels: int = 3) -> Decoupled:
    """P of colourisation: the mean over channels is known. `known` may be a grey image repeated
    over the channels, or the colour image itself."""
    return Decoupled(matrix=grey_basis(channels), mask=np.arange(channels) == 0)


def replaced(x: Array, known: Array, project: Projection) -> Array:
    """Equation (1); for a mask exactly `known` where it is known and exactly x elsewhere."""
    return x - project(x) + project(known)


def known_part(
    predict: Predict, known: Array, project: Projection, schedule: Schedule
) -> Predict:
    """Equation (1) in the predicted x_0; eps changes by -alpha / sigma times the change of x_0, so
    that both still make up x_t. known: [B, ...] or broadcastable to it.

    Exact if the parts are independent. Wrap it around clipping, so that the known part is last.
    """

    def predict_known(x, t):
        seen = predict(x, t)
        alpha, sigma = (broadcast(f(t), x) for f in (schedule.alpha, schedule.sigma))
        change = project(known) - project(seen.x_0)
        x_0 = replaced(seen.x_0, known, project)
        return Prediction(x_0, seen.eps - alpha / sigma * change, seen.extra)

    return predict_known


@dataclass(frozen=True, kw_only=True, eq=False)
class RePaint:
    """A step after which the known part is drawn from q(x_s | known), and at the end is `known`.

    resample: U of Lugmayr et al. 2022, algorithm 1. For U > 1 the step t -> s is followed U - 1
    times by forward diffusion s -> t, another prediction and another step; the last step, to the
    data, is taken once. (Their jumps over several steps are not here: the loop's times only fall.)

    step: any. A step with a memory begins each repetition with the memory it had at t before, so
    the memory counts steps of the grid and never holds a prediction from beyond a jump; but new
    noise at every time is not the smooth path for which a multistep method has its order: one that
    remembers nothing (ancestral, DDIM) loses nothing.

    The known part of the x to begin with is the caller's. Noise is that of schedules whose prior
    has forgotten the data; for others give `q_sample` of what is known.
    """

    schedule: Schedule
    step: Step
    known: Array
    project: Projection
    resample: int = 1

    def __post_init__(self):
        if self.resample < 1:
            raise UserError(f"resample = {self.resample} must be at least 1: each step once.")

    @property
    def evaluations(self) -> int:
        """Those of the step, every time it is taken."""
        return self.resample * self.step.evaluations

    def inner(self, t: Array, s: Array) -> Sequence[Array]:
        """Those of the step, and t again before every repetition."""
        once = list(self.step.inner(t, s))
        return once + [t, *once] * (self.resample - 1)

    def inner_to_start(self, t: Array, s: Array) -> Sequence[Array]:
        """Those of the step, every time it is taken."""
        return list(self.step.inner_to_start(t, s)) * self.resample

    @property
    def evaluations_to_start(self) -> int:
        """Likewise: every repetition of a first step starts from the memory it had before."""
        return self.resample * self.step.evaluations_to_start

    @property
    def starting_steps(self) -> int:
        """Those of the step."""
        return self.step.starting_steps

    def init(self, x: Array, steps: Array) -> Any:
        """The step's own memory."""
        return self.step.init(x, steps)

    def before(self, x: Array, t: Array, s: Array, keys: Keys, memory: Any) -> tuple[Array, Array]:
        """Where the step itself wants to set out from; repetitions diffuse forward to there."""
        return self.step.before(x, t, s, keys, memory)

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Array,
        t: Array,
        s: Array,
        keys: Keys,
        memory: Any,
    ) -> tuple[Array, Any]:
        """x_s with its known part replaced, after the last repetition."""

        def take(seen, x, keys):
            x, after = self.step(predict, seen, x, t, s, keys, memory)
            noise = streams.normal(_named(keys, "known"), x.shape[1:], x.dtype)
            noisy = gaussian.q_sample(self.schedule, jnp.asarray(self.known, x.dtype), s, noise)
            return replaced(x, noisy, self.project), after

        def again(index, carry):
            # Keys of names, so that none of them is one that the step makes of its own by number.
            here = streams.fold(_named(keys, "resample"), index)
            x, _ = carry
            forward = gaussian.transition(self.schedule, x, t, s)
            noise = streams.normal(_named(here, "forward"), x.shape[1:], x.dtype)
            x = forward.mean + jnp.sqrt(forward.variance) * noise
            return take(predict(x, t), x, here)

        first = take(seen, x, keys)
        return jax.lax.fori_loop(1, self.resample, again, first) if self.resample > 1 else first

    def finish(self, seen: Prediction, x: Array, t: Array, memory: Any) -> Array:
        """The step's own end with the known part as it is known."""
        end = self.step.finish(seen, x, t, memory)
        return replaced(end, jnp.asarray(self.known, end.dtype), self.project)


def _named(keys: Keys, name: str) -> Keys:
    return jax.vmap(lambda key: streams.named(key, name))(keys)
