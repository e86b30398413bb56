"""Fashion-mini: a subset of Fashion-MNIST that ships with genzoo.

With it a first run needs no network. It has 10,000 training and 2,000 test images: the first 1,000
and 200 of each class, in the original order. `embedded/README.md` describes how it was made. MIT
licence, copyright Zalando SE.
"""

import io
from importlib import resources

import numpy as np

from genzoo.data.idx import FASHION_SPEC
from genzoo.data.source import ArraySource, check_split


def open_fashion_mini(split: str) -> ArraySource:
    """The "train" or "test" split: `x` uint8 [N, 28, 28, 1], `label` int32 [N]."""
    from PIL import Image

    check_split(split)
    folder = resources.files("genzoo") / "data" / "embedded"
    labels = np.frombuffer((folder / f"{split}-labels.bin").read_bytes(), np.uint8)
    with Image.open(io.BytesIO((folder / f"{split}.png").read_bytes()), formats=("PNG",)) as strip:
        image = np.asarray(strip).reshape(-1, 28, 28, 1)  # images one below the other
    return ArraySource(
        name="fashion_mini",
        spec=FASHION_SPEC,
        arrays={"x": image, "label": labels.astype(np.int32)},
    )
