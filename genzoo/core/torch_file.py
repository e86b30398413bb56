"""The named tensors of a file of torch (`.pt`, `.pth`), read without torch and running nothing.

A file since torch 1.6 is a zip archive with a pickle, `NAME/data.pkl`, and one member for each
storage, `NAME/data/KEY`. An older one has five pickles in a row (a magic number, a version, the
machine, the object, the keys of the storages) and then each storage: its length in values as int64,
and the values. The pickle says which window of which storage a tensor is. It may name tensors,
parameters and storages, and nothing else.
"""

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from genzoo.core import arrays_only
from genzoo.core.files import FILE_LIMIT, Unreadable

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2",
    "Char": "i1", "Byte": "u1", "Bool": "?", "BFloat16": "<u2",
}  # fmt: skip
_DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError,
    LookupError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """The class of a storage. name: of its type, a key of _TYPES."""

    name: str


@dataclass(frozen=True)
class _Storage:
    kind: _Kind
    key: str


@dataclass(frozen=True)
class _Tensor:
    """A window of a storage, in values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, content: bytes) -> np.ndarray:
        """The tensor as an array of its own, given the bytes of its storage."""
        values = np.frombuffer(content, _TYPES[self.storage.kind.name])
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides), default=0) < 0:
            raise ValueError("a tensor has no proper shape")
        size = math.prod(self.shape)
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if self.offset < 0 or (size and self.offset + last >= len(values)) or size > len(values):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [step * values.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :] if size else values[:0], self.shape, strides, writeable=False
        )
        if self.storage.kind.name == "BFloat16":  # the upper half of a float32
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view.copy()


def _tensor(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(data, *_) -> _Tensor:
    return data


_ADMITTED: arrays_only.Admitted = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", f"{name}Storage"): _Kind(name) for name in _TYPES},
}


def read(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array, of the content of a file that holds a state dict.

    Nested dicts are joined by dots, as in checkpoints with a key "state_dict"; what is no tensor is
    left out. bfloat16 becomes float32. Raises Unreadable, with the reason as the end of a sentence.
    """
    try:
        tree, storages = (_zipped if content[:2] == b"PK" else _legacy)(content)
        tensors = dict(_tensors(tree, ""))
        return {name: tensor.of(storages(tensor.storage)) for name, tensor in tensors.items()}
    except _DAMAGED as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _tensors(tree: object, name: str, depth: int = 0):
    if isinstance(tree, _Tensor):
        yield name, tree
    elif isinstance(tree, Mapping) and depth < 8:
        for key, branch in tree.items():
            yield from _tensors(branch, f"{name}.{key}" if name else str(key), depth + 1)


def _storage(identity: object) -> _Storage:
    word, kind, key = identity[:3]
    if word != "storage" or not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("it refers to something that is no storage")
    # Older files may name a window of a storage, which torch writes for views since replaced.
    if len(identity) > 5 and identity[5] is not None:
        raise pickle.UnpicklingError("it holds views of storages, which torch no longer writes")
    return _Storage(kind, str(key))


def _zipped(content: bytes) -> tuple[object, Callable[[_Storage], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    if sum(entry.file_size for entry in archive.infolist()) > FILE_LIMIT:
        raise ValueError(f"it unpacks to more than {FILE_LIMIT} bytes")
    pickled = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        raise ValueError("it holds no tensors of torch")
    folder = pickled[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        order = archive.read(f"{folder}byteorder")
        if order != b"little":
            raise ValueError("its byte order is not little")
    tree = arrays_only.read(archive.read(pickled[0]), _ADMITTED, _storage)
    return tree, lambda storage: archive.read(f"{folder}data/{storage.key}")


def _legacy(content: bytes) -> tuple[object, Callable[[_Storage], bytes]]:
    file, kinds = io.BytesIO(content), {}

    def storage(identity: object) -> _Storage:
        found = _storage(identity)
        return kinds.setdefault(found.key, found)

    if arrays_only.read(file, {}) != _MAGIC:
        raise ValueError("it is no file of torch")
    _version, machine = arrays_only.read(file, {}), arrays_only.read(file, {})
    if not machine["little_endian"]:
        raise ValueError("its byte order is not little")
    tree, contents = arrays_only.read(file, _ADMITTED, storage), {}
    for key in arrays_only.read(file, {}):
        (count,) = struct.unpack("<q", file.read(8))
        size = count * np.dtype(_TYPES[kinds[key].kind.name]).itemsize
        contents[key] = file.read(size)
        if count < 0 or len(contents[key]) != size:
            raise ValueError("it ends early")
    return tree, lambda storage: contents[storage.key]
