"""Folders of signals: what their files hold, and that every mistake names its file."""

import io
import logging
import zipfile

import numpy as np
import pytest

from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data.signal_folder import open_signals
from genzoo.settings import DataSettings

RNG = np.random.default_rng(0)
LENGTH = 6


def signal(*channels):
    return RNG.normal(size=(LENGTH, *channels))


def opened(folder, channels=1, split="train"):
    """(the settings with facts, the source)."""
    data = DataSettings(name=f"signals:{folder}", size=LENGTH, channels=channels)
    data, _ = datasets.with_facts(data, ("label", "text", "properties"))
    return data, datasets.open_source(data, split)


def archives(folder, count=6, **first):
    """Files with everything that one may hold. first: other arrays of the first file."""
    for i in range(count):
        arrays = dict(
            x=signal(2), text=f"number {i}", label=i % 2, porosity=i / 4, moments=[i, -2 * i]
        )
        arrays |= first if i == 0 else {}
        np.savez(folder / f"{i}.npz", **{k: v for k, v in arrays.items() if v is not None})


def test_arrays_alone_of_any_real_type(tmp_path):
    values = {}
    for i, kind in enumerate((np.float64, ">f4", np.float16, np.int8)):
        values[i] = signal().astype(kind)
        np.save(tmp_path / f"{i}.npy", values[i] if i % 2 else values[i][:, None])
    parts = [open_signals(str(tmp_path), size=LENGTH, channels=1, split=s) for s in
             ("train", "test")]  # fmt: skip
    records = np.concatenate([part.arrays["x"] for part in parts])
    assert records.dtype == np.float32 and records.shape == (4, LENGTH, 1)
    expected = [value.astype(np.float32)[:, None] for value in values.values()]
    assert {r.tobytes() for r in records} == {e.tobytes() for e in expected}
    assert list(parts[0].arrays) == ["x"]


def test_archives_hold_all_the_fields(tmp_path):
    archives(tmp_path)
    data, train = opened(tmp_path, 2)
    assert data.classes == ("0", "1") and "number" in data.words and data.tokens == 2
    assert [name for name, _, _ in data.columns] == ["porosity", "moments[0]", "moments[1]"]
    test = datasets.open_source(data, "test")
    assert len(train) + len(test) == 6 and train.spec == test.spec == datasets.spec(data)
    for source in (train, test):
        records = source.read(np.arange(len(source)))
        number = records["properties"][:, 1]
        np.testing.assert_array_equal(records["label"], number % 2)
        np.testing.assert_array_equal(records["properties"][:, 0], number / 4)
        np.testing.assert_array_equal(records["properties"][:, 2], -2 * number)
        for i, x in zip(number, records["x"], strict=True):
            np.testing.assert_array_equal(x, np.load(tmp_path / f"{i:.0f}.npz")["x"].astype("f4"))
    assert train.spec.fields["text"].text(train.arrays["text"][0]).startswith("number ")


def test_metadata_and_sub_folders_work_as_for_images(tmp_path):
    for i in range(4):
        place = tmp_path / "ab"[i % 2]
        place.mkdir(exist_ok=True)
        np.save(place / f"{i}.npy", signal())
    assert open_signals(str(tmp_path), size=LENGTH, channels=1).spec.classes == ("a", "b")
    lines = [f"{'ab'[i % 2]}/{i}.npy,{i},it" for i in range(4)]
    table = tmp_path / "metadata.csv"
    table.write_text("\n".join(["file_name,grain,text", *lines]))
    data, source = opened(tmp_path)
    assert data.columns[0][0] == "grain" and data.classes == ("a", "b")
    assert set(source.arrays) == {"x", "label", "text", "properties"}
    np.save(tmp_path / "b" / "1.npy", signal()[:-1])
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/b/1.npy ({table}, line 3): it has 5 samples, but data.size = 6; cut or "
        "resample it."
    )


def test_a_column_of_npz_files_may_be_left_unread(tmp_path):
    archives(tmp_path, text=None)
    source = open_signals(str(tmp_path), size=LENGTH, channels=2)
    assert set(source.arrays) == {"x", "label"}
    with pytest.raises(UserError, match=r"0\.npz: it has no 'text', but .*1\.npz does"):
        opened(tmp_path, 2)


