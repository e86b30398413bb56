"""Captions that are too long are cut, and that is said."""

import numpy as np
import pytest

from genzoo.core.errors import UserError
from genzoo.data import captions
from genzoo.data.fields import Tokens
from genzoo.data.vocabulary import Bytes, Words

WORDS = Words(("a", "red", "blue", "circle"))


def field(length, tokenizer=WORDS):
    return Tokens(shape=(length,), vocabulary=tokenizer.size, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("length", "tokenizer", "cut", "longest"),
    [
        (3, WORDS, 0, 3),
        (2, WORDS, 3, 3),
        (10, Bytes(), 2, 13),
        (12, Bytes(), 1, 13),
        (13, Bytes(), 0, 13),
    ],
)
def test_what_is_cut_is_counted(length, tokenizer, cut, longest, caplog):
    texts = ["a red", "a red circle", "a red", "a blue circle"]
    if tokenizer == WORDS:
        texts.append("blue red red")
    kind = field(length, tokenizer)
    for split in ("train", "test"):
        caplog.clear()
        found = captions.ids(texts, kind, "it", split)
        np.testing.assert_array_equal(found, np.stack([kind.take(text) for text in texts]))
        assert found.dtype == np.int32
        said = (
            f"{cut} of the {len(texts)} captions of the {split} split of it have more than "
            f"data.tokens = {length} tokens and are cut there; the longest has {longest}."
        )
        assert [said in message for message in caplog.messages] == [True] * bool(cut)


def test_captions_that_are_all_the_same_once_cut_are_refused(caplog):
    texts = ["a red circle", "a blue circle"]
    with pytest.raises(UserError, match=r"data.tokens = 1 cuts .* of it so .*: raise it to 3"):
        captions.ids(texts, field(1), "it", "train")
    captions.ids(texts, field(1), "it", "test")  # chance decides which ones are there
    captions.ids(texts[:1] * 2, field(1), "it", "train")
    assert len(caplog.messages) == 2
    assert captions.ids([], field(4), "it", "test").shape == (0, 4)
