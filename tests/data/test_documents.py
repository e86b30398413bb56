"""Documents: counting words, the vocabulary, folders of texts, and the standard library's own."""

import inspect
import math
import re
import sys
import textwrap
import zlib
from dataclasses import replace

import numpy as np
import pytest

from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data import counts, docstrings, documents
from genzoo.data.counts import Counts
from genzoo.data.fields import Tokens
from genzoo.data.source import Spec
from genzoo.data.vocabulary import Words
from genzoo.settings import DataSettings

WORDS = ("file", "read", "line")
KIND = Counts(shape=(3,), words=WORDS)
TEXT = "Read a file: the FILE, its lines (file2, re_ad), line by line. 3 x"


def test_words_are_counted_without_case_marks_numbers_and_stop_words():
    expected = ["read", "file", "file", "lines", "file2", "re_ad", "line", "line"]
    assert counts.words_of(TEXT) == expected
    np.testing.assert_array_equal(KIND.of([TEXT, ""]), [[2, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(KIND.of(["line " * 70_000]), [[0, 0, 65_535]])


def test_the_vocabulary_is_the_most_frequent_words_ties_in_alphabetical_order():
    texts = ["zip zip tar the the the", "tar bz2 zip", "gzip: bz2"]
    assert counts.learned(texts, 3) == ("zip", "bz2", "tar")
    assert counts.learned(texts, 10) == ("zip", "bz2", "tar", "gzip")
    train = documents.Corpus(name="it", titles=("a", "b", "c"), texts=tuple(texts))
    assert documents.vocabulary(train, 2) == ("zip", "bz2")
    with pytest.raises(UserError, match="The texts of it hold no words"):
        documents.vocabulary(replace(train, texts=("the", "", "1 2")), 2)


def test_a_document_is_given_as_a_sentence_a_file_or_counts(tmp_path):
    np.testing.assert_array_equal(KIND.parse("read the line", "it"), [0, 1, 1])
    file = tmp_path / "query.txt"
    file.write_text("Line\nline", encoding="utf-8-sig")
    np.testing.assert_array_equal(KIND.parse(str(file), "it"), [0, 0, 2])
    np.testing.assert_array_equal(KIND.take(np.array("a file")), [1, 0, 0])
    np.testing.assert_array_equal(KIND.take([3, 0, 70_000]), [3, 0, 65_535])
    assert KIND.stored(np.array([0.4, 1.6, -1])).tolist() == [0, 2, 0]
    for wrong in ([1, 2], [1, -1, 0], [0.5, 1, 1]):
        with pytest.raises(ValueError, match="it"):
            KIND.take(wrong)
    file.write_bytes(b"one\ntwo\n\xff")
    for value, message in {
        "no such thing": "it = 'no such thing' has none of the 3 words that the model knows",
        "nowhere.txt": "it = 'nowhere.txt': there is no such file",
        str(file): r"query.txt', line 3: it is not UTF-8",
    }.items():
        with pytest.raises(UserError, match=message):
            KIND.parse(value, "it")
    with pytest.raises(ValueError, match="a name for each of V words"):
        Counts(shape=(2,), words=WORDS)


# --- folders --------------------------------------------------------------------------------------


def filled(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return f"documents:{folder}"


def test_a_folder_is_split_by_the_checksums_of_the_paths(tmp_path):
    files = {f"{'ab'[i % 2]}/{i}.txt": f"word{i} common" for i in range(40)}
    name = filled(tmp_path, files | {"a/.hidden.txt": "x", "a/note.md": "x"})
    held = {file for file in files if zlib.crc32(file.encode()) % 4 == 0}
    assert 0 < len(held) < 20
    data = DataSettings(name=name, holdout=4, vocabulary=50)
    before = datasets.spec(data)
    assert before.shape == (50,) and "label" not in before.fields
    assert datasets.with_facts(data, ())[0].classes == ()
    found, missing = datasets.with_facts(data, ("label",))
    assert missing == [] and found.classes == ("a", "b") and found.num_classes == 2
    assert found.words[0] == "common" and len(found.words) == 1 + len(files) - len(held)
    assert datasets.with_facts(replace(found, name="documents:gone"), ("label",))[1] == []
    for split, expected in {"train": files.keys() - held, "test": held}.items():
        source = datasets.open_source(found, split)
        assert source.titles == tuple(sorted(expected))
        assert source.spec == Spec(fields=datasets.spec(found).fields)
        for title, row, label in zip(source.titles, *source.arrays.values(), strict=True):
            assert "ab"[label] == title[0] and row[0] == 1
            assert row.sum() == (2 if split == "train" else 1)
    # Given words are kept, and without them an opened split learns its own.
    given, _ = datasets.with_facts(replace(data, words=("common",)), ("label",))
    assert given.words == ("common",) and given.classes == ("a", "b")
    assert datasets.open_source(data, "test").spec.fields["x"].words == found.words


def test_own_splits_and_a_folder_without_classes(tmp_path):
    name = filled(tmp_path, {"train/a.txt": "one", "train/b.txt": "two", "val/c.txt": "two three"})
    found, missing = datasets.with_facts(DataSettings(name=name), ("label",))
    assert missing == ["label"] and set(found.words) == {"one", "two"}
    test = datasets.open_source(found, "test")
    assert test.titles == ("c.txt",) and test.arrays.keys() == {"x"}
    assert test.arrays["x"].sum() == 1


def test_the_checksum_tells_other_texts_titles_and_editions_apart():
    corpus = documents.Corpus(name="it", titles=("a", "b"), texts=("one", "two"))
    others = (
        corpus, replace(corpus, texts=("one", "one")), replace(corpus, titles=("a", "c")),
        replace(corpus, edition="Python 3.99"),
    )  # fmt: skip
    counted = [documents.counted(one, ("one", "two")) for one in others]
    assert len({each.identity()["checksum"] for each in counted}) == 4


def test_mistakes_in_a_folder_are_said(tmp_path):
    def refused(message, **settings):
        with pytest.raises(UserError, match=message):
            datasets.open_source(DataSettings(name=f"documents:{tmp_path}/it", **settings), "train")

    refused("There is no folder .*/it: give --config.data.name=documents:PATH")
    (tmp_path / "it").mkdir()
    refused(r"holds no texts for the train split")
    filled(tmp_path / "it", {"a/1.txt": "one", "2.txt": "two"})
    refused(r"others are not \('2.txt'\)")
    (tmp_path / "it" / "a" / "1.txt").write_bytes(b"\xe9")
    (tmp_path / "it" / "2.txt").unlink()
    refused(r"1.txt, line 1: it is not UTF-8; save the file")
    unused = datasets.unused(DataSettings(name="docstrings", holdout=4, size=8))
    assert any("data.holdout = 4 has no effect with data.name = 'docstrings'" in s for s in unused)
    assert len(unused) == 2
    (message,) = datasets.unused(DataSettings(name="mnist", vocabulary=5))
    assert "use documents:PATH" in message


@pytest.mark.parametrize("text", ["", " \n\ufeff", "the 12 and 3"])
def test_documents_without_words_are_named(tmp_path, text):
    names = [f"{i}.txt" for i in range(4)]
    name = filled(tmp_path, {n: "file" for n in names} | {"a.txt": text, "b.txt": text})
    data = DataSettings(name=name, holdout=2)
    with pytest.raises(UserError) as caught:
        for split in ("train", "test"):
            datasets.open_source(data, split)
    assert 1 <= len(caught.value.problems) <= 2
    for problem in caught.value.problems:
        assert re.match(rf"{tmp_path}/[ab].txt (is empty|has only stop words).*: write", problem)
    with pytest.raises(UserError, match=r"a\.txt (is empty|has only stop words)"):
        documents.open_files([tmp_path / "0.txt", tmp_path / "a.txt"], KIND)
    (tmp_path / "a.txt").write_text("unheard")
    with pytest.raises(UserError, match=r"a\.txt has none of the 3 words that the model knows"):
        documents.open_files([tmp_path / "0.txt", tmp_path / "a.txt"], KIND)


def test_texts_without_a_word_of_the_vocabulary_are_warned_of(caplog):
    corpus = documents.Corpus(name="it", titles=("a", "b", "c"), texts=("one", "two", "six"))
    documents.counted(corpus, ("one", "two", "six"))
    assert not caplog.records
    documents.counted(corpus, ("one",))
    (message,) = caplog.messages
    assert "2 of the 3 texts of it have none of the 1 words" in message and ": b, c." in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("it.png", "is a .png file, which is not read as a text: give a text, or the name of a"),
        ("README", "is a file without an ending, which is not read"),
        ("notes.md", "is a .md file, which"),
        ("folder", "is a folder: give a text"),
        ("empty.txt", ": the file is empty; write a text into it"),
    ],
)
def test_a_query_that_is_another_file_is_named(tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    if name != "folder":
        (tmp_path / name).write_text(" " if name.endswith(".txt") else "file")
    words = Words(("file",))
    text = Tokens(shape=(9,), vocabulary=words.size, tokenizer=words)
    for kind in (KIND, text):
        for given in (name, str(tmp_path / name)):
            with pytest.raises(UserError, match=re.escape(f"it = {given!r}")) as caught:
                kind.parse(given, "it")
            assert what in str(caught.value)
    (tmp_path / "line").touch()  # a word of the vocabulary is a word, whatever the folder holds
    assert KIND.parse("line", "it").tolist() == [0, 0, 1]


# --- docstrings -----------------------------------------------------------------------------------


def test_the_standard_library_documents_itself():
    before = set(sys.modules)
    train, test = docstrings.read("train"), docstrings.read("test")
    added = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not added - {"builtins", "cmath", "itertools", "math", "time"}
    texts = {t: x for one in (train, test) for t, x in zip(one.titles, one.texts, strict=True)}
    assert len(texts) == len(train.titles) + len(test.titles) > 2000
    assert len(set(texts.values())) == len(texts)
    assert texts["textwrap.dedent"] == inspect.getdoc(textwrap.dedent)
    assert texts["textwrap.TextWrapper.wrap"] == inspect.getdoc(textwrap.TextWrapper.wrap)
    assert texts["math.isclose"] == inspect.getdoc(math.isclose)
    assert texts["builtins.str.split"] == inspect.getdoc(str.split)
    assert not [t for t in texts if any(part.startswith("_") for part in t.split("."))]
    assert not {t.split(".")[0] for t in texts} & {"idlelib", "test", "tkinter", "distutils"}
    assert list(train.titles) == sorted(train.titles) and train.edition.startswith("Python 3.")
    assert train.classes == test.classes and train.classes[-1] == "other"
    labels = [label for one in (train, test) for label in one.labels]
    sizes = {name: labels.count(name) for name in train.classes[:-1]}
    assert min(sizes.values()) >= docstrings.MIN_DOCUMENTS and len(sizes) > 20
    for title, label in zip(train.titles, train.labels, strict=True):
        assert label in (title.split(".")[0], "other")
    assert all(zlib.crc32(t.encode()) % docstrings.HOLDOUT == 0 for t in test.titles)
