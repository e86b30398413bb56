"""A feature network: from uint8 images to the vectors that distances compare.

Every number that depends on one is reported with its name, version, resizing and weight hash.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.types import Array, Tree
from genzoo.math import resizing
from genzoo.runtime.progress import tracked

Apply = Callable[[Tree, Array], tuple[Array, Array | None]]
"""(params, float32 images [B, H, W, C] in levels from 0 to 255, resized) -> (features [B, D],
logits [B, classes] for the Inception score, or None)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureNetwork:
    """A network with its weights.

    name: as in the table. version: of the weights and of what is done to the images. hash: the
    SHA-256 of the weights (`named_arrays.digest`). verified: whether they are known to be the
    published ones. resize: a kind of `math.resizing`, or "" for none. side: the height and width
    that images are resized to; 0 for their own. sides: the only height and width that it takes; ()
    for any. channels: those of its images; grey images become coloured ones. dimensions: D.
    classes: the number of logits, or 0. names: those of the classes, if they are known. batch_size:
    images at a time.
    """

    name: str
    version: str
    hash: str
    verified: bool
    resize: str
    side: int
    channels: int
    dimensions: int
    classes: int
    apply: Apply
    params: Tree = field(repr=False)
    sides: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    batch_size: int = 64

    @property
    def protocol(self) -> dict[str, object]:
        """What a number tells of the network that it depends on."""
        return {
            "features": self.name,
            "version": self.version,
            "hash": self.hash,
            "verified": self.verified,
            "resize": f"{self.resize} to {self.side}" if self.resize else "none",
        }

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features float32 [n, D] of images uint8 [n, h, w, c]. Raises UserError."""
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features float32 [n, D], and logits float32 [n, classes] or None. Raises UserError.

        Those of an image do not depend on its batch. One program is compiled for each size of
        images and of batches.
        """
        check_images(self.name, images, self.channels)
        if problem := self.problem(images.shape[1:]):
            raise UserError(problem)
        features = np.empty((len(images), self.dimensions), np.float32)
        logits = np.empty((len(images), self.classes), np.float32) if self.classes else None
        done = 0

        def apply(batch: np.ndarray) -> tuple[Array, Array | None]:
            return self._program(self.params, batch)

        for count, out in in_batches(apply, (images,), self.batch_size, f"{self.name} features"):
            features[done : done + count] = np.asarray(out[0])[:count]
            if logits is not None:
                logits[done : done + count] = np.asarray(out[1])[:count]
            done += count
        return features, logits

    def problem(self, shape: Sequence[int]) -> str:
        """Why it does not take images of this shape (h, w, c); "" if it does."""
        height, width, channels = shape
        if channels not in (1, self.channels):
            taken = "grey" if self.channels == 1 else "grey or colour"
            return f"{self.name} takes {taken} images, and these have {channels} channels."
        if self.sides and (height, width) != self.sides:
            own = " x ".join(map(str, self.sides))
            return f"{self.name} takes images of {own} pixels, and these have {height} x {width}."
        return ""

    def __post_init__(self):
        def program(params: Tree, images: Array) -> tuple[Array, Array | None]:
            x = images.astype(jnp.float32)
            if self.resize:
                x = resized(x, self.resize, self.side)
            if x.shape[-1] < self.channels:
                x = jnp.repeat(x, self.channels, -1)
            # Otherwise GPUs round to TF32 and TPUs to bfloat16, and numbers could not be compared.
            with jax.default_matmul_precision("highest"):
                return self.apply(params, x)

        object.__setattr__(self, "_program", jax.jit(program))


def resized(images: Array, kind: str, side: int) -> Array:
    """Images [B, H, W, C] in levels from 0 to 255 -> [B, side, side, C], not rounded."""
    if images.shape[1:3] == (side, side):
        return images
    rows, columns = (resizing.matrix(kind, n, side).astype(np.float32) for n in images.shape[1:3])
    out = jnp.einsum("qw,bhwc->bhqc", columns, images, precision="highest")
    out = jnp.einsum("ph,bhqc->bpqc", rows, out, precision="highest")
    return jnp.clip(out, 0, 255)  # cubic kernels overshoot


def check_images(name: str, images: np.ndarray, channels: int) -> None:
    """Raises UserError unless the images are uint8 [n, h, w, 1 or `channels`]. name: for it."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, channels):
        wanted = "grey images" if channels == 1 else "grey or colour images"
        raise UserError(
            f"{name} sees {wanted}, uint8 [n, h, w, c], and cannot compare {images.dtype} "
            f"{list(images.shape)}: choose a network that sees such data."
        )


def in_batches(
    apply: Callable, arrays: Sequence[np.ndarray], batch_size: int, what: str
) -> Iterator[tuple[int, Array]]:
    """(count, apply(rows of each array)) for every batch; the first `count` results are of rows.

    All batches are of one size, the last one filled up. what: for the progress, shown if there are
    several batches.
    """
    total = len(arrays[0])
    size = min(batch_size, total)
    starts = range(0, total, size) if size else range(0)
    for start in tracked(starts, what) if len(starts) > 1 else starts:
        batch = [array[start : start + size] for array in arrays]
        count = len(batch[0])
        filled = [np.concatenate([rows, np.repeat(rows[:1], size - count, 0)]) for rows in batch]
        yield count, apply(*filled)
