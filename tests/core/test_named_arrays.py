"""Files of named arrays: what torch and safetensors wrote, and what is no such file."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from genzoo.core import arrays_only, named_arrays, torch_file
from genzoo.core.errors import UserError
from genzoo.core.files import Unreadable

FIXTURES = Path(__file__).parent / "fixtures"
ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "count": np.array(4), "none": np.zeros((0, 2))}


def stored():
    with np.load(FIXTURES / "tensors.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["tensors.pt", "tensors_old.pth", "tensors.safetensors"])
def test_files_of_others_hold_the_same_arrays(name):
    prefix = "" if name.endswith("safetensors") else "state_dict."
    actual, expected = named_arrays.read(FIXTURES / name), stored()
    assert actual.keys() == {prefix + each for each in expected}  # and no "epoch"
    for each, array in expected.items():
        found = actual[prefix + each]
        assert found.dtype == array.dtype and found.shape == array.shape, each
        np.testing.assert_array_equal(found, array)
        found[...] = 0  # an array of its own


def test_writing_and_reading_a_safetensors_file(tmp_path):
    arrays = stored()
    path = tmp_path / "new" / "arrays.safetensors"
    named_arrays.write_safetensors(path, arrays)
    actual = named_arrays.read(path)
    assert actual.keys() == arrays.keys()
    for name, array in arrays.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)
    again = tmp_path / "again.safetensors"
    named_arrays.write_safetensors(again, dict(reversed(arrays.items())))
    assert again.read_bytes() == path.read_bytes()


def test_the_digest_is_of_names_types_shapes_and_values(tmp_path):
    digest = named_arrays.digest(ARRAYS)
    np.savez(tmp_path / "a.npz", **ARRAYS)
    named_arrays.write_safetensors(tmp_path / "a.safetensors", ARRAYS)
    strided = {**ARRAYS, "weight": np.asfortranarray(ARRAYS["weight"]).astype(">f8")}
    same = [named_arrays.read(tmp_path / f"a.{kind}") for kind in ("npz", "safetensors")]
    for arrays in (*same, strided, dict(reversed(ARRAYS.items()))):
        assert named_arrays.digest(arrays) == digest
    others = [
        {**ARRAYS, "weight": ARRAYS["weight"].T},
        {**ARRAYS, "weight": ARRAYS["weight"].astype(np.float32)},
        {**ARRAYS, "count": np.array(5)},
        {"weights": ARRAYS["weight"], "count": ARRAYS["count"], "none": ARRAYS["none"]},
        {"weight": ARRAYS["weight"]},
    ]
    assert len({named_arrays.digest(each) for each in others} | {digest}) == 6


def of_torch(pickled, storages=None):
    """A zip file of torch with this pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, storage in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", storage)
    return content.getvalue()


class Calls:
    """Pickled as a call of a function by its name."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class Storage:
    pass


class Pickler(pickle._Pickler):
    """Writes pickles that name what is not there."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Calls):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
            self.save(tuple(obj.arguments))
            self.write(b"R")
        elif isinstance(obj, Storage):
            self.write(b"(")
            self.save("storage")
            self.write(b"ctorch\nFloatStorage\n")
            for part in ("0", "cpu", 6):
                self.save(part)
            self.write(b"tQ")
        else:
            super().save(obj, save_persistent_id)


def pickled(value):
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def tensor(offset=0, shape=(2, 3), strides=(3, 1)):
    rest = (False, OrderedDict())
    return Calls("torch._utils", "_rebuild_tensor_v2", Storage(), offset, shape, strides, *rest)


SIX = np.arange(6, dtype="<f4").tobytes()


def test_a_tensor_is_a_window_of_its_storage():
    content = of_torch(pickled({"x": tensor(1, (2, 2), (3, 1))}), {"0": SIX})
    np.testing.assert_array_equal(torch_file.read(content)["x"], [[1, 2], [4, 5]])


@pytest.mark.parametrize(
    "window",
    [
        (1, (2, 3), (3, 1)), (0, (2, 3), (4, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)),
        (0, (-2,), (1,)), (0, (2, 3), (1,)), (0, (10**9,), (0,)), (7, (1,), (1,)),
    ],
)  # fmt: skip
def test_a_window_beyond_its_storage_is_refused(window):
    with pytest.raises(Unreadable, match="tensor"):
        torch_file.read(of_torch(pickled({"x": tensor(*window)}), {"0": SIX}))


@pytest.mark.parametrize(
    "name", [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("numpy", "ndarray")]
)
def test_no_other_function_is_called(name, tmp_path):
    evil = pickled({"x": Calls(*name, f"touch {tmp_path / 'called'}")})
    with pytest.raises(Unreadable, match="which is not an array"):
        torch_file.read(of_torch(evil))
    with pytest.raises(pickle.UnpicklingError, match=r"refers to|not an array"):
        arrays_only.read(evil, {})
    assert not list(tmp_path.iterdir())


def header(entry, body=b"", length=None):
    text = json.dumps({"x": entry}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


F32 = dict(dtype="F32", shape=[2], data_offsets=[0, 8])
DAMAGED = {
    "empty.safetensors": b"",
    "short.safetensors": header(F32, b"1234"),
    "huge.safetensors": header(F32, b"12345678", 1 << 62),
    "shape.safetensors": header(F32 | {"shape": [3]}, b"12345678"),
    "type.safetensors": header(F32 | {"dtype": "Q4"}, b"12345678"),
    "list.safetensors": struct.pack("<Q", 2) + b"[]",
    "empty.pt": b"",
    "text.pth": b"version https://git-lfs\n",
    "cut.pt": of_torch(pickled({"x": tensor()}), {"0": SIX})[:-40],
    "missing.pt": of_torch(pickled({"x": tensor()})),
    "bare.pt": of_torch(b""),
    "cut.npz": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_with_a_remedy(name, tmp_path):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(UserError, match=rf"{name} cannot be read as named arrays .*get it again"):
        named_arrays.read(tmp_path / name)


def test_objects_in_npz_files_and_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    with pytest.raises(UserError, match="cannot be read as named arrays"):
        named_arrays.read(tmp_path / "objects.npz")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"weights\.h5 is no \.safetensors, \.npz, \.pt"):
        named_arrays.read(tmp_path / "weights.h5")
    with pytest.raises(UserError, match="no such file"):
        named_arrays.read(tmp_path / "other.npz")
