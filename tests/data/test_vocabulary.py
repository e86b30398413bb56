"""Tokenizers: text to ids and back, and what a model does not understand."""

import json

import pytest

from genzoo.core.errors import UserError
from genzoo.data import captions
from genzoo.data.fields import Tokens
from genzoo.data.vocabulary import PADDING, UNKNOWN, Bytes, File, Words, learned, tokenizer_of

TEXTS = ("A red circle, left of a blue square.", "a blue ring", "The dog's well-known bone")


def test_a_vocabulary_has_the_most_frequent_words_first():
    words = learned(TEXTS)
    assert words[:3] == ("a", "blue", ",")  # three times, twice, then in alphabetical order
    assert {"dog's", "well-known", "."} <= set(words)
    assert learned(TEXTS, size=2) == ("a", "blue")
    assert learned([]) == ()


def test_words_come_back_in_lower_case_without_their_spacing():
    words = Words(learned(TEXTS))
    ids = words.encode("A  RED\ncircle, left")
    assert min(ids) > UNKNOWN and words.size == len(words.words) + 2 > max(ids)
    assert words.decode([*ids, PADDING, PADDING]) == "a red circle , left"
    assert words.encode("a dragon") == [ids[0], UNKNOWN]
    assert words.decode(words.encode("a dragon")) == "a ?"


def test_an_unknown_word_is_named_with_the_closest_one():
    words = Words(learned(TEXTS))
    assert words.complaint("a blue circle") == ""
    assert words.complaint("a bleu circle").endswith("no word 'bleu': did you mean 'blue'?")
    assert "known are: a, blue" in Words(("a", "blue")).complaint("xyz")
    many = Words(tuple(f"word{i}" for i in range(100)))
    assert many.complaint("xyz").endswith("no word 'xyz': use other words.")


def test_bytes_carry_any_text():
    text = "a Ré∂ cirçle"
    ids = Bytes().encode(text)
    assert Bytes().decode([*ids, PADDING]) == text and Bytes().complaint(text) == ""
    assert min(ids) > 0 and max(ids) < Bytes().size == 257


def test_a_text_that_is_cut_keeps_its_end_mark(tmp_path):
    pytest.importorskip("tokenizers")
    vocabulary = {"[CLS]": 0, "[SEP]": 1, "red": 2, "blue": 3, "ring": 4}
    marks = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    body = {"Sequence": {"id": "A", "type_id": 0}}
    content = {
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": None,
        "truncation": None, "padding": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [marks[0], body, marks[1]],
            "pair": [marks[0], body, marks[1]],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]}
                for name in ("[CLS]", "[SEP]")
            },
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[SEP]"},
    }  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    tokenizer = tokenizer_of(str(file))
    assert tokenizer.encode("red blue ring") == [1, 3, 4, 5, 2]
    assert tokenizer.encode("red blue ring", 5) == [1, 3, 4, 5, 2]
    assert tokenizer.encode("red blue ring", 4) == [1, 3, 4, 2]
    assert tokenizer.encode("red blue ring", 1) == [2]
    field = Tokens(shape=(3,), vocabulary=tokenizer.size, tokenizer=tokenizer)
    cut = captions.ids(["red", "red blue ring"], field, "here", "test")
    assert cut.tolist() == [[1, 3, 2], [1, 3, 2]]
    assert Bytes().encode("abc", 2) == [98, 99]
    assert Words(("a", "b")).encode("b a b", 2) == [3, 2]


def test_a_tokenizer_file_is_read(tmp_path):
    pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "red": 1, "circle": 2}
    content = {
        "version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "truncation": None, "padding": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    tokenizer = tokenizer_of(str(file))
    assert isinstance(tokenizer, File) and tokenizer.size == 4
    assert tokenizer.encode("Red circle dragon") == [2, 3, 1]
    assert tokenizer.decode([2, 3, PADDING]) == "red circle"
    file.write_text("{}")
    with pytest.raises(UserError, match=r"is not a tokenizer\.json"):
        tokenizer_of(str(file)).encode("red")
    with pytest.raises(UserError, match="there is no such file"):
        tokenizer_of(str(tmp_path / "none.json")).encode("red")
