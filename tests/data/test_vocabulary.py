"""Tokenizers: text to ids and back, and what a model does not understand."""

import json

import pytest

from genzoo.core.errors import UserError
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
