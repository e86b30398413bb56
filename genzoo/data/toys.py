"""Data from known distributions, for checking models against exact answers.

There are two sets of points in the plane, a spiral and a ring of unequal clouds, and one set of
signals, waves.

The points come from mixtures of Gaussians, whose score, likelihood and flow are known exactly. A
point is drawn from three uniform numbers u, v, w in (0, 1]:

    k = the first component with weights_1 + ... + weights_k >= u                              (1)
    x = means_k + deviations_k sqrt(-2 log v) (cos 2 pi w, sin 2 pi w)      (Box & Muller 1958) (2)

A wave is a fundamental and perhaps an overtone, l = 0 .. L - 1, in two channels a quarter of a
period apart:

    x_l = sum_h a_h (cos theta_hl, sin theta_hl),   theta_hl = 2 pi h f l / L + phi_h           (3)

Its class is uniform and determines the amplitudes a of the harmonics h = 1, 2, 3, sum_h a_h^2 = 1.
The frequency f is uniform between 1 and 4 periods of the fundamental per signal, the phases phi_h
between 0 and 2 pi, all independent. The mean is therefore zero and, for each channel,

    E[x_l x_m | f, a] = 1/2 sum_h a_h^2 cos(2 pi h f (l - m) / L)                               (4)

and a pure wave has |x_l| = 1 everywhere.

The data are the same on every machine: the uniform numbers are words of PCG64, whose raw stream
NumPy guarantees (unlike `Generator.normal` and its kin), and rounding to float32 removes the last
bits, in which the logarithms and cosines of different libraries differ.
"""

import numpy as np

from genzoo.data.fields import Classes, Points, Signal, Vector
from genzoo.data.source import SPLITS, ArraySource, Mixture, Spec, check_split

SIZES = {"train": 50_000, "test": 10_000}
"""Points in each split."""
WAVES = {"train": 10_000, "test": 2000}
"""Signals in each split."""


def _spiral() -> Mixture:
    # r = angle / (2.25 pi) grows by 8/9 per turn, so adjacent arms are 15 deviations apart. Equal
    # steps of the squared angle are nearly equal steps along the arm, about half a deviation long,
    # so that the components form one smooth band.
    count = 400
    angle = np.pi * np.sqrt(np.linspace(1.5**2, 4.5**2, count))
    around = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Mixture(
        weights=np.full(count, 1 / count),
        means=angle[:, None] / (2.25 * np.pi) * around,
        deviations=np.full(count, 0.06),
    )


def _ring() -> Mixture:
    # All components differ, which exposes a model that drops one or blurs the narrow ones.
    angle = np.arange(8) / 8 * 2 * np.pi
    return Mixture(
        weights=np.arange(1, 9) / 36,
        means=1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1),
        deviations=np.tile([0.08, 0.2], 4),
    )


_POINT = Points(shape=(2,))
SWISSROLL_SPEC = Spec(fields={"x": _POINT}, density=_spiral())
"""A spiral of one and a half turns from radius 2/3 to 2: 400 components of deviation 0.06."""
_DIRECTIONS = (
    *("east", "north-east", "north", "north-west"),
    *("west", "south-west", "south", "south-east"),
)
MIXTURE_SPEC = Spec(fields={"x": _POINT, "label": Classes(names=_DIRECTIONS)}, density=_ring())
"""Eight clouds on a circle of radius 1.5, with weights 1/36 .. 8/36 in order, alternately narrow
(standard deviation 0.08) and wide (0.2)."""


AMPLITUDES = np.array([[1.0, 0.0, 0.0], [0.5**0.5, 0.5**0.5, 0.0], [0.5**0.5, 0.0, 0.5**0.5]])
"""Amplitudes a of the harmonics 1, 2 and 3 in (3), by class."""
FREQUENCIES = (1.0, 4.0)
"""The range of the frequencies of waves, in periods of the fundamental per signal."""
WAVES_SPEC = Spec(
    fields={
        "x": Signal(shape=(64, 2), channels=("cosine", "sine"), axis="sample"),
        "label": Classes(names=("pure", "octave", "twelfth")),
        "frequency": Vector(shape=(1,), names=("frequency",)),
    }
)
"""Sums of sinusoids: equation (3) of the module's docstring."""


def open_swissroll(split: str) -> ArraySource:
    """The "train" or "test" split of the spiral: `x` float32 [N, 2], no labels."""
    check_split(split)
    points, _ = draw(SWISSROLL_SPEC.density, SIZES[split], seed=SPLITS.index(split))
    return ArraySource(
        name="swissroll", spec=SWISSROLL_SPEC, arrays={"x": points.astype(np.float32)}
    )


def open_mixture(split: str) -> ArraySource:
    """The "train" or "test" split of the ring: `x` float32 [N, 2], `label` int32 [N].

    The label is the number of the cloud that the point was drawn from.
    """
    check_split(split)
    points, component = draw(MIXTURE_SPEC.density, SIZES[split], seed=4 + SPLITS.index(split))
    return ArraySource(
        name="mixture",
        spec=MIXTURE_SPEC,
        arrays={"x": points.astype(np.float32), "label": component.astype(np.int32)},
    )


def open_waves(split: str) -> ArraySource:
    """The "train" or "test" split of the waves: `x` float32 [N, 64, 2], `label`, `frequency`.

    label: int32 [N], the class, which determines the overtone. frequency: float32 [N, 1], in
    periods of the fundamental per signal.
    """
    check_split(split)
    uniform = _uniform(8 + SPLITS.index(split), WAVES[split], 2 + AMPLITUDES.shape[1])
    label = np.ceil(len(AMPLITUDES) * uniform[:, 0]).astype(np.int32) - 1
    low, high = FREQUENCIES
    frequency = low + (high - low) * uniform[:, 1]
    harmonics = np.arange(1, 1 + AMPLITUDES.shape[1])
    length = WAVES_SPEC.shape[0]
    turns = frequency[:, None, None] * harmonics * np.arange(length)[:, None] / length
    angles = 2 * np.pi * (turns + uniform[:, None, 2:])
    parts = AMPLITUDES[label][:, None, :, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    arrays = {"x": parts.sum(2), "label": label, "frequency": frequency[:, None]}
    stored = {name: WAVES_SPEC.fields[name].stored(values) for name, values in arrays.items()}
    return ArraySource(name="waves", spec=WAVES_SPEC, arrays=stored)


def draw(density: Mixture, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a mixture in the plane, float64 [count, 2], and their components, int64 [count]."""
    u, v, w = _uniform(seed, count, 3).T
    heights = np.cumsum(density.weights)
    # The sum of the weights may round to less than one.
    component = np.minimum(np.searchsorted(heights, u), len(heights) - 1)
    radius = density.deviations[component] * np.sqrt(-2 * np.log(v))
    turned = np.stack([np.cos(2 * np.pi * w), np.sin(2 * np.pi * w)], axis=-1)
    return density.means[component] + radius[:, None] * turned, component


def _uniform(seed: int, count: int, each: int) -> np.ndarray:
    """float64 [count, each] in (0, 1]."""
    words = np.random.PCG64(seed).random_raw(each * count).reshape(count, each)
    # The upper 53 bits, which float64 holds exactly, plus one, so that no logarithm is infinite.
    return ((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
