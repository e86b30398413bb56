"""What a data set is to the rest of the house: a name, a shape, and records read by index.

Images are uint8 here; the conversion to float happens on the device. Points of a space without
pixels are float32, in the numbers that models see, under the same key `x`. A source knows
nothing of order, batches or processes: those are `order` and `batches`.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genzoo.core.errors import UserError

Records = dict[str, np.ndarray]
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """A mixture of round Gaussians, sum_k weights_k N(means_k, deviations_k^2), as float64 numbers.

    weights [K], which sum to one; means [K, D]; deviations [K], the same along every axis.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def __post_init__(self):
        shapes = {self.weights.shape, self.deviations.shape, self.means.shape[:1]}
        if len(shapes) > 1 or self.means.ndim != 2 or not np.isclose(self.weights.sum(), 1):
            raise ValueError(f"No mixture: shapes {shapes}, sum of weights {self.weights.sum()}.")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is known of a data set before it is opened.

    shape: (H, W, C) of one image, (D,) of one point. classes: the name of each label, in order;
    empty when the data set has no labels or its classes are known only once it is opened. density:
    what the records were drawn from, where it is known exactly.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    density: Mixture | None = None


class Source(Protocol):
    """Records that can be read by index, from several threads at once."""

    @property
    def name(self) -> str:
        """What messages call the data set."""

    @property
    def spec(self) -> Spec:
        """The shape of a record and the names of the classes."""

    def __len__(self) -> int:
        """How many records there are."""

    def read(self, indices: np.ndarray) -> Records:
        """Records of the indices [n]: `x` uint8 [n, H, W, C] or float32 [n, D], `label` int32
        [n] if any."""

    def checksum(self) -> int:
        """A number that changes when the content does; of what is cheap to look at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """A data set held in memory: `x`, uint8 [N, H, W, C] for images and float32 [N, D] for
    points, and, where there are classes, `label`.

    `arrays` may be put on a device as it is and gathered there.
    """

    name: str
    spec: Spec
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self):
        image = self.arrays["x"]
        expected = np.float32 if len(self.spec.shape) == 1 else np.uint8
        if image.dtype != expected or image.shape[1:] != self.spec.shape:
            raise ValueError(f"{self.name}: images are {image.dtype} {image.shape[1:]}.")
        label = self.arrays.get("label")
        if label is not None and (label.dtype != np.int32 or label.shape != image.shape[:1]):
            raise ValueError(f"{self.name}: labels are {label.dtype} {label.shape}.")

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices, copied out of memory."""
        return {name: array[indices] for name, array in self.arrays.items()}

    def checksum(self) -> int:
        """The CRC-32 of all arrays."""
        value = 0
        for name in sorted(self.arrays):
            value = zlib.crc32(np.ascontiguousarray(self.arrays[name]), value)
        return value


def check_split(split: str) -> None:
    """UserError unless `split` is one of the two that every data set has."""
    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}: it is one of {', '.join(SPLITS)}.")
