"""Sampling with part of the data known: inpainting, colourisation, any known projection P x_0.

P is an orthogonal projection (P = P^T = P^2), given as a function of arrays [B, ...]. Knowing P x
means inpainting if P masks pixels, and colourisation if it keeps the grey direction of the channels
(Song et al. 2021, appendix I.2 and I.3). The known part replaces the current one:

    x <- x - P x + P known                                                                     (1)

either in the predicted x_0 (`known_part`), or in x_s itself, by a draw from q(x_s | known) after
every step (`RePaint`: Song et al. 2021, I.2, and with resampling Lugmayr et al. 2022). Neither is
exact if the known and unknown parts depend on each other: the known part influences the rest only
through the network at later times. Resampling repeats this influence at each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from genzoo.core import streams
from genzoo.core.errors import UserError
from genzoo.core.types import ArrayLike, Count, Examples, Floats, Keys, Scalar, Times, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Step
from genzoo.samplers.predictor import Predict, Prediction

Projection = Callable[[Examples], Examples]
"""P: [B, ...] -> [B, ...], linear, orthogonal, idempotent."""
Mask = Shaped[ArrayLike, "..."]
"""Not 0 where something is known; numbers or truth values that broadcast to [B, ...]."""


def masked(mask: Mask) -> Projection:
    """P of inpainting, which keeps x where `mask` is not 0.

    mask: broadcastable to [B, ...], such as [H, W, 1]. The values of `known` elsewhere have no
    effect, even NaN.
    """
    return lambda x: jnp.where(jnp.asarray(mask) != 0, x, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoupled:
    """P for known rotated channels: rotate, mask, rotate back (Song et al. 2021, I.3).

    matrix: orthogonal [C, C], whose rows are the new channels. mask: not 0 where a rotated value is
    known, broadcastable to [B, ..., C]: [C] for the same channels everywhere, [H, W, C] if some
    pixels are known in colour and all of them in grey.
    """

    matrix: Float[ArrayLike, "C C"]
    mask: Mask

    def __call__(self, x: Float[ArrayLike, "*axes C"]) -> Float[ArrayLike, "*axes C"]:
        """P x: [B, ..., C] -> [B, ..., C]."""
        matrix = jnp.asarray(self.matrix, x.dtype)
        # The known values must come back unchanged, so the matrix units of some accelerators must
        # not round to half precision.
        rotated = jnp.einsum("...c,kc->...k", x, matrix, precision="highest")
        kept = masked(self.mask)(rotated)
        return jnp.einsum("...k,kc->...c", kept, matrix, precision="highest")


def grey_basis(channels: int = 3) -> Float[np.ndarray, "{channels} {channels}"]:
    """Orthogonal float64 [C, C], whose first row is the mean over channels times sqrt(C).

    The others are Helmert's: the k-th compares the mean of k channels with the next one.
    """
    rows = [np.full(channels, channels**-0.5)]
    for k in range(1, channels):
        row = np.append(np.ones(k), -k)
        rows.append(np.pad(row, (0, channels - k - 1)) / np.sqrt(k * (k + 1)))
    return np.stack(rows)


def grey(channels: int = 3) -> Decoupled:
    """P of colourisation: the mean over channels is known.

    `known` may be a grey image repeated over the channels, or the colour image itself.
    """
    return Decoupled(matrix=grey_basis(channels), mask=np.arange(channels) == 0)


def replaced(x: Examples, known: Floats, project: Projection) -> Examples:
    """Equation (1). With a mask it is exactly `known` where it is known and exactly x elsewhere."""
    return x - project(x) + project(known)


def known_part(
    predict: Predict, known: Floats, project: Projection, schedule: Schedule
) -> Predict:
    """Equation (1) in the predicted x_0, with eps adjusted so that the pair still makes up x_t.

    eps changes by -alpha / sigma times the change of x_0. known: [B, ...] or broadcastable to it.
    Exact if the parts are independent. Wrap it around clipping, so that the known part comes last.
    """

    def predict_known(x: Examples, t: Times) -> Prediction:
        seen = predict(x, t)
        alpha, sigma = (broadcast(f(t), x) for f in (schedule.alpha, schedule.sigma))
        change = project(known) - project(seen.x_0)
        x_0 = replaced(seen.x_0, known, project)
        return Prediction(x_0, seen.eps - alpha / sigma * change, seen.extra)

    return predict_known


@dataclass(frozen=True, kw_only=True, eq=False)
class RePaint:
    """A step after which the known part is drawn from q(x_s | known); at the end it is `known`.

    known: [B, ...] or broadcastable to it.

    resample: U of Lugmayr et al. 2022, algorithm 1. For U > 1 the step t -> s is followed U - 1
    times by forward diffusion s -> t, another prediction and another step. The last step, to the
    data, is taken once. (Their jumps over several steps are not supported, as the times of the loop
    only decrease.)

    step: any step. A step with a memory starts each repetition from the memory it had at t, so the
    memory counts grid steps and never holds a prediction from before a jump. But fresh noise at
    every time breaks the smooth path on which the order of a multistep method relies. A method
    without memory (ancestral, DDIM) loses nothing.

    The caller supplies the known part of the initial x. Noise will do for schedules whose prior has
    forgotten the data; for others use `q_sample` of the known data.
    """

    schedule: Schedule
    step: Step
    known: Floats
    project: Projection
    resample: int = 1

    def __post_init__(self):
        if self.resample < 1:
            raise UserError(
                f"resample = {self.resample} must be at least 1; 1 takes each step once."
            )

    @property
    def evaluations(self) -> int:
        """The step's, every time it is taken."""
        return self.resample * self.step.evaluations

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The step's, and t again before every repetition."""
        once = list(self.step.inner(t, s))
        return once + [t, *once] * (self.resample - 1)

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The step's, every time it is taken."""
        return list(self.step.inner_to_start(t, s)) * self.resample

    @property
    def evaluations_to_start(self) -> int:
        """The step's, every time it is taken: repetitions start from the memory before the step."""
        return self.resample * self.step.evaluations_to_start

    @property
    def starting_steps(self) -> int:
        """The step's."""
        return self.step.starting_steps

    def init(self, x: Examples, steps: Count) -> Any:
        """The step's own memory."""
        return self.step.init(x, steps)

    def before(
        self, x: Examples, t: Scalar, s: Scalar, keys: Keys, memory: Any
    ) -> tuple[Examples, Scalar]:
        """Where the step itself evaluates; repetitions diffuse forward to there."""
        return self.step.before(x, t, s, keys, memory)

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Any,
    ) -> tuple[Examples, Any]:
        """x_s with its known part replaced, after the last repetition."""

        def take(seen, x, keys):
            x, after = self.step(predict, seen, x, t, s, keys, memory)
            noise = streams.normal(_named(keys, "known"), x.shape[1:], x.dtype)
            known = jnp.broadcast_to(jnp.asarray(self.known, x.dtype), x.shape)
            noisy = gaussian.q_sample(self.schedule, known, s, noise)
            return replaced(x, noisy, self.project), after

        def again(index, carry):
            # Named keys, so that none of them equals one that the step derives by number.
            own = streams.fold(_named(keys, "resample"), index)
            x, _ = carry
            forward = gaussian.transition(self.schedule, x, t, s)
            noise = streams.normal(_named(own, "forward"), x.shape[1:], x.dtype)
            x = forward.mean + jnp.sqrt(forward.variance) * noise
            return take(predict(x, t), x, own)

        first = take(seen, x, keys)
        return jax.lax.fori_loop(1, self.resample, again, first) if self.resample > 1 else first

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Any) -> Examples:
        """The step's own end, with the known part replaced by `known`."""
        end = self.step.finish(seen, x, t, memory)
        return replaced(end, jnp.asarray(self.known, end.dtype), self.project)


def _named(keys: Keys, name: str) -> Keys:
    return jax.vmap(lambda key: streams.named(key, name))(keys)
