"""`inception`: the network of the Fréchet Inception distance. This alone is called FID.

No package ships its weights; the user gives a file. It holds arrays named as in pytorch-fid
(`Mixed_5b.branch1x1.conv.weight`), and may be that project's `.pth`, or the same arrays as `.npz`
or `.safetensors`. The hash is of the arrays that the network uses, in these names and in torch's
layout, as float32, so that it does not depend on the kind of file.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import named_arrays, tree
from genzoo.core.errors import UserError, listed
from genzoo.core.files import Unreadable, expanded, read_bytes
from genzoo.core.types import Array, Tree
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.nets.judges.inception import FEATURES, LOGITS, SIDE, Inception

VERSION = "2015-12-05"
RESIZES = ("legacy", "clean", "pytorch")
FILE_HASH = "6726825d"
"""The start of the SHA-256 of the published file, which its name carries."""
WHERE = (
    "The weights of FID's network come with pytorch-fid (the file "
    f"pt_inception-2015-12-05-{FILE_HASH}.pth of its release fid_weights) or torch-fidelity, and "
    "genzoo does not ship them: download that file and name it in eval.features."
)


def open_inception(path: str | Path, resize: str = "legacy") -> FeatureNetwork:
    """FID's network, with weights from a .pt, .pth, .npz or .safetensors file. Raises UserError.

    resize: "legacy" as TensorFlow does and FID was defined, "clean" as clean-fid, or "pytorch" as
    pytorch-fid. They give different numbers. pytorch-fid also scales levels to [-1, 1] by 255 / 2
    and the others by 128, and so does this.
    """
    if not str(path):
        raise UserError(WHERE)
    if resize not in RESIZES:
        raise UserError(f"resize = {resize!r} is not one of {', '.join(map(repr, RESIZES))}.")
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. {WHERE}")
    used = select(named_arrays.read(path), str(path))
    return FeatureNetwork(
        name="inception",
        version=VERSION,
        hash=named_arrays.digest(used),
        verified=is_published(path),
        resize=resize,
        side=SIDE,
        channels=3,
        dimensions=FEATURES,
        classes=LOGITS,
        apply=pytorch_levels if resize == "pytorch" else legacy_levels,
        params=to_params(used),
    )


def is_published(path: Path) -> bool:
    """Whether a file of weights is byte for byte the one of pytorch-fid and torch-fidelity."""
    # The hash of the published arrays is not known without the file, that of the file is.
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest().startswith(FILE_HASH)
    except Unreadable:
        return False


@cache
def shapes() -> Mapping[str, tuple[int, ...]]:
    """Name in pytorch-fid -> shape in torch's layout, of every array that the network uses."""
    x = jnp.zeros((1, SIDE, SIDE, 3))
    params = jax.eval_shape(Inception().init, jax.random.key(0), x)["params"]
    return {
        _name(path): tuple(leaf.shape[i] for i in _AXES[len(leaf.shape)])
        for path, leaf in tree.by_path(params).items()
    }


_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # of arrays of ours in torch's order
_BACK = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _name(path: str) -> str:
    # Flax calls the weight of a convolution its kernel.
    return path.replace("/kernel", "/weight").replace("fc_", "fc/").replace("/", ".")


def _path(name: str) -> str:
    path = name.replace(".", "/").replace("fc/", "fc_")
    return path.replace("conv/weight", "conv/kernel")


def select(arrays: dict[str, np.ndarray], called: str) -> dict[str, np.ndarray]:
    """The arrays that the network uses, as float32. called: the file, for errors (UserError)."""
    wanted = shapes()
    if missing := sorted(wanted.keys() - arrays.keys()):
        raise UserError(
            f"{called} is not FID's network: it has no array {listed(map(repr, missing))}. {WHERE}"
        )
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{called} is not FID's network: {name!r} has shape "
                f"{list(arrays[name].shape)}, not {list(shape)}. {WHERE}"
            )
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise UserError(f"{called}: {name!r} does not hold finite numbers; get the file again.")
    return {name: arrays[name].astype(np.float32) for name in wanted}


def to_params(arrays: dict[str, np.ndarray]) -> Tree:
    """The params of `Inception` from the arrays of pytorch-fid."""
    return tree.nested({
        _path(name): jnp.asarray(array.transpose(_BACK[array.ndim]))
        for name, array in arrays.items()
    })  # fmt: skip


def legacy_levels(params: Tree, images: Array) -> tuple[Array, Array]:
    """Features and scores of images [B, 299, 299, 3] in levels, scaled as in TensorFlow's graph."""
    judged = Inception().apply({"params": params}, (images - 128) / 128)
    return judged.features, judged.scores


def pytorch_levels(params: Tree, images: Array) -> tuple[Array, Array]:
    """Features and scores of images [B, 299, 299, 3] in levels, scaled as in pytorch-fid."""
    judged = Inception().apply({"params": params}, images * (2 / 255) - 1)
    return judged.features, judged.scores
