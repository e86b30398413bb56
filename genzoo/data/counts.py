"""Word counts, a field: a document as a bag of words, whose order does not matter.

Words are in lower case, begin with a letter and have at least two characters. `STOP_WORDS`, which
say nothing about the subject of a text, are not counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.types import Array
from genzoo.data import given, vocabulary
from genzoo.data.fields import Field

_ENGLISH = """
    an and any are as at be because been before being both but by can cannot could did do does doing
    done down during each few for from further had has have having he her here hers him his how if
    in into is it its itself just may me might more most must my no nor not now of off on once only
    or other our out over own same shall she should so some such than that the their them then there
    these they this those through to too under until up upon us very was we were what when where
    whether which while who whom whose why will with within without would you your
    """
STOP_WORDS = frozenset(_ENGLISH.split())
"""English articles, pronouns, prepositions, conjunctions and auxiliaries."""
_MAX_COUNT = np.iinfo(np.uint16).max


def words_of(text: str) -> list[str]:
    """The words of a text that are counted, in order."""
    return [
        word
        for word in vocabulary.words_of(text)
        if len(word) > 1 and word[0].isalpha() and word not in STOP_WORDS
    ]


def learned(texts: Iterable[str], size: int) -> tuple[str, ...]:
    """The `size` most frequent words of texts, by descending frequency; ties in alphabetical
    order."""
    return vocabulary.learned((" ".join(words_of(text)) for text in texts), size)


@dataclass(frozen=True, kw_only=True)
class Counts(Field):
    """How often each of V words occurs in a document: stored as uint16 [V], seen as float32 [V].

    words: the vocabulary; () before it is known.
    """

    words: tuple[str, ...] = ()
    dtype: ClassVar[type] = np.uint16
    singular: ClassVar[str] = "document"
    plural: ClassVar[str] = "documents"
    suffixes: ClassVar[frozenset[str]] = frozenset((given.TEXT_FILE,))

    def __post_init__(self):
        if len(self.shape) != 1 or (self.words and len(self.words) != self.shape[0]):
            raise ValueError(f"Counts are [V], with a name for each of V words: {self}.")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """The counts of the words of each of N texts: uint16 [N, V]. Other words are not counted,
        and counts are capped at 65,535."""
        rows = []
        for text in texts:
            places = [self._places[word] for word in words_of(text) if word in self._places]
            counts = np.bincount(np.array(places, np.int64), minlength=self.shape[0])
            rows.append(np.minimum(counts, _MAX_COUNT).astype(self.dtype))
        return np.stack(rows) if rows else np.zeros((0, *self.shape), self.dtype)

    def example(self, *rows: int) -> jax.ShapeDtypeStruct:
        """Shape [*rows, V], float32."""
        return jax.ShapeDtypeStruct((*rows, *self.shape), jnp.float32)

    def prepare(self, values: Array | np.ndarray) -> Array:
        """Counts as float32 [N, V]."""
        return jnp.asarray(values, jnp.float32).reshape(len(values), *self.shape)

    def stored(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """Numbers rounded to counts."""
        library = jnp if isinstance(values, jax.Array) else np
        return library.clip(library.round(values), 0, _MAX_COUNT).astype(self.dtype)

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Counts of random words, uint16 [count, V], many of them zero."""
        return random.poisson(0.5, (count, *self.shape)).astype(self.dtype)

    def take(self, value: object) -> np.ndarray:
        """The counts of a text, or an array of counts [V]: uint16 [V]. Raises ValueError."""
        array = np.asarray(value)
        if array.dtype.kind == "U":
            return self.of([str(array)])[0]
        if array.shape != self.shape:
            raise ValueError(f"its shape is {array.shape}, not {self.shape}")
        if array.dtype.kind not in "ui" or (array.size and not 0 <= array.min() <= array.max()):
            raise ValueError("it must hold counts, integers from 0 on")
        return np.minimum(array, _MAX_COUNT).astype(self.dtype)

    def parse(self, value: object, key: str) -> np.ndarray:
        """The counts of a text (see `given.text`): uint16 [V]. Raises UserError, also for a text
        without any word of the vocabulary."""
        counts = self.take(given.text(value, key))
        if not counts.any():
            if what := given.no_text_file(str(value).strip()):
                raise UserError(f"{key} = {value!r} {what}")
            raise UserError(
                f"{key} = {value!r} has none of the {self.shape[0]} words that the model knows: "
                "use other words, or train with a larger data.vocabulary."
            )
        return counts
