"""Tokenizers: from text to ids and back.

| tokenizer | ids                                  | for                                           |
|-----------|--------------------------------------|-----------------------------------------------|
| Words     | one per word or punctuation mark     | captions, with the words of the training set  |
| Bytes     | one per byte of UTF-8                | any text, without a vocabulary to learn       |
| File      | those of a `tokenizer.json`          | the vocabulary of a pretrained text encoder   |

Id 0 is padding. Case is ignored by `Words`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from genzoo.core.errors import UserError, nearest

PADDING = 0
UNKNOWN = 1
"""The id of a word that the training set does not have, of `Words`."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


class Tokenizer(Protocol):
    """Converts between text and ids in [1, size); id 0 is padding."""

    @property
    def size(self) -> int:
        """The number of ids, with padding."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; padding is skipped."""

    def complaint(self, text: str) -> str:
        """Why a model cannot understand a text, as a sentence; "" if it can."""


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.casefold())


def learned(texts: Iterable[str], most: int = 0) -> tuple[str, ...]:
    """The vocabulary of texts: the words that they use, the most frequent first; ties in
    alphabetical order. most: the size of the vocabulary; 0 for all words."""
    counts = Counter(word for text in texts for word in words_of(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(ordered[: most or None])


@dataclass(frozen=True)
class Words:
    """Word i of the vocabulary has id i + 2; all other words share the id `UNKNOWN`."""

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_ids", {word: i + 2 for i, word in enumerate(self.words)})

    @property
    def size(self) -> int:
        """The number of words, with padding and unknown words."""
        return len(self.words) + 2

    def encode(self, text: str) -> list[int]:
        """One id per word and punctuation mark."""
        return [self._ids.get(word, UNKNOWN) for word in words_of(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words, separated by spaces; unknown ones are "?"."""
        return " ".join(
            self.words[id - 2] if id > UNKNOWN else "?" for id in ids if id != PADDING
        )

    def complaint(self, text: str) -> str:
        """Names the first unknown word."""
        for word in words_of(text):
            if word not in self._ids:
                hint = nearest(word, self.words) if len(self.words) <= 40 else _close(
                    word, self.words
                )
                return f"the training set has no word {word!r}: {hint}"
        return ""


def _close(word: str, words: Sequence[str]) -> str:
    hint = nearest(word, words)
    return hint if hint.startswith("did") else "use other words."


@dataclass(frozen=True)
class Bytes:
    """Byte b of the UTF-8 encoding has id b + 1."""

    size: int = 257

    def encode(self, text: str) -> list[int]:
        """One id per byte."""
        return [byte + 1 for byte in text.encode("utf-8")]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are not UTF-8 are replaced."""
        return bytes(id - 1 for id in ids if id != PADDING).decode("utf-8", "replace")

    def complaint(self, text: str) -> str:
        """Every text is understood."""
        return ""


@dataclass(frozen=True)
class File:
    """The tokenizer of a `tokenizer.json`, by the library `tokenizers` (extra `text`); id i of the
    file has id i + 1 here."""

    path: str

    @cached_property
    def _tokenizer(self):
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(
                f"data.tokenizer = {self.path!r}: there is no such file; give words, bytes, or the "
                "path of a tokenizer.json."
            )
        return _loaded(self.path, file.stat().st_mtime_ns)

    @property
    def size(self) -> int:
        """The size of its vocabulary with added tokens, and padding."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True) + 1

    def encode(self, text: str) -> list[int]:
        """Its ids, with the special tokens that its post-processor adds."""
        return [id + 1 for id in self._tokenizer.encode(text).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self._tokenizer.decode([id - 1 for id in ids if id != PADDING])

    def complaint(self, text: str) -> str:
        """Every text is understood."""
        return ""


@lru_cache(maxsize=4)  # large ones take a second, and a config is checked several times
def _loaded(path: str, changed: int):
    """The library's tokenizer. changed: when the file was; a file may change."""
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise UserError(
            f"data.tokenizer = {path!r} needs the library tokenizers: pip install 'genzoo[text]'."
        ) from error
    try:
        tokenizer = Library.from_file(str(Path(path).expanduser()))
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"data.tokenizer = {path!r} is not a tokenizer.json: {error}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def is_file(name: str) -> bool:
    """Whether a tokenizer is given as the path of a `tokenizer.json`."""
    return name not in ("words", "bytes")


def tokenizer_of(name: str, words: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a config. name: "words", "bytes" or the path of a `tokenizer.json`. words:
    the vocabulary of "words"."""
    if name == "words":
        return Words(tuple(words))
    return Bytes() if name == "bytes" else File(name)
