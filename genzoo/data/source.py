"""The interface of a data set: a name, the fields of its records, and records read by index.

Values are in their stored form (images in bytes) and are prepared for models on the device. A
source knows nothing of order, batches or processes; see `order` and `batches`.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data.fields import Classes, Field

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


class Judge(Protocol):
    """Decides whether samples show what their captions say."""

    def group(self, text: str) -> str:
        """The group in which samples of a text are scored; "" if it cannot be judged."""

    def shows(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Whether each image, uint8 [N, H, W, C], shows its text: bool [N]."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The description of a data set, known before it is opened.

    fields: the fields of a record by name; the datum is `x`, a class is `label`, a caption is
    `text`. density: the distribution of the records, if it is known exactly. judge: decides whether
    samples match their captions, if that can be decided exactly.
    """

    fields: Mapping[str, Field]
    density: Mixture | None = None
    judge: Judge | None = field(default=None, compare=False)

    def __hash__(self) -> int:
        return hash((frozenset(self.fields.items()), self.density))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the datum."""
        return self.fields["x"].shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class, in order; () if the records have no classes."""
        label = self.fields.get("label")
        return label.names if isinstance(label, Classes) else ()


class Source(Protocol):
    """Records that can be read by index, from several threads at once."""

    @property
    def name(self) -> str:
        """The name of the data set in messages."""

    @property
    def spec(self) -> Spec:
        """The description of a record."""

    def __len__(self) -> int:
        """The number of records."""

    def read(self, indices: np.ndarray) -> Records:
        """The records at indices [n]: an array [n, ...] of stored values for every field."""

    def identity(self) -> Mapping[str, int]:
        """Numbers that change with the content, by name. Two sources hold the same records if the
        numbers that both have are equal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """A data set held in memory: stored values [N, ...] of every field.

    `arrays` can be put on a device unchanged and gathered there.
    """

    name: str
    spec: Spec
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self):
        if self.arrays.keys() != self.spec.fields.keys():
            raise ValueError(
                f"{self.name} holds {sorted(self.arrays)}, but its fields are "
                f"{sorted(self.spec.fields)}."
            )
        for name, array in self.arrays.items():
            if wrong := self.spec.fields[name].wrong(array):
                raise ValueError(f"{self.name}: {name} is {wrong}.")
            if len(array) != len(self):
                raise ValueError(f"{self.name}: {len(array)} of {name} for {len(self)} records.")

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices, copied out of memory."""
        return {name: array[indices] for name, array in self.arrays.items()}

    def identity(self) -> dict[str, int]:
        """The CRC-32 of all arrays, and the number that the set would have if it were not held in
        memory."""
        rows = np.array([zlib.crc32(np.ascontiguousarray(x)) for x in self.arrays["x"]], np.uint32)
        return {
            "checksum": checksum_of(self.arrays),
            "content": content_of(rows, {k: v for k, v in self.arrays.items() if k != "x"}),
        }


def checksum_of(arrays: Mapping[str, np.ndarray]) -> int:
    """The CRC-32 of arrays, in the order of their names."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]), value)
    return value


def content_of(rows: np.ndarray, others: Mapping[str, np.ndarray]) -> int:
    """The CRC-32 of records that are read one by one. rows: the CRC-32 of each `x`, uint32 [N].
    others: the arrays of the other fields."""
    return zlib.crc32(rows, checksum_of(others))


def check_split(split: str) -> None:
    """Raises a UserError unless `split` is one of the two that every data set has."""
    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}: it is one of {', '.join(SPLITS)}.")


def held_out(name: str, holdout: int) -> bool:
    """Whether a record belongs to the test split, by the CRC-32 of its name: about one in `holdout`
    does."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) % holdout == 0
