"""Files of named arrays (`.safetensors`, `.npz`, `.pt`), and a hash that does not depend on which.

A safetensors file is the length of a header as uint64, the header as JSON (name -> type, shape and
place), and the bytes of all arrays. It and `.npz` are read without pickles, files of torch by
`torch_file`.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genzoo.core import torch_file
from genzoo.core.errors import UserError
from genzoo.core.files import FILE_LIMIT, Unreadable, read_bytes, write_atomically

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?", "BF16": "<u2",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _TYPES.items() if name != "BF16"}
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, LookupError, TypeError, EOFError,
    AttributeError, OSError, MemoryError, RecursionError, NotImplementedError, OverflowError,
)  # fmt: skip


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array. bfloat16 becomes float32. Raises a UserError that names the file."""
    path = Path(path).expanduser()
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
    header, parts, place = {}, [], 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        part = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
        ends = [place, place := place + len(part)]
        kind = _NAMES[array.dtype.newbyteorder("=")]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": ends}
        parts.append(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, struct.pack("<Q", len(text)) + text + b"".join(parts))


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array, of the content of a .safetensors file. Raises Unreadable."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
        return {
            name: _array(entry, body) for name, entry in header.items() if name != "__metadata__"
        }
    except _DAMAGED as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _array(entry: Mapping, body: bytes) -> np.ndarray:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body):
        raise ValueError("an array lies outside the file")
    array = np.frombuffer(body[start:end], _TYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.copy()


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
