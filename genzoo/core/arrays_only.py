"""Pickles that others made, read without running what they ask for.

A pickle is a program: it names functions and calls them. The reader here looks a name up in a
mapping that its caller gives, and refuses any other before importing anything.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

Admitted = Mapping[tuple[str, str], object]
"""(module, name) as a pickle has it -> what stands for it."""

_RECONSTRUCT = np.zeros(0).__reduce__()[0]
NUMPY: Admitted = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""The three callables that rebuild an array of NumPy, from before and after version 2."""


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: BinaryIO, admitted: Admitted, persistent: Callable, encoding: str):
        super().__init__(file, encoding=encoding)
        self._admitted, self._persistent = admitted, persistent

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in self._admitted:
            return self._admitted[module, name]
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not an array")

    def persistent_load(self, identity: object) -> object:
        return self._persistent(identity)


def read(
    content: bytes | BinaryIO,
    admitted: Admitted = NUMPY,
    persistent: Callable[[Any], object] | None = None,
    encoding: str = "ASCII",
) -> Any:
    """The object in a pickle, from bytes or from where a file stands; the file is left behind it.

    admitted: the names that the pickle may use. persistent: called with what the pickle says of
    objects outside it; None refuses them. encoding: of texts of Python 2, or "bytes". Raises nearly
    any exception on damaged content, and UnpicklingError for other names.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    return _ArraysOnly(file, admitted, persistent or _refused, encoding).load()


def _refused(identity: object) -> object:
    raise pickle.UnpicklingError("it refers to objects outside it")
