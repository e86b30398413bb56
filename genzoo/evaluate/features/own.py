"""Feature networks that genzoo trained itself: small classifiers, whose params it brings along.

| name | trained by | on | test accuracy |
|---|---|---|---|
| fashion | `configs/classifier_fashion.py:laptop` | fashion_mini, 10,000 images | 0.893 |
| digits | `configs/classifier_mnist.py` | mnist, 60,000 images | 0.994 |

They take grey images of 28 x 28 pixels; the 64 features are what the last layer reads.
`tests/peers/make_feature_network.py` writes the file of one from a run.
"""

from functools import lru_cache
from importlib import resources

import jax.numpy as jnp

from genzoo.core import named_arrays, tree
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Tree
from genzoo.data import transforms
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.nets.unet.classifier import ClassifierUNetSettings

VERSION = "1"
HASHES = {
    "fashion": "0f2acb8234dafbdc68edf597e65f4062aa7c7cbeba5c514347da861af7286b54",
    "digits": "75a726b2b46c452c22f486f9251f54259ad3d896bc16c516a748befb8c942d76",
}
"""The digests of the weights by name (`named_arrays.digest`)."""
SIDE, CLASSES, FEATURES = 28, 10, 64
_NETWORK = ClassifierUNetSettings(
    width=32, multipliers=(1, 2), blocks=1, attention=(7,), head_width=32, patch=2, norm_groups=16,
    dtype="float32",
).build(num_classes=CLASSES)  # fmt: skip
_LAST = "pool"  # the module whose output the last layer reads


@lru_cache
def open_own(name: str) -> FeatureNetwork:
    """The network `fashion` or `digits`; the same one, with its compiled programs, every time."""
    place = resources.files("genzoo.evaluate.features") / "weights" / f"{name}.safetensors"
    arrays = named_arrays.read_safetensors(place.read_bytes())
    if named_arrays.digest(arrays) != HASHES[name]:
        raise UserError(f"{place} is damaged: install genzoo again.")
    return FeatureNetwork(
        name=name,
        version=VERSION,
        hash=HASHES[name],
        verified=True,
        resize="",
        side=0,
        channels=1,
        sides=(SIDE, SIDE),
        dimensions=FEATURES,
        classes=CLASSES,
        apply=_apply,
        params=tree.nested(arrays),
        batch_size=250,
    )


def _apply(params: Tree, images: Array) -> tuple[Array, Array]:
    x = transforms.to_float(images)
    logits, inner = _NETWORK.features(params, x, jnp.zeros(len(x)), {}, names=(_LAST,))
    return inner[_LAST], logits
