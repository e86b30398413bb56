"""Files of named arrays (`.safetensors`, `.npz`, `.pt`), and a hash that does not depend on which.

`.safetensors` and `.npz` are read without pickles, files of torch by `torch_file`.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy

from genzoo.core import torch_file
from genzoo.core.errors import UserError
from genzoo.core.files import FILE_LIMIT, Unreadable, expanded, read_bytes, write_atomically

_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": bool,
}  # fmt: skip
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, TypeError, EOFError,
    AttributeError, OSError, MemoryError, RecursionError, NotImplementedError, OverflowError,
)  # fmt: skip


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array. bfloat16 becomes float32. Raises a UserError that names the file."""
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give a .safetensors, .npz or .pt file.")
    if path.suffix.lower() not in _READERS:
        raise UserError(
            f"{path} is no {', '.join(_READERS)} file: save the arrays by "
            "safetensors.numpy.save_file or numpy.savez."
        )
    try:
        return _READERS[path.suffix.lower()](read_bytes(path))
    except Unreadable as reason:
        raise UserError(
            f"{path} cannot be read as named arrays ({reason}): get it again, or save the arrays "
            "by safetensors.numpy.save_file or numpy.savez."
        ) from reason


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of named arrays, in hexadecimal, whatever their file and order.

    It is that of a line "name type shape" for each array, in the order of the names, followed by
    its values in C order and little-endian bytes: `layer.weight <f4 (8, 3)`.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), order="C")
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors file, whole or not at all. The same arrays give the same bytes."""
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    write_atomically(path, safetensors.numpy.save(ordered))


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array, of the content of a .safetensors file. Raises Unreadable."""
    try:
        return {name: _array(entry) for name, entry in safetensors.deserialize(content)}
    except (safetensors.SafetensorError, *_DAMAGED) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _array(entry: Mapping) -> np.ndarray:
    # safetensors.numpy.load does not know bfloat16.
    array = np.frombuffer(entry["data"], _TYPES[entry["dtype"]]).reshape(entry["shape"])
    return array.astype(np.float32) if entry["dtype"] == "BF16" else array.copy()


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > FILE_LIMIT:
                raise ValueError(f"it unpacks to more than {FILE_LIMIT} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


_READERS = {
    ".safetensors": read_safetensors,
    ".npz": _read_npz,
    ".pt": torch_file.read,
    ".pth": torch_file.read,
}
