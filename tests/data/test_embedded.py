"""The embedded subset: complete, and unchanged since it was taken from the verified full set."""

import hashlib
from importlib import resources

import numpy as np
import pytest

from genzoo.core.errors import UserError
from genzoo.data.embedded import open_fashion_mini

# MD5 of images then labels, computed from the verified full set (embedded/README.md).
PROVED = {
    "train": (1000, "8e4f986664d128715718568a078a490b"),
    "test": (200, "a9b2ea71362180908eca3cf40a3d87b5"),
}


@pytest.mark.parametrize("split", PROVED)
def test_the_subset_is_the_one_cut_out(split):
    source = open_fashion_mini(split)
    each, proved = PROVED[split]
    image, label = source.arrays["x"], source.arrays["label"]
    assert image.shape == (10 * each, 28, 28, 1) and source.spec.shape == (28, 28, 1)
    np.testing.assert_array_equal(np.bincount(label), [each] * 10)
    assert hashlib.md5(image.tobytes() + label.astype(np.uint8).tobytes()).hexdigest() == proved
    assert len(source.spec.classes) == 10 and source.spec.classes[9] == "Ankle boot"


def test_it_is_small_and_carries_its_licence():
    files = list((resources.files("genzoo") / "data" / "embedded").iterdir())
    assert sum(len(file.read_bytes()) for file in files) < 8_000_000
    licence = next(file for file in files if file.name == "LICENSE").read_text()
    assert "MIT License" in licence and "Zalando SE" in licence


def test_an_unknown_split_is_the_users_mistake():
    with pytest.raises(UserError, match="no split 'validation'"):
        open_fashion_mini("validation")