def packed(**files):
    """A zip file that is not one of arrays."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (dict(x=signal(2)[:4]), "it has 4 samples, but data.size = 6"),
        (dict(x=signal(3)), "it has 3 channels, but data.channels = 2"),
        (dict(x=signal(2, 2)), r"its shape is \(6, 2, 2\), but must be"),
        (dict(x=signal(2) * 1j), "its values are complex128, but must be real"),
        (dict(x=np.full((LENGTH, 2), np.nan)), "sample 0 is not finite"),
        (dict(x=1e4 * signal(2)), "values beyond 100 cannot be modelled; divide"),
        (dict(x=None), "it has no key 'x', only"),
        (dict(x=None, signal=signal(2)), r"key 'signal' is unknown, .*; the signal is 'x'"),
        (dict(text=" "), "key 'text': the caption is empty"),
        (dict(text=3), "key 'text' is int64 .* must be one caption"),
        (dict(label=["a", "b"]), "key 'label' is .* must be one class"),
        (dict(porosity=np.inf), "key 'porosity' holds inf, which is not a finite number; replace"),
        (dict(porosity=1e300), r"key 'porosity' holds 1e\+300, which is too large"),
        (dict(porosity=[]), r"key 'porosity' is unknown, and is float64 of shape \(0,\)"),
        (dict(porosity=[1, 2]), r"1.npz: key 'porosity' has the shape \(\), but \(2,\) in .*0.npz"),
        ({"moments[0]": 1}, r"two keys give the number 'moments\[0\]'; rename"),
        ({"a=b": 1}, "key 'a=b' has the name 'a=b', which cannot be requested"),
        (dict(porosity="high"), "key 'porosity' is unknown, and is <U4"),
        (dict(porosity=np.ones((2, 2))), r"key 'porosity' is unknown, and is float64 of shape"),
        (dict(grain=3), "1.npz: it has no 'grain', but .*0.npz does"),
        (dict(moments=[1.0]), r"1.npz: key 'moments' has the shape \(2,\), but \(1,\) in .*0.npz"),
    ],
)
def test_a_mistake_names_its_file(tmp_path, arrays, sentence):
    archives(tmp_path, 4, **arrays)
    with pytest.raises(UserError, match=sentence) as caught:
        opened(tmp_path, 2)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/") and problem.endswith(".")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0.npy", b""),
        ("0.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'"),
        ("0.npy", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin\x94."),  # a pickle
        ("0.npz", b"garbage"),
        ("0.npz", b"PK\x03\x04 and no more"),
        ("0.npz", packed(x="not an array")),
        ("0.npz", packed(**{"x.npy": "not an array"})),
    ],
)
def test_damaged_files_and_pickles_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"0\.np[yz]: .*cannot be read as an array") as caught:
        open_signals(str(tmp_path), size=LENGTH, channels=1)
    assert "allow_pickle" not in str(caught.value)
    np.save(tmp_path / "1.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"1\.npy: .* an array \(it holds Python objects, not num"):
        open_signals(str(tmp_path), size=LENGTH, channels=1)


def test_a_set_of_an_unusual_size_is_warned_of(tmp_path, caplog):
    np.save(tmp_path / "0.npy", 1e-3 * signal())
    with caplog.at_level(logging.WARNING, logger="genzoo"):
        open_signals(str(tmp_path), size=LENGTH, channels=1)
    assert "have a root mean square of 0.00" in caplog.text


def test_empty_folders_and_wrong_settings_are_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no signals .*\.npy, \.npz"):
        open_signals(str(tmp_path), size=LENGTH, channels=1)
    with pytest.raises(UserError, match=r"give --config\.data\.name=signals:PATH"):
        open_signals(str(tmp_path / "absent"), size=LENGTH, channels=1)
    for size in (0, (4, 4)):
        (problem,) = datasets.problems(DataSettings(name=f"signals:{tmp_path}", size=size))
        assert f"data.size = {size!r} must be the number of samples" in problem


@pytest.mark.parametrize(
    ("kind", "files", "sentence"),
    [
        ("signals", ("a.png", "b.png"), "no signals .*; it holds .png files: use folder:PATH"),
        ("signals", ("a.csv",), "no signals .*; it holds .csv files: convert them, or check"),
        ("folder", ("a.npz",), "no images .*; it holds .npz files: use signals:PATH"),
        ("folder", ("a.txt",), "no images .*; it holds .txt files: use documents:PATH"),
        ("folder", ("a",), "no images .*; it holds files without an ending: convert"),
        ("documents", ("a.md",), r"no texts .*\(known endings: .txt\); it holds .md files"),
        ("folder", (), "no images .*; it holds no other files either: check the path"),
    ],
)
def test_a_folder_of_other_files_is_one_sentence(tmp_path, kind, files, sentence):
    for name in files:
        (tmp_path / name).write_text("it")
    lines = "".join(f"{name},it,1\n" for name in files)
    (tmp_path / "metadata.csv").write_text(f"file_name,text,porosity\n{lines}")
    data = DataSettings(name=f"{kind}:{tmp_path}", size=8)
    for ask in (
        lambda: datasets.with_facts(data, ("label",)), lambda: datasets.open_source(data, "train")
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence) as caught:
            ask()
        assert len(caught.value.problems) == 1 and "class" not in str(caught.value)
