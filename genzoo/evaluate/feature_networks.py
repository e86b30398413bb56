"""Small classifiers that come with genzoo, whose features measure distances between sets of images.

| name | trained by | on | test accuracy |
|---|---|---|---|
| fashion | `configs/classifier_fashion.py:laptop` | fashion_mini, 10,000 images | 0.893 |
| digits | `configs/classifier_mnist.py` | mnist, 60,000 images | 0.98 |

Both take grey images of 28 x 28 pixels. The 64 features are the input of the last layer. The file
of a network holds its params and, as metadata, its version and the settings of its architecture;
`tests/peers/make_feature_network.py` makes it from a run.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from genzoo.data import transforms
from genzoo.nets.unet.classifier import ClassifierUNetSettings

NAMES = ("fashion", "digits")
_FEATURES = "pool"  # the module of the network whose output the last layer reads
_BATCH = 250


class Outputs(NamedTuple):
    """features: float32 [n, 64]. logits: float32 [n, classes]."""

    features: np.ndarray
    logits: np.ndarray


class FeatureNetwork:
    """A shipped classifier as a feature network.

    name, version; hash: SHA-256 of the params (`digest`), in hexadecimal digits. shape: of the
    images that it takes (H, W, C). dimensions: number of features. resize: how other images get
    this shape; "none", since they are refused.
    """

    resize = "none"

    def __init__(self, name: str):
        path = resources.files("genzoo.evaluate") / "networks" / f"{name}.safetensors"
        with resources.as_file(path) as file, safe_open(file, framework="numpy") as stored:
            about = stored.metadata()
            flat = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        self.name, self.version, self.hash = name, about["version"], digest(flat)
        self.shape = tuple(json.loads(about["shape"]))
        settings = {k: _tuples(v) for k, v in json.loads(about["network"]).items()}
        self.classes = tuple(json.loads(about["classes"]))
        network = ClassifierUNetSettings(**settings).build(num_classes=len(self.classes))
        params = _nested(flat)

        def outputs(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = transforms.to_float(images)
            logits, inner = network.features(
                params, x, jnp.zeros(len(x)), {}, names=(_FEATURES,)
            )
            return inner[_FEATURES], logits

        self._outputs = jax.jit(outputs)
        self.dimensions = jax.eval_shape(
            outputs, jax.ShapeDtypeStruct((1, *self.shape), np.uint8)
        )[0].shape[-1]

    def __call__(self, images: np.ndarray) -> Outputs:
        """The features and logits of images uint8 [n, *shape]."""
        done = []
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            rows = np.zeros((_BATCH, *self.shape), np.uint8)  # one shape: one program
            rows[: len(part)] = part
            done.append([np.asarray(value)[: len(part)] for value in self._outputs(rows)])
        return Outputs(*(np.concatenate(values) for values in zip(*done, strict=True)))


@lru_cache
def feature_network(name: str) -> FeatureNetwork:
    """The network of that name, one of NAMES, loaded once."""
    return FeatureNetwork(name)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: of names, types, shapes and values in the order of the names, and
    thus independent of the file format."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _nested(flat: Mapping[str, np.ndarray]) -> dict:
    tree: dict = {}
    for path, values in flat.items():
        *parents, last = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = values
    return tree


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
