"""Metadata of files: what is read from them, and that every mistake is told with its place."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from genzoo.core.errors import UserError
from genzoo.data import metadata
from genzoo.data.metadata import Annotations, column_statistics

FILES = ("a.png", "b.png", "deep/c.png")
CSV = """file_name,text,label,porosity,grain
b.png,"a dog, asleep",dog,0.4,2
a.png,a cat,cat,.5,1e1
deep/c.png,"two
lines",dog,-1,3
"""
HEADER = "file_name,text,label,porosity"
LINES = ("a.png,a cat,cat,1", "b.png,a dog,dog,2", "deep/c.png,a fox,fox,3")


def table(*lines, header=HEADER):
    return "\n".join([header, *lines]) + "\n"


def jsonl(*changes, **everywhere):
    """Lines for the files, of which the first ones are changed."""
    rows = [{"file_name": file, "text": "it", "porosity": i} for i, file in enumerate(FILES)]
    rows = [row | everywhere for row in rows]
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(root, text, name="metadata.csv", files=FILES, **options):
    file = root / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return metadata.read(file, files, **options)


def test_every_column_of_a_table(tmp_path):
    notes = read(tmp_path, CSV)
    assert notes.texts == ["a cat", "a dog, asleep", "two\nlines"]
    assert notes.labels == ["cat", "dog", "dog"] and notes.columns == ("porosity", "grain")
    np.testing.assert_array_equal(notes.numbers, [[0.5, 10], [0.4, 2], [-1, 3]])
    assert notes.places == [f"{tmp_path}/metadata.csv, line {line}" for line in (3, 2, 4)]
    some = notes.of([2, 0])
    assert some.texts == ["two\nlines", "a cat"] and some.places[1].endswith("line 3")
    np.testing.assert_array_equal(some.numbers, [[-1, 3], [0.5, 10]])


def test_a_table_of_json_says_the_same(tmp_path):
    rows = [
        dict(file_name="b.png", text="a dog, asleep", label="dog", porosity=0.4, grain=2),
        dict(file_name="./a.png", text="a cat", label="cat", grain=10, porosity="0.5"),
        dict(file_name="deep/c.png", text="two\nlines", label="dog", porosity=-1, grain=3),
    ]
    written = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found, expected = read(tmp_path, written, "metadata.jsonl"), read(tmp_path, CSV)
    assert found.texts == expected.texts and found.labels == expected.labels
    assert found.columns == expected.columns
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    # A character that `str.splitlines` takes for the end of a line.
    notes = read(tmp_path, jsonl(dict(text="a\u2028b")).replace("\\u2028", "\u2028"), "m.jsonl")
    assert notes.texts[0] == "a\u2028b" and notes.labels is None


def test_a_class_is_the_same_number_with_and_without_a_point(tmp_path):
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "label": 2}\n{"file_name": "b.png", "label": 2.0}'
    )
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    assert metadata.read(tmp_path / "metadata.jsonl", ("a.png", "b.png")).labels == ["2", "2"]


def test_what_spreadsheets_write(tmp_path):
    rewritten = table(*LINES).replace("\n", "\r\n")
    notes = read(tmp_path, b"\xef\xbb\xbf" + rewritten.encode() + b"\r\n")
    assert notes.labels == ["cat", "dog", "fox"] and notes.columns == ("porosity",)
    numbers = read(tmp_path, "file_name,label\na.png,10\nb.png,2\ndeep/c.png,2\n")
    assert numbers.labels == ["10", "2", "2"] and numbers.texts is None and not numbers.columns


def test_only_what_is_wanted_is_checked(tmp_path):
    careless = "file_name,text,label,author\na.png,,cat,me\nb.png,,dog,\ndeep/c.png,x,dog,\n"
    assert read(tmp_path, careless, wanted=("label",)).labels == ["cat", "dog", "dog"]
    unlabelled = "author\nme\n"  # of no use, so that it need not be right
    assert read(tmp_path, unlabelled, wanted=("label",)) is None
    assert read(tmp_path, "file_name\na.png\n") is None


MISTAKES = {
    "missing file": (table(*LINES, "d.png,a,b,1"), "line 5, column 'file_name': there is no file"),
    "no name": (table(*LINES, ",a,b,1"), "line 5, column 'file_name': there is no file ''"),
    "outside": (table(*LINES, "../a.png,a,b,1"), "line 5, column 'file_name': there is no file"),
    "bad number": (table(*LINES[:2], "deep/c.png,a,b,1x"), "line 4, column 'porosity': '1x' is "),
    "no number": (table(*LINES[:2], "deep/c.png,a,b,"), "line 4, column 'porosity': '' is not a "),
    "infinite": (table(*LINES[:2], "deep/c.png,a,b,inf"), "line 4, column 'porosity': 'inf' is "),
    "too large": (table(*LINES[:2], "deep/c.png,a,b,1e39"), "line 4, column 'porosity': '1e39'"),
    "empty caption": (table("a.png, ,b,1", *LINES[1:]), "line 2, column 'text': the caption is em"),
    "empty class": (table("a.png,a,,1", *LINES[1:]), "line 2, column 'label': the class is empty"),
    "duplicate row": (table(*LINES, LINES[1]), "line 5, column 'file_name': 'b.png' is also on li"),
    "same file": (table(*LINES, "./b.png,a,b,1"), "line 5, column 'file_name': './b.png' is also"),
    "unknown column": (
        table(*(f"{line},me" for line in LINES), header=f"{HEADER},author"),
        "line 1, column 'author': the column is unknown",
    ),
    "no row": (table(*LINES[:2]), "metadata.csv has no line for 'deep/c.png': add one"),
    "no rows": (table(), "metadata.csv has no line for 'a.png'"),
    "few cells": (table(*LINES[:2], "deep/c.png,a"), "line 4: it has 2 cells, but there are 4 col"),
    "many cells": (table("a.png,a,b,c,1", *LINES[1:]), "line 2: it has 5 cells, but there are 4 c"),
    "column twice": (table(header=f"{HEADER},text"), "line 1, column 'text': it is named twice"),
    "no file_name": ("file,text\na.png,a\n", "line 1: there is no column 'file_name'"),
    "no header": ("", "line 1: it is empty; name the columns there"),
    "an open quote": (
        table(*LINES[:2], 'deep/c.png,"a,b,1'), "line 4: it is not CSV (unexpected end of data); a "
    ),
    "not UTF-8": (table(*LINES[:2]).encode() + b"deep/c.png,\xe4,b,1\n", "line 4: it is not UTF-8"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_table_is_one_sentence_with_its_place(tmp_path, name):
    text, sentence = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    problems = caught.value.problems
    assert len(problems) == 1 + 2 * (name == "no rows")
    assert problems[0].startswith(f"{tmp_path}/metadata.csv") and sentence in problems[0]
    assert re.search(r"[^.]\.$", problems[0]), problems[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (jsonl() + "{\n", "line 4, character 2: it is not JSON"),
        (jsonl() + "[1]\n", "line 4: it is not a JSON object"),
        (jsonl(dict(porosity=None)), "line 1, column 'porosity': null is not a finite number"),
        (jsonl(dict(porosity=True)), "line 1, column 'porosity': true is not a finite number"),
        (jsonl(dict(porosity=10**400)), "line 1, column 'porosity': 1000"),
        (jsonl(dict(porosity=1e300)), "line 1, column 'porosity': 1e+300 is too large, beyond 1e+"),
        (jsonl(dict(porosity=[1] * 99)), "line 1, column 'porosity': [1, 1, 1,"),
        (jsonl(dict(file_name=7)), "line 1, column 'file_name': 7 is no name; write a text."),
        (jsonl() + '{"file_name": "a.png", "file_name": "b.png"}', "line 4: it is not JSON, becau"),
        (jsonl() + '{"file_name": "a.png", "porosity": NaN}', "line 4: it is not JSON, becau"),
        (jsonl(**{"Unnamed: 0": 3}), "line 1: column 4 ('Unnamed: 0') is the index of a pandas ta"),
        (jsonl(**{" a": 3}), "line 1: column 4 has the name ' a', which cannot be requested"),
        (jsonl(**{"a, b": 3}), "line 1: column 4 has the name 'a, b', which cannot be requested"),
        (jsonl(dict(text=3)), "line 1, column 'text': 3 is not a caption"),
        (jsonl(dict(text=None)), "line 1, column 'text': the caption is empty"),
        (jsonl(dict(file_name="d.png")), "line 1, column 'file_name': there is no file 'd.png'"),
        (jsonl({}, dict(box=1), dict(box=2)), "line 2, column 'box': it is missing on line 1"),
        (jsonl(dict(box=1)), "line 2, column 'box': it is missing here"),
        ('{}\n{"file_name": "a.png"}', "line 2, column 'file_name': it is missing on line 1"),
        (jsonl() + '{"file_name": "a.png", "text": "a"}', "line 4, column 'porosity': it is miss"),
        (jsonl(boxes=[1, 2]), "line 1, column 'boxes': the column is unknown"),
        ("\n", "line 1: it is empty"),
    ],
)
def test_a_mistake_in_lines_of_json_is_one_sentence_with_its_place(tmp_path, text, sentence):
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, "metadata.jsonl")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/metadata.jsonl, {sentence}")


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",\n".join(jsonl().strip().split("\n")) + "]",
        json.dumps([{"file_name": "a.png"}], indent=2),
        json.dumps({"file_name": "a.png", "text": "it"}, indent=2),
    ],
)
def test_json_in_another_form_is_one_mistake(tmp_path, text):
    with pytest.raises(UserError, match="write one object per line and file") as caught:
        read(tmp_path, text, "metadata.jsonl")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("header", "cells", "complaint"),
    [
        ("file_name,text,", "0", "column 3 has no name, like the index of a pandas table"),
        ("file_name,text,Unnamed: 0", "0", "column 3 ('Unnamed: 0') is the index of a pandas ta"),
        ('file_name,text,"a,b"', "0", "column 3 has the name 'a,b', which cannot be requested"),
        ("file_name,text,a=b", "0", "column 3 has the name 'a=b', which cannot be requested"),
    ],
)
def test_numbers_that_cannot_be_requested_by_name_are_refused(tmp_path, header, cells, complaint):
    text = table(*(f"{file},it,{i}{cells}" for i, file in enumerate(FILES)), header=header)
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/metadata.csv, line 1: {complaint}")
    assert read(tmp_path, text, wanted=("text",)).columns == (), "of no use, and not read"


def test_the_index_of_pandas_is_refused(tmp_path):
    text = ",file_name,porosity\n0,a.png,1\n1,b.png,2\n2,deep/c.png,3\n"
    with pytest.raises(UserError, match=r"line 1: column 1 has no name.*to_csv\(index=False\)"):
        read(tmp_path, text)
    blank = text.replace(",file_name", ",file_name,").replace(".png", ".png,")
    with pytest.raises(UserError, match=r"column 1 has no name(.|\n)*column 3 has no name"):
        read(tmp_path, blank)


def test_numbers_all_too_large_are_one_mistake(tmp_path):
    text = table(*(f"{file},it,a,{i + 1}e35" for i, file in enumerate(FILES)))
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert "line 1, column 'porosity': every number is too large, beyond 1e+30; give" in problem


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (["/data/a.png", "/data/b.png", "/c.png"], "is an absolute path", "relative to"),
        ([r"C:\a.png", r"C:\b.png", r"D:\c.png"], "is an absolute path", "relative to"),
        (["a.png", "b.png", r"deep\c.png"], "has backslashes", "slashes"),
        (["a.png", "b.png", "deep/../deep/c.png"], "takes a detour", "'deep/c.png'"),
        (["a.png", "b.png", "deep"], "is a folder", "path of a file"),
        (["a.png", "b.png", "../c.png"], "is outside", "move the file"),
        (["x/a.png", "x/b.png", "x/c.png"], "and the other lines are alike", "correct the name"),
    ],
)
def test_a_file_name_that_is_wrong_in_any_way_is_one_sentence(tmp_path, names, what, remedy):
    root = tmp_path / "it"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "c.png").touch()
    lines = [{"file_name": name, "text": "it"} for name in names]
    with pytest.raises(UserError, match=f"column 'file_name': .*{what}.*; .*{remedy}") as caught:
        read(root, "\n".join(map(json.dumps, lines)), "metadata.jsonl")
    (problem,) = caught.value.problems
    assert str(root) in problem and problem.endswith(".")


def test_files_that_are_there_and_not_in_the_data_set_are_told_apart(tmp_path):
    (tmp_path / "notes.pdf").write_text("")
    with pytest.raises(UserError, match=r"line 5, column 'file_name': .* its ending is unknown"):
        read(tmp_path, table(*LINES, "notes.pdf,a,b,1"))


def test_many_mistakes_are_counted(tmp_path):
    files = tuple(f"{i}.png" for i in range(40))
    lines = (f"{file},a,b,{'x' if i else 1}" for i, file in enumerate(files))
    with pytest.raises(UserError, match=r"And 29 more\.") as caught:
        read(tmp_path, table(*lines), files=files)
    assert len(caught.value.problems) == 11


def test_there_is_one_file_of_metadata(tmp_path):
    assert metadata.find(tmp_path) is None
    (tmp_path / "metadata.jsonl").write_text("")
    assert metadata.find(tmp_path) == tmp_path / "metadata.jsonl"
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(UserError, match=r"holds both metadata\.csv and metadata\.jsonl"):
        metadata.find(tmp_path)


def test_captions_beside_files(tmp_path):
    texts = {"a.txt": "a cat\n", "b.txt": "a dog", "deep/c.txt": "a fox", "notes.txt": ""}
    (tmp_path / "deep").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert metadata.captions(tmp_path, FILES, texts.keys()).texts == ["a cat", "a dog", "a fox"]
    assert metadata.captions(tmp_path, FILES, {"notes.txt"}) is None
    with pytest.raises(UserError, match=r"deep/c\.png has no caption: write one into deep/c\.txt"):
        metadata.captions(tmp_path, FILES, {"a.txt", "b.txt"})
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"b\.txt, line 1: the caption is empty"):
        metadata.captions(tmp_path, FILES, texts.keys())


def test_numbers_are_standardised_over_the_training_set():
    numbers = np.random.default_rng(0).normal(5, 3, (50, 2))
    notes = Annotations(places=["here"] * 50, columns=("one", "two"), numbers=numbers)
    for (name, mean, deviation), values in zip(column_statistics(notes), numbers.T, strict=True):
        assert name in ("one", "two")
        assert (mean, deviation) == (np.mean(values), np.std(values))
    constant = Annotations(places=["here", "there"], columns=("one",), numbers=np.full((2, 1), 0.1))
    with pytest.raises(UserError, match=r"^here, column 'one': all 2 numbers .* about 0\.1"):
        column_statistics(constant)
    tiny = replace(constant, numbers=np.array([[1e-46], [3e-46]]))  # both are 0 as float32
    with pytest.raises(UserError, match="multiply it if the numbers are that small"):
        column_statistics(tiny)
