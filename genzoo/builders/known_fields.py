"""The fields of a data set that follow from its settings, once the facts are filled in."""

from collections.abc import Sequence

from genzoo.data.fields import Classes, Field, Tokens, Vector, numbered
from genzoo.data.vocabulary import learned, tokenizer_of
from genzoo.settings import DataSettings

MOST_TOKENS = 64
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


def text_facts(data: DataSettings, texts: Sequence[str]) -> dict[str, object]:
    """The facts about the captions of the training set that the settings leave open."""
    words = data.words
    if data.tokenizer == "words" and not words:
        words = learned(texts)
    tokenizer = tokenizer_of(data.tokenizer, words)
    longest = max(len(tokenizer.encode(text)) for text in dict.fromkeys(texts))
    return {"words": words, "tokens": data.tokens or min(max(longest, 1), MOST_TOKENS)}


def vector_fields(data: DataSettings) -> dict[str, Field]:
    """The field `properties` of numbers, if their names are known; models see them standardised."""
    if not data.columns:
        return {}
    names, mean, deviation = zip(*data.columns, strict=True)
    return {
        "properties": Vector(shape=(len(names),), names=names, mean=mean, deviation=deviation)
    }


def notes(data: DataSettings) -> dict[str, Field]:
    """The fields besides x that the notes on files make, as far as they are known."""
    return {**label_fields(data), **text_fields(data), **vector_fields(data)}
