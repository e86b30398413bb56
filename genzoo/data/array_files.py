"""Array files of NumPy, which are untrusted: nothing that needs pickle is loaded."""

import io
from zipfile import is_zipfile

import numpy as np
from numpy.lib.npyio import NpzFile

_MAGIC = b"\x93NUMPY"


def load(content: bytes) -> np.ndarray | NpzFile:
    """The array of a .npy file, or the archive in a .npz file. Raises ValueError for anything else,
    and for objects; the text is the reason, as a clause."""
    if not content:
        raise ValueError("it is empty")
    stream = io.BytesIO(content)
    if not content.startswith(_MAGIC) and not is_zipfile(stream):
        if content.startswith(b"PK"):
            raise ValueError("the archive is cut short")
        raise ValueError("it is neither a .npy nor a .npz file of NumPy")
    stream.seek(0)
    try:
        return np.load(stream, allow_pickle=False)
    except Exception as error:  # NumPy and the zip library raise nearly anything on damaged files
        raise ValueError(why(error)) from error


def why(error: Exception) -> str:
    """Why an array could not be loaded. NumPy would advise to allow pickle, which runs code."""
    if "pickle" in str(error) or "Object arrays" in str(error):
        return "it holds Python objects, not numbers"
    return str(error) or type(error).__name__
