"""Tokenizers: from text to ids and back.

| tokenizer | ids                                  | for                                           |
|-----------|--------------------------------------|-----------------------------------------------|
| Words     | one per word or punctuation mark     | captions, with a vocabulary that is learned   |
| Bytes     | one per byte of UTF-8                | any text, without a vocabulary to learn       |
| File      | those of a `tokenizer.json`          | the vocabulary of a pretrained text encoder   |

A file is given by its path or, if it is in one of `packages.PACKAGES`, by its name there.
Id 0 is padding. Case is ignored by `Words`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from genzoo.core.errors import UserError, nearest
from genzoo.core.files import expanded
from genzoo.data import packages

PADDING = 0
UNKNOWN = 1
"""The id that `Words` gives to a word outside its vocabulary."""
_MAX_NAMED = 40  # words of a vocabulary that an error message lists
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


class Tokenizer(Protocol):
    """Converts between text and ids in [1, size); id 0 is padding."""

    @property
    def size(self) -> int:
        """The number of ids, including padding."""

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """The ids of a text, at most so many; marks at its end stay."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; padding is skipped."""

    def complaint(self, text: str) -> str:
        """Why a text cannot be represented, as a sentence; "" if it can."""


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.casefold())


def learned(texts: Iterable[str], size: int = 0) -> tuple[str, ...]:
    """The vocabulary of texts: their words by descending frequency; ties in alphabetical order.
    size: the number of words that are kept; 0 for all."""
    counts = Counter(word for text in texts for word in words_of(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(ordered[: size or None])


@dataclass(frozen=True)
class Words:
    """Word i of the vocabulary has id i + 2; all other words share the id `UNKNOWN`."""

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_ids", {word: i + 2 for i, word in enumerate(self.words)})

    @property
    def size(self) -> int:
        """The number of words, plus one id each for padding and for unknown words."""
        return len(self.words) + 2

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """One id per word and punctuation mark."""
        return [self._ids.get(word, UNKNOWN) for word in words_of(text)[:most]]

    def decode(self, ids: Iterable[int]) -> str:
        """The words, separated by spaces; unknown ones are "?"."""
        return " ".join(
            self.words[id - 2] if id > UNKNOWN else "?" for id in ids if id != PADDING
        )

    def complaint(self, text: str) -> str:
        """Names the first unknown word."""
        unknown = next((word for word in words_of(text) if word not in self._ids), None)
        if unknown is None:
            return ""
        hint = nearest(unknown, self.words)
        listed = len(self.words) > _MAX_NAMED and not hint.startswith("did you mean")
        return f"the vocabulary has no word {unknown!r}: {'use other words.' if listed else hint}"


@dataclass(frozen=True)
class Bytes:
    """Byte b of the UTF-8 encoding has id b + 1."""

    size: int = 257

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """One id per byte."""
        return [byte + 1 for byte in text.encode("utf-8")[:most]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are not UTF-8 are replaced."""
        return bytes(id - 1 for id in ids if id != PADDING).decode("utf-8", "replace")

    def complaint(self, text: str) -> str:
        """Every text can be represented."""
        return ""


@dataclass(frozen=True)
class File:
    """The tokenizer of a `tokenizer.json`, by the library `tokenizers` (extra `text`); id i of the
    file has id i + 1 here. path: of the file, or a name in `packages.PACKAGES`."""

    path: str

    @cached_property
    def _file(self) -> Path:
        file = file_of(self.path)
        if not file.is_file():
            raise UserError(
                f"data.tokenizer = {self.path!r}: there is no such file; give words, bytes, "
                f"{', '.join(packages.PACKAGES)}, or the path of a tokenizer.json."
            )
        return file

    @cached_property
    def _tokenizer(self):
        return _loaded(self.path, self._file.stat().st_mtime_ns)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(self._file.read_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """The size of its vocabulary, including added tokens and padding."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True) + 1

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Its ids, with the special tokens that its post-processor adds. A text that is cut keeps
        those at its end, such as the mark by which CLIP represents a text."""
        whole = self._tokenizer.encode(text)
        ids = [id + 1 for id in whole.ids]
        if most is None or len(ids) <= most:
            return ids
        special = whole.special_tokens_mask[::-1]
        marks = min(special.index(0) if 0 in special else 0, most)
        return ids[: most - marks] + ids[len(ids) - marks :]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self._tokenizer.decode([id - 1 for id in ids if id != PADDING])

    def complaint(self, text: str) -> str:
        """Every text can be represented."""
        return ""


@lru_cache(maxsize=4)  # large ones take a second, and a config is checked several times
def _loaded(path: str, changed: int):
    """The library's tokenizer. changed: when the file was last changed, since the result is
    cached."""
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise UserError(
            f"data.tokenizer = {path!r} needs the library tokenizers: pip install 'genzoo[text]'."
        ) from error
    try:
        tokenizer = Library.from_file(str(file_of(path)))
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"data.tokenizer = {path!r} is not a tokenizer.json: {error}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def is_file(name: str) -> bool:
    """Whether a name is that of a `tokenizer.json`."""
    return name not in ("words", "bytes")


def file_of(name: str) -> Path:
    """The `tokenizer.json` with a path, or with a name in `packages.PACKAGES`. Raises a UserError
    if that package is not installed."""
    if name in packages.PACKAGES:
        key = f"data.tokenizer = {name!r}"
        return packages.PACKAGES[name].file(packages.TOKENIZER, key)
    return expanded(name)


def same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give every text the same ids."""
    if isinstance(one, File) and isinstance(other, File):
        return one.path == other.path or one.sha256 == other.sha256
    return one == other


def tokenizer_of(name: str, words: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a config. name: "words", "bytes", or that of a `tokenizer.json`, see
    `file_of`. words: the vocabulary of "words"."""
    if name == "words":
        return Words(tuple(words))
    return Bytes() if name == "bytes" else File(name)
