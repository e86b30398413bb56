"""Two sets of points in the plane that are drawn from a known density, so that a model of them can
be checked against the exact score, likelihood and flow: a spiral and a ring of unequal clouds.

Both are mixtures of Gaussians. A point is drawn from three uniform numbers u, v, w in (0, 1]:

    k = the first component with weights_1 + ... + weights_k >= u                              (1)
    x = means_k + deviations_k sqrt(-2 log v) (cos 2 pi w, sin 2 pi w)      (Box & Muller 1958) (2)

The same points come out everywhere: the uniform numbers are words of PCG64, whose raw stream NumPy
promises never to change (it promises no such thing of `Generator.normal` and its kin), and the last
bits in which libraries' logarithms and cosines differ are rounded away in float32.
"""

import numpy as np

from genzoo.data.source import SPLITS, ArraySource, Mixture, Spec, check_split

SIZES = {"train": 50_000, "test": 10_000}
"""Points in each split."""


def _spiral() -> Mixture:
    # r = angle / (2.25 pi) grows by 8/9 a turn, 15 deviations from one arm to the next. Even steps
    # of the squared angle are nearly even steps along the arm, half a deviation long: the
    # components melt into one band.
    count = 400
    angle = np.pi * np.sqrt(np.linspace(1.5**2, 4.5**2, count))
    around = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Mixture(
        weights=np.full(count, 1 / count),
        means=angle[:, None] / (2.25 * np.pi) * around,
        deviations=np.full(count, 0.06),
    )


def _ring() -> Mixture:
    # No two components are alike: a model that forgets one, or that blurs the narrow ones, shows.
    angle = np.arange(8) / 8 * 2 * np.pi
    return Mixture(
        weights=np.arange(1, 9) / 36,
        means=1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1),
        deviations=np.tile([0.08, 0.2], 4),
    )


SWISSROLL_SPEC = Spec(shape=(2,), density=_spiral())
"""A spiral of one and a half turns from radius 2/3 to 2, a band 0.06 wide: 400 components."""
MIXTURE_SPEC = Spec(
    shape=(2,),
    classes=(
        *("east", "north-east", "north", "north-west"),
        *("west", "south-west", "south", "south-east"),
    ),
    density=_ring(),
)
"""Eight clouds on a circle of radius 1.5, weights 1/36 .. 8/36 in their order, by turns narrow
(0.08) and wide (0.2)."""


def open_swissroll(split: str) -> ArraySource:
    """The "train" or "test" split of the spiral: `x` float32 [N, 2], no labels."""
    check_split(split)
    points, _ = draw(SWISSROLL_SPEC.density, SIZES[split], seed=SPLITS.index(split))
    return ArraySource(
        name="swissroll", spec=SWISSROLL_SPEC, arrays={"x": points.astype(np.float32)}
    )


def open_mixture(split: str) -> ArraySource:
    """The "train" or "test" split of the ring: `x` float32 [N, 2], `label` int32 [N], the cloud
    that the point was drawn from."""
    check_split(split)
    points, component = draw(MIXTURE_SPEC.density, SIZES[split], seed=4 + SPLITS.index(split))
    return ArraySource(
        name="mixture",
        spec=MIXTURE_SPEC,
        arrays={"x": points.astype(np.float32), "label": component.astype(np.int32)},
    )


def draw(density: Mixture, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a mixture in the plane, float64 [count, 2], and their components, int64 [count]."""
    words = np.random.PCG64(seed).random_raw(3 * count).reshape(count, 3)
    # The upper 53 bits, which float64 holds exactly; one more, so that no logarithm is infinite.
    u, v, w = (((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53).T
    heights = np.cumsum(density.weights)
    # The sum of the weights may round to less than one.
    component = np.minimum(np.searchsorted(heights, u), len(heights) - 1)
    radius = density.deviations[component] * np.sqrt(-2 * np.log(v))
    turned = np.stack([np.cos(2 * np.pi * w), np.sin(2 * np.pi * w)], axis=-1)
    return density.means[component] + radius[:, None] * turned, component
