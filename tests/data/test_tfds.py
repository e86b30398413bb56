"""Prepared TFDS sets are read without TensorFlow. The tests write array_record files by hand."""

import hashlib
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genzoo.core.errors import UserError
from genzoo.data import cifar, fetch, tfds_folder
from genzoo.data.fields import Tokens, Vector
from genzoo.data.prepare_tfds import _link
from genzoo.data.source import ArraySource
from genzoo.data.tfds import TfdsSource, open_tfds
from genzoo.data.vocabulary import Bytes

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(7) % 2
PROPERTIES = RNG.normal(size=(7, 2)).astype(np.float32)


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_set(root, name, version, features, splits):
    """Writes a set as TFDS prepares it: records of serialised examples beside their description."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from etils import epath
    from tensorflow_datasets.proto import tf_example_pb2

    folder = root / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, records in splits.items():
        file = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in records:
            example = tf_example_pb2.Example()
            for key, value in record.items():
                field = example.features.feature[key]
                if isinstance(value, bytes):
                    field.bytes_list.value.append(value)
                elif isinstance(value, np.ndarray):
                    field.float_list.value.extend(value.tolist())
                else:
                    field.int64_list.value.append(int(value))
            writer.write(example.SerializeToString())
        writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder),
            dataset_name=name,
            split=split,
            filetype_suffix="array_record",
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(records)], num_bytes=1, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=infos, check_data=False
    )


@pytest.fixture
def tiny(tmp_path):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "kind": tfds.features.ClassLabel(names=["left", "right"]),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "caption": tfds.features.Text(),
        }
    )
    records = [
        {"picture": png(image), "kind": kind, "size": size, "caption": b"ab"[: 1 + kind]}
        for image, kind, size in zip(IMAGES, LABELS, PROPERTIES, strict=True)
    ]
    write_set(tmp_path, "tiny", "1.0.0", features, {"train": records, "test": records[:3]})
    return str(tmp_path)


def test_records_are_found_by_the_types_of_their_features(tiny):
    source = open_tfds("tiny", "train", size=8, directory=tiny)
    assert isinstance(source, ArraySource) and source.spec.classes == ("left", "right")
    np.testing.assert_array_equal(source.arrays["x"], IMAGES)
    np.testing.assert_array_equal(source.arrays["label"], LABELS)


def test_too_large_for_memory_is_read_from_the_files(tiny):
    source = open_tfds("tiny", "train[:5]", size=8, directory=tiny, memory_limit=10)
    assert isinstance(source, TfdsSource) and len(source) == 5
    records = source.read(np.array([4, 0]))
    np.testing.assert_array_equal(records["x"], IMAGES[[4, 0]])
    np.testing.assert_array_equal(records["label"], LABELS[[4, 0]])
    assert records["label"].dtype == np.int32


@pytest.mark.parametrize("limit", [10, 10_000])
def test_other_features_are_fields_where_they_are_asked_for(tiny, limit):
    others = {
        "size": Vector(shape=(2,)),
        "caption": Tokens(shape=(3,), vocabulary=257, tokenizer=Bytes()),
    }
    source = open_tfds(
        "tiny", "train", size=8, directory=tiny, others=others, memory_limit=limit
    )
    assert isinstance(source, TfdsSource if limit == 10 else ArraySource)
    assert set(source.spec.fields) == {"x", "label", "size", "caption"}
    found = source.read(np.array([3, 0]))
    np.testing.assert_array_equal(found["size"], PROPERTIES[[3, 0]])
    np.testing.assert_array_equal(found["caption"], [[98, 99, 0], [98, 0, 0]])
    np.testing.assert_array_equal(found["x"], IMAGES[[3, 0]])
    for name, values in found.items():
        assert not source.spec.fields[name].wrong(values)
    with pytest.raises(UserError, match=r"no feature 'area': it has \['caption', 'kind'"):
        open_tfds("tiny", "train", size=8, directory=tiny, others={"area": Vector(shape=(1,))})
    wrong = {"size": Vector(shape=(3,))}
    with pytest.raises(UserError, match=r"'size' of tfds:tiny cannot be the field size: its shape"):
        open_tfds("tiny", "train", size=8, directory=tiny, others=wrong)


@pytest.mark.parametrize("size", [4, (4, 6)])
def test_images_are_fitted(tiny, size):
    source = open_tfds("tiny", "test", size=size, channels=1, directory=tiny)
    assert source.arrays["x"].shape == (3, 4, 4 if size == 4 else 6, 1)


def test_mistakes_are_told(tiny):
    with pytest.raises(UserError, match=r"no split 'dev': it has .*train"):
        open_tfds("tiny", "dev", size=8, directory=tiny)
    with pytest.raises(UserError, match="prepare_tfds mnist --data_dir="):
        open_tfds("mnist", "train", size=8, directory=tiny)
    with pytest.raises(UserError, match="knows no data set 'nosuchset'"):
        open_tfds("nosuchset", "train", size=8, directory=tiny)
    with pytest.raises(UserError, match="only: "):
        open_tfds("tiny:99.0.0", "train", size=8, directory=tiny)


def test_tensorflow_stays_out(tiny):
    program = (
        "import sys\n"
        "from genzoo.data.tfds import open_tfds\n"
        f"assert len(open_tfds('tiny', 'train', size=8, directory={tiny!r})) == 7\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_prepared_cifar10_is_put_back_in_its_order(tmp_path, monkeypatch):
    import dataclasses

    import tensorflow_datasets as tfds

    images = RNG.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    labels = RNG.integers(0, 10, 10)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=cifar.SPEC.classes),
        }
    )

    def records(split):
        return [
            {"id": f"{split}_{i:05}".encode(), "image": png(images[i]), "label": labels[i]}
            for i in RNG.permutation(10)
        ]

    splits = {split: records(split) for split in ("train", "test")}
    write_set(tmp_path, "cifar10", "3.0.2", features, splits)
    md5 = {
        name: fetch.md5(cifar.encode(images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2]))
        for i, name in enumerate(cifar.TRAIN)
    } | {"test_batch.bin": fetch.md5(cifar.encode(images, labels))}
    monkeypatch.setattr(cifar, "PUBLISHED", dataclasses.replace(cifar.PUBLISHED, md5=md5))
    for place in (tmp_path, tmp_path / "cifar10", tmp_path / "cifar10" / "3.0.2"):
        source = cifar.open_cifar10("train", str(place))
        np.testing.assert_array_equal(source.arrays["x"], images)
        np.testing.assert_array_equal(source.arrays["label"], labels)


def test_preparing_without_tensorflow_says_what_is_missing(tmp_path):
    hidden = (
        "import sys; sys.modules['tensorflow'] = None; sys.argv[1:] = ['mnist', '--data_dir=.']\n"
    )
    program = hidden + "from genzoo.data.prepare_tfds import main; sys.exit(main())\n"
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 2 and "tfds-prepare" in done.stderr and "Traceback" not in done.stderr


def test_a_local_archive_must_be_the_registered_one(tmp_path):
    archive, manual = tmp_path / "mine.tar.gz", tmp_path / "manual"
    archive.write_bytes(b"content")
    manual.mkdir()
    sha = hashlib.sha256(b"content").hexdigest()

    def builder(checksum):
        info = SimpleNamespace(checksum=checksum, filename="registered.tar.gz")
        return SimpleNamespace(name="some_set", url_infos={"https://address": info})

    with pytest.raises(UserError, match=rf"SHA-256 {sha}, .*some_set.*registered\.tar\.gz"):
        _link(builder("0" * 64), archive, manual)
    with pytest.raises(UserError, match="no file"):
        _link(builder(sha), tmp_path / "absent", manual)
    _link(builder(sha), archive, manual)
    assert (manual / "registered.tar.gz").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"type": "tensorflow_datasets.core.features.a.Text", "type": "b"}', "occurs twice"),
        ('{"size": NaN}', "NaN is not a number"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_a_description_that_is_not_json_is_refused(tmp_path, content, why):
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(UserError, match=rf"features\.json is damaged \(.*{why}.*\): restore it"):
        tfds_folder.opened(tmp_path)
