"""Fields and facts that come from the annotations of a data set: captions, classes, numbers.

A field is known once its facts are filled in: the words and the length of captions, the classes,
the names and statistics of numbers.
"""

from collections.abc import Sequence

from genzoo.data.fields import Classes, Field, Tokens, Vector, numbered
from genzoo.data.listing import Listing
from genzoo.data.metadata import column_statistics
from genzoo.data.vocabulary import learned, tokenizer_of
from genzoo.settings import DataSettings

FIELDS = ("label", "text", "properties")
"""The names of the fields that may come from annotations."""
MAX_TOKENS = 64
"""The most tokens of a caption, unless data.tokens is given."""


def text_fields(data: DataSettings) -> dict[str, Field]:
    """The field `text` of captions, if its vocabulary is known."""
    if not data.tokens or (data.tokenizer == "words" and not data.words):
        return {}
    tokenizer = tokenizer_of(data.tokenizer, data.words)
    return {
        "text": Tokens(shape=(data.tokens,), vocabulary=tokenizer.size, tokenizer=tokenizer)
    }


def label_fields(data: DataSettings) -> dict[str, Field]:
    """The field `label`, if the classes are known."""
    if data.classes:
        return {"label": Classes(names=tuple(data.classes))}
    return {"label": numbered(data.num_classes)} if data.num_classes else {}


def vector_fields(data: DataSettings) -> dict[str, Field]:
    """The field `properties` of numbers, if their names are known; models see them standardised."""
    if not data.columns:
        return {}
    names, mean, deviation = zip(*data.columns, strict=True)
    return {
        "properties": Vector(shape=(len(names),), names=names, mean=mean, deviation=deviation)
    }


def fields(data: DataSettings) -> dict[str, Field]:
    """The fields that come from annotations, as far as they are known."""
    return {**label_fields(data), **text_fields(data), **vector_fields(data)}


def text_facts(data: DataSettings, texts: Sequence[str]) -> dict[str, object]:
    """The words and the length of the captions of the training split, unless they are given."""
    words = data.words
    if data.tokenizer == "words" and not words:
        words = learned(texts)
    tokenizer = tokenizer_of(data.tokenizer, words)
    longest = max(len(tokenizer.encode(text)) for text in dict.fromkeys(texts))
    return {"words": words, "tokens": data.tokens or min(max(longest, 1), MAX_TOKENS)}


def class_facts(data: DataSettings, names: Sequence[str]) -> dict[str, object]:
    """The number and the names of the classes. If only the number is given, classes are numbered
    and have no names."""
    return {"num_classes": len(names), "classes": () if data.num_classes else tuple(names)}


def facts(data: DataSettings, files: Listing) -> dict[str, object]:
    """The facts about the annotations of the training split."""
    train = files.parts["train"].annotations
    known = class_facts(data, files.classes)
    if train.texts:
        known |= text_facts(data, train.texts)
    if train.columns:
        known["columns"] = column_statistics(train)
    return known
