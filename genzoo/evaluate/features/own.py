"""Small classifiers trained with genzoo and shipped with it, used as feature networks.

| name | trained by | on | test accuracy |
|---|---|---|---|
| fashion | `configs/classifier_fashion.py:laptop` | fashion_mini, 10,000 images | 0.893 |
| digits | `configs/classifier_mnist.py` | mnist, 60,000 images | 0.994 |
| shapes | `configs/classifier_shapes.py:laptop` | shapes_kinds, 160,000 images | 0.9998 |

The first two take grey images of 28 x 28 pixels, `shapes` takes colour images of 32 x 32. The 64
features are what the last layer reads. The captioned scenes of the test split have other objects
than those for training, half of them in combinations that never occur there: hence the large floor
of distances between the two.
`tests/peers/make_feature_network.py` writes the file of one from a run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources

import jax.numpy as jnp

from genzoo.core import named_arrays, tree
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Tree
from genzoo.data import idx, scenes, transforms
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.nets.interface import Network
from genzoo.nets.judges.distance import differences
from genzoo.nets.unet.classifier import ClassifierUNetSettings

VERSION = "1"
HASHES = {
    "fashion": "0f2acb8234dafbdc68edf597e65f4062aa7c7cbeba5c514347da861af7286b54",
    "digits": "75a726b2b46c452c22f486f9251f54259ad3d896bc16c516a748befb8c942d76",
    "shapes": "c7e77417acf8ccb5abec1387cdc7c47bb04c1949c15ecf2611a82be5b2677aca",
}
"""The digests of the weights by name (`named_arrays.digest`)."""
FEATURES = 64
_LAST = "pool"  # the module whose output the last layer reads
_MAPS = ("down_0_block_0", "down_1_block_0", "middle_1")
"""The modules whose outputs `distance` compares: at half, a quarter and a quarter of the sides."""


@dataclass(frozen=True, kw_only=True)
class _Own:
    """side, channels: of the images. names: of the classes."""

    side: int
    channels: int
    names: tuple[str, ...]

    @property
    def network(self) -> Network:
        return ClassifierUNetSettings(
            width=32, multipliers=(1, 2), blocks=1, attention=(self.side // 4,), head_width=32,
            patch=2, norm_groups=16, dtype="float32",
        ).build(num_classes=len(self.names))  # fmt: skip


_OWN: Mapping[str, _Own] = {
    "fashion": _Own(side=28, channels=1, names=idx.FASHION_SPEC.classes),
    "digits": _Own(side=28, channels=1, names=idx.MNIST_SPEC.classes),
    "shapes": _Own(side=32, channels=3, names=scenes.KINDS),
}


@lru_cache
def open_own(name: str) -> FeatureNetwork:
    """The network of that name; the same one, with its compiled programs, every time."""
    place = resources.files("genzoo.evaluate.features") / "weights" / f"{name}.safetensors"
    arrays = named_arrays.read_safetensors(place.read_bytes())
    if named_arrays.digest(arrays) != HASHES[name]:
        raise UserError(f"{place} is damaged: install genzoo again.")
    own = _OWN[name]
    return FeatureNetwork(
        name=name,
        version=VERSION,
        hash=HASHES[name],
        verified=True,
        resize="",
        side=0,
        channels=own.channels,
        sides=(own.side, own.side),
        dimensions=FEATURES,
        classes=len(own.names),
        names=own.names,
        apply=partial(_apply, own.network),
        params=tree.nested(arrays),
        batch_size=250,
    )


def _apply(network: Network, params: Tree, images: Array) -> tuple[Array, Array]:
    x = transforms.to_float(images)
    logits, inner = network.features(params, x, jnp.zeros(len(x)), {}, names=(_LAST,))
    return inner[_LAST], logits


def images_of(name: str) -> tuple[int, int]:
    """The sides and the channels of the images that the network of that name takes."""
    return _OWN[name].side, _OWN[name].channels


def distance(name: str) -> Callable[[Array, Array], Array]:
    """(two batches of images [B, H, W, C] in [-1, 1]) -> their distances [B], by the network of
    that name; a function of JAX. It is LPIPS with this network and equal weights: the mean over
    three maps of their squared differences, summed over channels."""
    network, params = _OWN[name].network, open_own(name).params

    def between(one: Array, other: Array) -> Array:
        both = jnp.concatenate([one, other])  # one pass over the weights
        _, maps = network.features(params, both, jnp.zeros(len(both)), {}, names=_MAPS)
        each = (differences(h[: len(one)], h[len(one) :]).sum(-1) for h in maps.values())
        return sum(each) / len(_MAPS)

    return between
